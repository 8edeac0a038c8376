"""Named entities: reads, encodes, models and scores texts of words, whole ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from kernel_lib.config import InferenceSettings, digest
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.metrics.entities import entity_scores, micro_f1_standard_error
from kernel_lib.metrics.tags import label_names
from kernel_lib.model.backbone import build_backbone
from kernel_lib.model.lora import add_lora, merge_lora, warn_if_slow
from kernel_lib.model.token_head import TokenModel, WordProbabilities, crf_loss
from kernel_lib.tasks import word_probabilities
from kernel_lib.tasks.base import PredictingTask, Unseen
from kernel_lib.tasks.encoder import prepare_encoder
from kernel_lib.tasks.entity_decoding import (
    are_biases,
    are_labels,
    choose_biases,
    find_tags,
    illegal_steps,
    types_of,
)
from kernel_lib.tasks.entity_documents import (
    encode_documents,
    make_document_folds,
    read_test_documents,
    read_train_documents,
    unknown_tags,
)
from kernel_lib.tasks.entity_output import write_entities
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings
from kernel_lib.text.batches import Batch, Example
from kernel_lib.training.token_losses import token_focal_loss

OUTSIDE = 0  # the number of the label O


class EntityTask(PredictingTask):
    """Names entities in texts of any length; every word is scored, however the text was cut.

    Args:
        settings: of the run.
    """

    name = "ner"
    score_name = "entity_f1"
    lower_is_better = False

    def __init__(self, settings: EntitySettings) -> None:
        self._settings = settings
        self._labels: tuple[str, ...] = ()
        self._o_bias: dict[str, float] = {}

    @property
    def settings(self) -> EntitySettings:
        """The run's settings."""
        return self._settings

    @property
    def labels(self) -> tuple[str, ...]:
        """The tags that can be predicted, O first."""
        assert self._labels, "read_train() comes first"
        return self._labels

    @property
    def kind(self) -> str:
        """The types of entities."""
        return f"entities ({', '.join(self._labels)})"

    def read_train(self) -> pd.DataFrame:
        """The training texts: columns id, tokens, tags (lists), domain.

        Raises:
            DataError: a file is missing or damaged, has tags that do not fit, or no entity.
        """
        frame = read_train_documents(self.settings)
        types = types_of(tag for tags in frame["tags"] for tag in tags)
        if not types:
            raise DataError(
                f"no text of {', '.join(self.settings.train_files)} has an entity: every tag is O, "
                "and there is nothing to learn."
            )
        self._labels = tuple(label_names(types))
        return frame

    def read_test(self, settings: InferenceSettings) -> Unseen:
        """The texts to read, with tags where there are any.

        These are for scores alone, so that tags which training never saw are no error: they are
        told, and count as entities that were missed.
        """
        unseen = read_test_documents(_entity(settings), self.settings)
        unknown = unknown_tags(unseen.frame, self.labels)
        if unknown:
            print(f"the texts have tags that were not in training and cannot be named: {unknown}")
        return unseen

    def folds(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        """The fold of each text, ``(texts,)``. Raises DataError for too few."""
        return make_document_folds(frame, types_of(self.labels), self.settings)

    def encode(self, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        """The windows of each text."""
        return encode_documents(frame, tokenizer, self.labels, self.settings)

    def resources(self) -> dict[str, Any]:
        """The labels."""
        return {"labels": list(self._labels)}

    def restore(self, record: dict[str, Any]) -> None:
        """Takes up the labels and the biases that were chosen.

        Raises:
            ArtifactError: they are damaged, or not those that the weights were trained with.
        """
        resources, bias = record.get("resources"), record.get("o_bias", {})
        labels: Any = resources.get("labels") if isinstance(resources, dict) else None
        if not are_labels(labels):
            raise ArtifactError("the labels in it are damaged. Copy it again.")
        identity = record.get("identity")
        trained = identity.get("resources") if isinstance(identity, dict) else None
        if trained is not None and trained != digest(resources):
            raise ArtifactError(
                f"the labels in it ({', '.join(labels)}) are not those that the weights were "
                "trained with: it was edited, or is another run's. Copy it again."
            )
        if not are_biases(bias, types_of(labels)):
            raise ArtifactError("the o_bias in it is damaged. Copy it again.")
        self._labels, self._o_bias = tuple(labels), dict(bias)

    def agree_with(self, leader: PredictingTask, settings: InferenceSettings) -> None:
        """Decides as the best run does, but for what the notebook sets."""
        if not isinstance(leader, EntityTask):
            return  # they cannot be averaged, which is said elsewhere
        set_bias = _entity(settings).o_bias
        chosen = (
            leader._o_bias if set_bias is None else dict.fromkeys(types_of(self.labels), set_bias)
        )
        self._o_bias = dict(chosen)

    def build_model(
        self, backbone: Path, tokenizer: PreTrainedTokenizerBase, train: Sequence[Example]
    ) -> nn.Module:
        """The model with pretrained weights; with LoRA only its matrices and the head learn."""
        s = self.settings
        encoder = prepare_encoder(backbone, tokenizer, s)
        if s.lora_rank:
            warn_if_slow(s.learning_rate)
            report = add_lora(
                encoder,
                rank=s.lora_rank,
                alpha=s.lora_alpha,
                dropout=s.lora_dropout,
                targets=s.lora_targets or None,
            )
            print(report)
        return self._with_head(encoder)

    def finished(self, model: nn.Module) -> nn.Module:
        """The model as it is saved: what LoRA learnt is in its weights."""
        backbone: Any = model.backbone
        merge_lora(backbone)
        return model

    def empty_model(self, fold_folder: Path, *, attention: str = "auto") -> nn.Module:
        """The model that a fold's ``config.json`` describes, for its weights to be loaded into."""
        return self._with_head(build_backbone(fold_folder, attention=attention))

    def _with_head(self, encoder: Any) -> TokenModel:
        s = self.settings
        subtoken: Any = s.subtoken  # one of its choices
        return TokenModel(
            encoder,
            num_labels=len(self.labels),
            dropout=s.dropout,
            subtoken=subtoken,
            crf=s.decoder == "crf",
            illegal=illegal_steps(self.labels),
        )

    def loss(self, outputs: Any, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar; every window weighs the same."""
        assert batch.targets is not None, "training batches carry targets"
        if outputs.crf is not None:
            return crf_loss(outputs, batch.targets)
        return token_focal_loss(outputs.logits, batch.targets, gamma=0.0)

    def predictor(self, model: nn.Module) -> nn.Module:
        """The words' log-probabilities."""
        made: Any = model
        return WordProbabilities(made)

    def settle(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Probabilities of the words of all texts, ``(words, labels)``."""
        return np.concatenate(word_probabilities.by_word(examples, predictions, OUTSIDE))

    def first_guess(
        self, record: dict[str, Any], unseen: Unseen, name: str
    ) -> tuple[NDArray[np.float32], str]:
        """No entity anywhere."""
        words = sum(map(len, unseen.frame["tokens"]))
        values = np.zeros((words, len(self.labels)), dtype=np.float32)
        values[:, OUTSIDE] = 1.0
        return values, "no entity in any text"

    def write(self, predictions: NDArray[Any], unseen: Unseen, settings: InferenceSettings) -> None:
        """Writes tags, spans or words, and every entity with its probability."""
        ends = np.cumsum([len(tokens) for tokens in unseen.frame["tokens"]])
        by_text = np.split(predictions, ends[:-1])
        tags = self._tags(by_text, self._o_bias)
        write_entities(unseen, tags, by_text, self.labels, _entity(settings), self.settings)

    def _tags(
        self, probabilities: Sequence[NDArray[Any]], o_bias: dict[str, float]
    ) -> list[list[str]]:
        constrained = self.settings.decoder != "argmax"
        return find_tags(probabilities, self.labels, constrained=constrained, o_bias=o_bias)

    def oof_frame(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> pd.DataFrame:
        """Columns id, domain, tokens, tags, predicted and probabilities, all but the first two
        JSON; predicted without biases."""
        first = sorted((e for e in examples if e.start == 0), key=lambda e: e.row)
        found = word_probabilities.by_word(examples, predictions, OUTSIDE)
        rows = zip(first, found, self._tags(found, {}), strict=True)
        return pd.DataFrame(
            [
                {
                    "id": example.id,
                    "domain": str(example.origin["domain"]),
                    "tokens": json.dumps(example.origin["tokens"], ensure_ascii=False),
                    "tags": json.dumps(example.origin["tags"], ensure_ascii=False),
                    "predicted": json.dumps(predicted, ensure_ascii=False),
                    "probabilities": word_probabilities.to_json(probabilities, OUTSIDE),
                }
                for example, probabilities, predicted in rows
            ]
        )

    def scores(self, oof: pd.DataFrame) -> dict[str, float]:
        """Strict micro F1 of whole texts, macro, and the lenient one that seqeval prints."""
        found = entity_scores(*_tags_of(oof))
        return {
            self.score_name: found.strict.micro.f1,
            "precision": found.strict.micro.precision,
            "recall": found.strict.micro.recall,
            "macro_f1": found.strict.macro_f1,
            "lenient_f1": found.lenient.micro.f1,
        }

    def standard_error(self, oof: pd.DataFrame) -> float:
        """Bootstrap standard error of the strict micro F1."""
        return micro_f1_standard_error(*_tags_of(oof))

    def tune(self, oof: pd.DataFrame) -> dict[str, Any]:
        """For each type how ready to name it, and what the choice is worth."""
        gold, _ = _tags_of(oof)
        probabilities = [
            word_probabilities.from_json(
                text, words=len(tags), labels=len(self.labels), outside=OUTSIDE
            )
            for text, tags in zip(oof["probabilities"], gold, strict=True)
        ]
        choice = choose_biases(
            probabilities,
            gold,
            oof["fold"].to_numpy(),
            self.labels,
            constrained=self.settings.decoder != "argmax",
        )
        return {"o_bias": choice.o_bias, "o_bias_f1": None if np.isnan(choice.f1) else choice.f1}


def _tags_of(oof: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
    return [json.loads(text) for text in oof["tags"]], [
        json.loads(text) for text in oof["predicted"]
    ]


def _entity(settings: InferenceSettings) -> EntityInferenceSettings:
    if isinstance(settings, EntityInferenceSettings):
        return settings
    return EntityInferenceSettings(**settings.to_dict())
