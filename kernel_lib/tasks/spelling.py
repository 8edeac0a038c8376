"""Chinese spelling correction: reads, encodes, models and scores sentences of equal length."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from kernel_lib.config import InferenceSettings
from kernel_lib.errors import SettingsError
from kernel_lib.metrics.spelling import correction_f1_standard_error, spelling_scores
from kernel_lib.model.backbone import build_backbone
from kernel_lib.model.pretrained_head import load_pretrained_head
from kernel_lib.tasks import proposals
from kernel_lib.tasks.base import PredictingTask, Unseen
from kernel_lib.tasks.decoding import Decoding, choose_decoding, find_changes
from kernel_lib.tasks.encoder import prepare_encoder
from kernel_lib.tasks.proposals import KEPT, WIDTH, find_in_passes
from kernel_lib.tasks.spelling_data import (
    read_confusion,
    read_test_sentences,
    read_train_sentences,
    restore_confusion,
)
from kernel_lib.tasks.spelling_model import corrector_loss, make_corrector, make_predictor
from kernel_lib.tasks.spelling_noise import Noise
from kernel_lib.tasks.spelling_output import write_corrections
from kernel_lib.tasks.spelling_sentences import encode_sentences, make_noise
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.text.batches import Batch, Example, split_tokens
from kernel_lib.text.characters import CharacterEncoder
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.corrections import apply_changes, changes_to_json
from kernel_lib.text.folds import make_folds


class SpellingTask(PredictingTask):
    """Corrects characters in place: a text keeps its length, and what stays is copied.

    Args:
        settings: of the run.
    """

    name = "csc"
    score_name = "correction_f1"
    lower_is_better = False
    kind = "spelling corrections"

    def __init__(self, settings: SpellingSettings) -> None:
        self._settings = settings
        self._confusion: ConfusionSet | None = None
        self._characters: CharacterEncoder | None = None
        self._code_points: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._noise: Noise | None = None
        self._decoding = Decoding()

    @property
    def settings(self) -> SpellingSettings:
        """The run's settings."""
        return self._settings

    @property
    def decoding(self) -> Decoding:
        """When a character is changed; plain until one was chosen."""
        return self._decoding

    @property
    def characters(self) -> CharacterEncoder:
        """Of the tokenizer that the rows were encoded with."""
        assert self._characters is not None, "encode() comes first"
        return self._characters

    @property
    def passes(self) -> int:
        """How often a sentence is read."""
        return self.settings.max_passes

    def read_train(self) -> pd.DataFrame:
        """The training sentences and, if files are named, the confusion set.

        Returns:
            Columns id, source, target, domain, all text.

        Raises:
            DataError: a file is missing or damaged, or has rows that do not fit.
        """
        self._confusion = read_confusion(self.settings)
        return read_train_sentences(self.settings)

    def read_test(self, settings: InferenceSettings) -> Unseen:
        """The sentences to correct, with targets where there are any."""
        return read_test_sentences(_spelling(settings), self.settings)

    def folds(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """The fold of each sentence, ``(sentences,)``. Raises DataError for too few."""
        s = self.settings
        errors = [float(a != b) for a, b in zip(frame["source"], frame["target"], strict=True)]
        return make_folds(
            frame.assign(has_errors=errors),
            scheme=s.fold_scheme,
            n_folds=s.n_folds,
            seed=s.seed,
            target_columns=("has_errors",),
            group_column=s.group_column,
        )

    def encode(self, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        """The windows of each sentence, most often one; a character is a token."""
        self._characters = CharacterEncoder(tokenizer)
        points = [ord(self._characters.character(i) or "\0") for i in range(self._characters.size)]
        self._code_points = np.array(points, dtype=np.int64)
        self._noise = make_noise(self._characters, self._confusion, self.settings)
        return encode_sentences(frame, self._characters, self.settings)

    def augment(self, example: Example, seed: tuple[int, ...]) -> Example:
        """The sentence with hidden and confused characters."""
        return self._noise.apply(example, seed) if self._noise else example

    def resources(self) -> dict[str, Any]:
        """The confusion set."""
        return {"confusion": self._confusion.to_dict()} if self._confusion else {}

    def restore(self, record: dict[str, Any]) -> None:
        """Takes up the confusion set and the decoding that was chosen.

        Raises:
            ArtifactError: one of them is damaged.
        """
        self._confusion = restore_confusion(record.get("resources", {}))
        self._decoding = Decoding.from_record(record.get("decoding", {}))

    def agree_with(self, leader: PredictingTask, settings: InferenceSettings) -> None:
        """Decides as the best run does, and by its confusion set, but for what the notebook sets.

        Raises:
            SettingsError: ``confusion_only`` is set, and the best run has no confusion set.
        """
        if not isinstance(leader, SpellingTask):
            return  # they cannot be averaged, which is said elsewhere
        self._decoding = leader.decoding.overridden(settings)
        self._confusion = leader._confusion
        if self._decoding.confusion_only and not self._confusion:
            raise SettingsError(
                "confusion_only=True, but the best run was trained without confusion_files, so "
                "there is no confusion set to stay within. Leave it at None."
            )
        self._settings = self._settings.replace(max_passes=self._decoding.passes)

    def build_model(
        self, backbone: Path, tokenizer: PreTrainedTokenizerBase, train: Sequence[Example]
    ) -> nn.Module:
        """The system that the settings name, on the pretrained encoder."""
        model = make_corrector(prepare_encoder(backbone, tokenizer, self.settings), self.settings)
        head = load_pretrained_head(backbone) if self.settings.pretrained_head else None
        if head is not None:
            model.head.start_from(head)
        return model

    def empty_model(self, fold_folder: Path, *, attention: str = "auto") -> nn.Module:
        """The model that a fold's ``config.json`` describes, for its weights to be loaded into."""
        quick = self.settings.replace(orthogonal_init=False)  # what is drawn here is written over
        return make_corrector(build_backbone(fold_folder, attention=attention), quick)

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar; every sentence weighs the same."""
        return corrector_loss(outputs, batch, self.settings)

    def predictor(self, model: nn.Module) -> nn.Module:
        """The likeliest characters, in place of probabilities of all."""
        return make_predictor(model, self.characters, self.settings)

    def read_again(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> dict[int, Example]:
        """The sentences that have changes, with these made."""
        again = {}
        for row, found in enumerate(split_tokens(predictions, examples)):
            ids = examples[row].input_ids
            changed = self._changed(ids, found)
            if changed.any():
                read = np.where(changed, found[:, 1], ids).astype(np.int32)
                again[row] = dataclasses.replace(examples[row], input_ids=read)
        return again

    def after_reading(
        self, example: Example, before: NDArray[np.float32], found: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What was changed before stays so; all other characters are as they were found now."""
        changed = self._changed(example.input_ids, before)
        return np.where(changed[:, None], before, found)

    def _changed(self, ids: NDArray[np.int32], found: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which tokens are Chinese characters that have a likelier one; ``(tokens,)``."""
        changed: NDArray[np.bool_] = (found[:, 2] > found[:, 0]) & self.characters.writable[ids]
        return changed

    def settle(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Proposals for the characters of all texts, ``(characters, passes * WIDTH)``."""
        return np.concatenate(self._by_text(examples, predictions))

    def _by_text(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> list[NDArray[np.float32]]:
        return proposals.by_character(
            examples,
            predictions,
            self._code_points,
            unknown_id=self.characters.unknown_id,
        )

    def average(self, predictions: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The mean probability of each character that is proposed."""
        return proposals.average(predictions)

    def largest_change(self, before: NDArray[Any], after: NDArray[Any]) -> float:
        """How far the probability of keeping a character moved at most."""
        return float(np.abs(after[:, ::WIDTH] - before[:, ::WIDTH]).max())

    def first_guess(
        self, record: dict[str, Any], unseen: Unseen, name: str
    ) -> tuple[NDArray[np.float32], str]:
        """No change anywhere."""
        values = np.tile(KEPT, (sum(map(len, unseen.frame["source"])), 1))
        return values, "each sentence as it is"

    def write(self, predictions: NDArray[Any], unseen: Unseen, settings: InferenceSettings) -> None:
        """Writes the corrected sentences and, beside them, every change with its probability."""
        ends = np.cumsum([len(source) for source in unseen.frame["source"]])
        found = [
            find_changes(source, find_in_passes(values), self._decoding, self._confusion)
            for source, values in zip(
                unseen.frame["source"], np.split(predictions, ends[:-1]), strict=True
            )
        ]
        write_corrections(unseen, found, _spelling(settings), self.settings)

    def oof_frame(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> pd.DataFrame:
        """Columns id, domain, source, target, corrected, changes and proposals; changes as decided
        by the likeliest character alone."""
        first = sorted((e for e in examples if e.start == 0), key=lambda e: e.row)
        rows = []
        for example, values in zip(first, self._by_text(examples, predictions), strict=True):
            source, passes = example.origin["source"], find_in_passes(values)
            changes = find_changes(source, passes, Decoding())
            rows.append(
                {
                    "id": example.id,
                    **{name: example.origin[name] for name in ("domain", "source", "target")},
                    "corrected": apply_changes(source, changes),
                    "changes": changes_to_json(changes),
                    "proposals": proposals.proposals_to_json(passes),
                }
            )
        return pd.DataFrame(rows)

    def scores(self, oof: pd.DataFrame) -> dict[str, float]:
        """Strict sentence-level scores, the official F1 and the false positive rate."""
        found = spelling_scores(*_texts(oof))
        return {
            self.score_name: found.strict_correction.f1,
            "detection_f1": found.strict_detection.f1,
            "official_f1": found.official_correction.f1,
            "fpr": found.fpr,
        }

    def standard_error(self, oof: pd.DataFrame) -> float:
        """Bootstrap standard error of the strict correction F1."""
        return correction_f1_standard_error(*_texts(oof))

    def tune(self, oof: pd.DataFrame) -> dict[str, Any]:
        """The decoding that is best on these sentences, what it is worth, and its curve."""
        choice = choose_decoding(oof, self._confusion, passes=self.settings.max_passes)
        return {
            "decoding": dataclasses.asdict(choice.decoding),
            "decoding_f1": None if np.isnan(choice.f1) else choice.f1,
            "decoding_curve": choice.curve.to_dict("records"),
        }


def _texts(oof: pd.DataFrame) -> tuple[list[str], list[str], list[str]]:
    return oof["source"].tolist(), oof["target"].tolist(), oof["corrected"].tolist()


def _spelling(settings: InferenceSettings) -> SpellingInferenceSettings:
    if isinstance(settings, SpellingInferenceSettings):
        return settings
    return SpellingInferenceSettings(**settings.to_dict())
