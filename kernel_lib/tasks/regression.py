"""Scoring texts on several scales: FB3, "Feedback Prize - English Language Learning".

Another competition of this kind needs other column names and another range, nothing more.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from kernel_lib.config import InferenceSettings
from kernel_lib.metrics.regression import mcrmse_standard_error, rmse_by_column
from kernel_lib.model.backbone import build_backbone
from kernel_lib.model.heads import PooledModel
from kernel_lib.model.pooling import make_pooling
from kernel_lib.runtime.paths import find_folder
from kernel_lib.tasks.base import PredictingTask, Unseen
from kernel_lib.tasks.encoder import prepare_encoder
from kernel_lib.tasks.input_files import draw_rows
from kernel_lib.tasks.regression_settings import FB3_COLUMNS, RegressionSettings
from kernel_lib.tasks.soft_rows import read_soft_rows
from kernel_lib.tasks.submission import make_submission, write_submission
from kernel_lib.text.batches import Batch, Example, cut_texts, encode_texts
from kernel_lib.text.folds import make_folds
from kernel_lib.text.tables import numeric_columns, read_table
from kernel_lib.training.losses import make_loss
from kernel_lib.training.origins import SoftRows

__all__ = ["FB3_COLUMNS", "RegressionSettings", "RegressionTask"]


class RegressionTask(PredictingTask):
    """Reads, encodes, models and scores texts with several numeric targets.

    Args:
        settings: of the run.
    """

    name = "fb3"
    score_name = "mcrmse"
    lower_is_better = True

    def __init__(self, settings: RegressionSettings) -> None:
        self._settings = settings
        self._loss = make_loss(
            settings.loss, weights=settings.target_weights, rank_weight=settings.rank_loss_weight
        )

    @property
    def settings(self) -> RegressionSettings:
        """The run's settings."""
        return self._settings

    def read_train(self) -> pd.DataFrame:
        """The training rows: id, text, targets as float64, and whatever else the file has.

        Raises:
            DataError: a file, column, id or target is missing or wrong.
        """
        s = self.settings
        path = self._folder(s.data_dir, ("train.csv",)) / "train.csv"
        frame = read_table(path, columns=(s.text_column, *s.target_columns), id_column=s.id_column)
        frame = numeric_columns(
            frame,
            s.target_columns,
            id_column=s.id_column,
            lowest=s.target_min,
            highest=s.target_max,
            source=path,
        )
        frame = draw_rows(frame, s)
        self._warn_about_empty_texts(frame, path)
        return frame

    def read_test(self, settings: InferenceSettings) -> Unseen:
        """The test rows, and the path of the sample submission beside them.

        Raises:
            DataError: as for :meth:`read_train`.
        """
        s = self.settings
        folder = self._folder(settings.data_dir, ("test.csv", "sample_submission.csv"))
        path = folder / "test.csv"
        frame = read_table(path, columns=(s.text_column,), id_column=s.id_column)
        self._warn_about_empty_texts(frame, path)
        return Unseen(frame, folder / "sample_submission.csv")

    def folds(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """The fold of each training row, ``(rows,)``. Raises DataError for too few rows."""
        s = self.settings
        return make_folds(
            frame,
            scheme=s.fold_scheme,
            n_folds=s.n_folds,
            seed=s.seed,
            target_columns=s.target_columns,
            group_column=s.group_column,
        )

    def encode(self, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        """An example a row, in the frame's order; with targets where the frame has them.

        Rows with targets are trained and evaluated on: they are as long as either asks for, and
        :meth:`cut` afterwards. Others are only predicted, and cut for that here.
        """
        s = self.settings
        ids = frame[s.id_column].tolist()
        targets: Iterable[NDArray[np.float32] | None] = itertools.repeat(None, len(ids))
        longest = s.evaluation_length
        if set(s.target_columns) <= set(frame.columns):
            targets = frame[list(s.target_columns)].to_numpy(np.float32)
            longest = max(longest, s.max_length)
        encoded = encode_texts(tokenizer, frame[s.text_column].tolist(), max_length=longest)
        return [
            Example(row_id, tokens, target, row=row)
            for row, (row_id, tokens, target) in enumerate(zip(ids, encoded, targets, strict=True))
        ]

    def soft_rows(self, tokenizer: PreTrainedTokenizerBase) -> SoftRows | None:
        """The rows of ``pseudo_labels``. Raises ArtifactError, DataError for a damaged table."""
        if not self.settings.pseudo_labels:
            return None
        return read_soft_rows(self.settings, lambda frame: self.encode(frame, tokenizer))

    def first_weights(self) -> str:
        """The run of ``init_from``."""
        return self.settings.init_from

    def cut(self, examples: Sequence[Example], *, training: bool) -> list[Example]:
        """The examples as they are read: up to ``max_length`` in training, and else to the length
        of evaluation."""
        s = self.settings
        return cut_texts(examples, s.max_length if training else s.evaluation_length)

    def facts(self, examples: Sequence[Example]) -> dict[str, Any]:
        """``target_means``: the first guess, before any model has predicted."""
        targets = [e.target for e in examples if e.target is not None]
        means = np.mean(targets, axis=0, dtype=np.float64).tolist() if targets else []
        return {"target_means": means}

    def build_model(
        self, backbone: Path, tokenizer: PreTrainedTokenizerBase, train: Sequence[Example]
    ) -> PooledModel:
        """The model with pretrained weights, parts of it frozen or drawn anew as the settings say.

        The head's bias starts at the training rows' mean: at a rate of 5e-5 the first epoch would
        go into finding it.
        """
        s = self.settings
        encoder = prepare_encoder(
            backbone, tokenizer, s, inference_max_length=s.inference_max_length
        )
        model = self._with_head(encoder)
        means = np.mean([e.target for e in train if e.target is not None], axis=0)
        with torch.no_grad():
            model.head.bias.copy_(torch.from_numpy(means))
        return model

    def empty_model(self, fold_folder: Path, *, attention: str = "auto") -> PooledModel:
        """The model that a fold's ``config.json`` describes, for its weights to be loaded into."""
        return self._with_head(build_backbone(fold_folder, attention=attention))

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar; of several dropout samples, the mean of their losses.

        Args:
            outputs: ``(batch, columns)``, or ``(samples, batch, columns)``.
            batch: with targets.
        """
        assert batch.targets is not None, "training batches carry targets"
        if outputs.ndim == 2:
            return self._loss(outputs, batch.targets)
        return torch.stack([self._loss(each, batch.targets) for each in outputs]).mean()

    def oof_frame(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> pd.DataFrame:
        """Ids, true values (``true_<target>``) and clipped predictions (``pred_<target>``)."""
        s = self.settings
        targets = np.stack([e.target for e in examples if e.target is not None])
        clipped = self.clip(predictions)
        return pd.DataFrame(
            {
                s.id_column: [example.id for example in examples],
                **{f"true_{name}": targets[:, i] for i, name in enumerate(s.target_columns)},
                **{f"pred_{name}": clipped[:, i] for i, name in enumerate(s.target_columns)},
            }
        )

    def scores(self, oof: pd.DataFrame) -> dict[str, float]:
        """``mcrmse`` and each target's root mean squared error."""
        by_column = rmse_by_column(*self._true_and_predicted(oof))
        parts = dict(zip(self.settings.target_columns, map(float, by_column), strict=True))
        return {self.score_name: float(by_column.mean()), **parts}

    def standard_error(self, oof: pd.DataFrame) -> float:
        """Bootstrap standard error of the MCRMSE."""
        return mcrmse_standard_error(*self._true_and_predicted(oof))

    @property
    def kind(self) -> str:
        """The columns and their scale."""
        s = self.settings
        return f"{', '.join(s.target_columns)} from {s.target_min:g} to {s.target_max:g}"

    def settle(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Clipped predictions, ``(rows, columns)``."""
        return self.clip(predictions)

    def first_guess(
        self, record: dict[str, Any], unseen: Unseen, name: str
    ) -> tuple[NDArray[np.float64], str]:
        """The training rows' means, or the middle of the scale, for every row."""
        s = self.settings
        guess = np.asarray(record.get("target_means", []), dtype=np.float64)
        words = "the training rows' means in every row"
        if guess.shape != (len(s.target_columns),) or not np.isfinite(guess).all():
            guess = np.full(len(s.target_columns), (s.target_min + s.target_max) / 2)
            words = (
                f"the middle of the scale (the record of {name} holds no target_means) in every row"
            )
        return np.tile(guess, (len(unseen.frame), 1)), words

    def write(self, predictions: NDArray[Any], unseen: Unseen, settings: InferenceSettings) -> None:
        """Writes the submission: clipped, in the sample's order.

        Raises:
            SubmissionError, ArtifactError: as :func:`make_submission`, :func:`write_submission`.
        """
        s = self.settings
        assert unseen.sample is not None, "regression is read with a sample"
        frame = make_submission(
            unseen.sample,
            ids=unseen.frame[s.id_column].tolist(),
            columns=s.target_columns,
            predictions=self.clip(predictions),
        )
        path, bounds = Path(settings.submission), {"lowest": s.target_min, "highest": s.target_max}
        write_submission(frame, path, unseen.sample, **bounds)

    def clip(self, predictions: NDArray[Any]) -> NDArray[Any]:
        """Predictions inside the range of the scale; clipping can never hurt the score."""
        return np.clip(predictions, self.settings.target_min, self.settings.target_max)

    def _true_and_predicted(self, oof: pd.DataFrame) -> tuple[NDArray[Any], NDArray[Any]]:
        names = self.settings.target_columns
        true = oof[[f"true_{name}" for name in names]].to_numpy(np.float64)
        return true, oof[[f"pred_{name}" for name in names]].to_numpy(np.float64)

    def _with_head(self, encoder: Any) -> PooledModel:
        s = self.settings
        pooling = make_pooling(
            s.pooling,
            hidden=encoder.config.hidden_size,
            layers=s.pooling_layers,
            available_layers=encoder.config.num_hidden_layers,
        )
        return PooledModel(
            encoder,
            pooling,
            num_outputs=len(s.target_columns),
            dropout=s.dropout_of_head,
            dropout_samples=s.multi_sample_dropout,
        )

    def _folder(self, given: str, files: tuple[str, ...]) -> Path:
        return find_folder(
            files, given=given, name=self.settings.competition, what="competition data"
        )

    def _warn_about_empty_texts(self, frame: pd.DataFrame, path: Path) -> None:
        empty = frame[self.settings.text_column].str.strip() == ""
        if empty.any():
            warnings.warn(
                f"{path}: {int(empty.sum())} of {len(frame)} texts are empty; they are kept and "
                "get a prediction all the same.",
                stacklevel=3,
            )
