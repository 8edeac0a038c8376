"""Scoring texts by frozen features: embeddings of encoders that nothing trains, n-grams, counts.

The cheapest members of an ensemble. They have the folds, out-of-fold predictions and run folders of
the fine-tuned runs, so that those can be joined by id and averaged; what is fitted to a fold takes
seconds, and features are computed once for all folds.

Support vector regression on frozen embeddings was half of several winners' solutions of FB3
(Kaggle discussions 351577, 369621, 369956).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from kernel_lib.artifacts import CONFIG, MANIFEST, Run
from kernel_lib.config import digest
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.model.row_models import RowModel, empty_row_model
from kernel_lib.runtime.device import pick_device, pick_precision
from kernel_lib.runtime.files import read_json
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.feature_fits import Features, fit, predict_rows
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.tasks.feature_store import STORE
from kernel_lib.tasks.frozen_encoders import (
    FrozenEncoder,
    embed,
    open_encoders,
    reopen_encoders,
    save_tokenizers,
)
from kernel_lib.tasks.regression import RegressionTask
from kernel_lib.text.batches import Example
from kernel_lib.text.hand_features import hand_features
from kernel_lib.text.ngrams import NGramCounts, NGrams, count_ngrams
from kernel_lib.training.prediction import TimeIsUp
from kernel_lib.training.record import examples_fingerprint


class FeatureTask(RegressionTask):
    """Reads and scores texts as the regression task does, and predicts them by frozen features.

    An example's tokens are the text's characters; each encoder cuts the text in its own way.

    Args:
        settings: of the run; ``precision="auto"`` becomes what it stands for on this machine.
            Features are to be the same wherever the run goes on or predicts.
    """

    name = "fb3_features"

    def __init__(self, settings: FeatureSettings) -> None:
        if settings.precision == "auto":
            settings = settings.replace(precision=pick_precision("auto", pick_device()).name)
        super().__init__(settings)
        self._feature_settings, self._attention = settings, settings.attention
        self._precision = settings.precision
        self._encoders: list[FrozenEncoder] = []
        self._seconds_shared = 0.0

    @property
    def settings(self) -> FeatureSettings:
        """The run's settings."""
        return self._feature_settings

    @property
    def seconds_shared(self) -> float:
        """Of the last prediction, spent on features that the other folds need as well."""
        return self._seconds_shared

    def encode(
        self, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase | None = None
    ) -> list[Example]:
        """An example a row, in the frame's order; with targets where the frame has them."""
        s = self.settings
        texts = [re.sub(r"\r\n?", "\n", text) for text in frame[s.text_column]]
        targets: list[Any] = [None] * len(texts)
        if set(s.target_columns) <= set(frame.columns):
            targets = list(frame[list(s.target_columns)].to_numpy(np.float32))
        return [
            Example(row_id, _characters(text), target, row=row)
            for row, (row_id, text, target) in enumerate(
                zip(frame[s.id_column], texts, targets, strict=True)
            )
        ]

    def cut(self, examples: Sequence[Example], *, training: bool) -> list[Example]:
        """Whole texts: how much of one an encoder reads is a setting of its own."""
        return list(examples)

    # Encoders.

    def open_encoders(self) -> None:
        """Finds the encoders of a run that begins. Raises BackboneError when one is not there."""
        s = self.settings
        self._encoders = open_encoders(s.encoders if s.reads_embeddings else ())

    def fingerprints(self) -> tuple[str, str]:
        """Of the encoders' tokenizers, and of the encoders; digests, for a run's identity."""
        records = self.resources()["encoders"]
        tokens, weights = ([record[key] for record in records] for key in ("tokens", "fingerprint"))
        return digest(tokens), digest(weights)

    def save_tokenizers(self, run_folder: Path) -> None:
        """Writes the encoders' tokenizers into a run."""
        save_tokenizers(self._encoders, run_folder)

    def resources(self) -> dict[str, Any]:
        """``encoders``: the fingerprints of each, in the order of the settings."""
        return {"encoders": [encoder.record for encoder in self._encoders]}

    def read_unseen(self, run: Run, frame: pd.DataFrame) -> tuple[list[Example], int]:
        """The rows to predict, once all encoders of the run are found.

        Raises:
            ArtifactError: one is missing, or another than in training.
        """
        names = self.settings.encoders if self.settings.reads_embeddings else ()
        try:
            records = run.record["resources"]["encoders"]
            self._encoders = reopen_encoders(names, records, run.folder)
        except (KeyError, TypeError, ValueError):
            raise ArtifactError(f"{run.folder}: the record of its encoders is damaged.") from None
        return self.encode(frame), 0

    # Features.

    def features(self, examples: Sequence[Example], **options: Any) -> Features:
        """What is known of the texts before anything is fitted; computed once in this process.

        Args:
            examples: one or more.
            options: ``device``, ``batch_tokens``, ``clock`` and ``limit`` as for
                ``training.prediction.predict``.

        Raises:
            TimeIsUp: the clock does not hold it.
            KernelLibError: whatever is wrong with an encoder.
        """
        s, clock = self.settings, options.get("clock")
        made_of, texts = examples_fingerprint(examples), [text_of(each) for each in examples]
        options["precision"] = pick_precision(self._precision, options["device"])
        parts = [self._embedded(each, made_of, texts, options) for each in self._encoders]
        counted = np.zeros((len(texts), 0))
        if s.hand_features_weight:
            counted = STORE.get(["counted", made_of], partial(hand_features, texts))
        dense = np.concatenate([*parts, counted], axis=1, dtype=np.float64)
        if s.reads_embeddings:
            return Features(dense, counted.shape[1])
        ngrams = NGrams(s.ngram_unit, s.ngram_shortest, s.ngram_longest)
        key = ["ngrams", made_of, str(ngrams)]
        counts = STORE.get(key, partial(_counted, texts, ngrams, clock))
        return Features(dense, counted.shape[1], counts)

    def _embedded(
        self, encoder: FrozenEncoder, made_of: str, texts: list[str], options: dict[str, Any]
    ) -> NDArray[np.float32]:
        s = self.settings
        how = [s.max_length, s.whole_texts, list(s.embedding_poolings), s.embedding_layers]
        key = [encoder.record, how, options["precision"].name, made_of]
        found = STORE.get(
            key, partial(embed, encoder, texts, s, attention=self._attention, **options)
        )
        if s.unit_length:
            found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return found

    # Fitting and predicting.

    def fit(
        self, features: Features, examples: Sequence[Example], rows: NDArray[np.int64]
    ) -> RowModel:
        """The model of a fold: fitted to some of the examples."""
        targets = np.array([examples[row].target for row in rows], dtype=np.float64)
        return fit(self.settings, features, rows, targets)

    def build_model(self, *args: Any, **options: Any) -> nn.Module:  # type: ignore[override]
        """Raises SettingsError: nothing here is trained step by step."""
        raise SettingsError(
            "frozen features are fitted, not trained: call cross_validate_features of "
            "kernel_lib.tasks.feature_folds in place of cross_validate."
        )

    def empty_model(self, fold_folder: Path, *, attention: str = "auto") -> nn.Module:  # type: ignore[override]
        """The model that a fold's ``config.json`` describes; encoders are no part of it, but from
        now on they compute as precisely as they did for this fold."""
        self._attention = attention
        self._precision = read_json(fold_folder / MANIFEST)["precision"]
        return empty_row_model(read_json(fold_folder / CONFIG))

    def outputs(
        self, model: nn.Module, examples: Sequence[Example], *, bar: Any = None, **options: Any
    ) -> NDArray[np.float32]:
        """What a fold's model says of each text, ``(texts, targets)``. The encoders read the texts
        for the first fold only."""
        assert isinstance(model, RowModel)
        names = ("device", "batch_tokens", "clock", "limit")
        before = STORE.seconds
        features = self.features(examples, **{name: options.get(name) for name in names})
        self._seconds_shared = STORE.seconds - before
        found = predict_rows(model, features).astype(np.float32)
        if bar is not None:
            bar.update(len(examples))
        return found


def text_of(example: Example) -> str:
    """The text of an example that :meth:`FeatureTask.encode` made."""
    return example.input_ids.astype("<i4").tobytes().decode("utf-32-le", "surrogatepass")


def _characters(text: str) -> NDArray[np.int32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<i4").astype(np.int32)


def _counted(texts: Sequence[str], ngrams: NGrams, clock: Any) -> NGramCounts:
    def asked() -> Any:
        with progress_bar(len(texts), "count n-grams", unit="text") as bar:
            for text in texts:
                if clock is not None and not clock.allows(0):
                    raise TimeIsUp(0)
                yield text
                bar.update()

    return count_ngrams(asked(), ngrams)
