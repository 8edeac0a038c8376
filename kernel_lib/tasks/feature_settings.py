"""What the notebook of the frozen features can set."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_lib.config import nearest, setting
from kernel_lib.errors import SettingsError
from kernel_lib.model.embedding import FIXED_POOLINGS
from kernel_lib.tasks.regression_settings import RegressionSettings

SHARED_WITH_FINE_TUNING = (
    *("data_dir", "output_dir", "resume_from", "time_budget_seconds", "debug", "max_rows", "seed"),
    *("n_folds", "folds", "fold_scheme", "group_column", "max_length", "attention", "precision"),
    *("eval_batch_tokens", "competition", "id_column", "text_column", "target_columns"),
    *("target_min", "target_max"),
)


@dataclass(frozen=True, kw_only=True)
class FeatureSettings(RegressionSettings):
    """Settings of a run on frozen features. Those of fine-tuning that mean nothing here (epochs,
    learning_rate, ...) are taken and left out of the record, so that a line that changes settings
    can be given to both notebooks."""

    method: str = setting("svr", choices=("svr", "ridge", "tfidf_ridge"))
    """``svr`` and ``ridge`` read embeddings and counted features, ``tfidf_ridge`` n-grams and
    counted features; it needs no encoder."""

    # embeddings
    encoders: tuple[str, ...] = setting(("deberta-v3-base",), changes_result=False)
    """Folders of pretrained encoders: paths, or folder names to be found under the inputs, in
    inference too. Several are put side by side."""
    embedding_poolings: tuple[str, ...] = setting(("mean",))
    """Each of mean, max, min, cls: put side by side."""
    embedding_layers: int = setting(4, at_least=1)
    """How many top layers are pooled, each by itself; all of an encoder that has fewer."""
    whole_texts: bool = setting(True)
    """Texts beyond ``max_length`` are read in windows, a window weighing as many tokens as it has;
    False: only the first ``max_length`` tokens are read."""
    unit_length: bool = setting(True)
    """Each encoder's vector of a text is made as long as any other."""
    precision: str = setting("float32", choices=("auto", "float32", "bf16", "fp16"))
    """Of the encoders, in inference too: features have to be what they were in training. ``auto``
    is settled when a run begins, and is a setting of the run from then on."""
    hand_features_weight: float = setting(0.5, at_least=0)
    """How much the counted features (``text.hand_features``) vary, with 1 for all others together;
    0: none."""

    # regression
    svr_c: float = setting(1.0, above=0)
    svr_epsilon: float = setting(0.2, at_least=0)
    svr_gamma: float = setting(0.2, above=0)
    """Of the Gaussian kernel, on features whose variances sum up to 1."""
    ridge_alpha: float | None = setting(None, above=0)
    """Weight of the squared coefficients; None: 3 with embeddings, 1 with n-grams."""

    # n-grams
    ngram_unit: str = setting("character", choices=("character", "word"))
    ngram_shortest: int = setting(2, at_least=1)
    ngram_longest: int = setting(5, at_least=1)
    ngram_least_texts: int = setting(5, at_least=1)
    """An n-gram counts that is in so many training texts or more."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ngram_shortest > self.ngram_longest:
            raise SettingsError(
                f"ngram_shortest={self.ngram_shortest} is above ngram_longest={self.ngram_longest}."
            )
        for name in self.embedding_poolings:
            if name not in FIXED_POOLINGS:
                known = nearest(name, list(FIXED_POOLINGS))
                raise SettingsError(
                    f"embedding_poolings: {name!r} is not known or has weights to learn: {known}"
                )
        if self.reads_embeddings and not (self.encoders and self.embedding_poolings):
            raise SettingsError(
                f"method={self.method!r} reads embeddings: set encoders and embedding_poolings, "
                'or method="tfidf_ridge".'
            )
        if self.folds and not self.wanted_folds:
            raise SettingsError(
                f"folds={self.folds} names the model of all rows alone, and frozen features have "
                f"none. Name folds below n_folds={self.n_folds}."
            )
        names = [Path(name).name for name in self.encoders]
        if len(set(names)) < len(names):
            raise SettingsError(
                f"encoders={self.encoders}: two folders of one name could not be told apart at "
                "inference. Rename one."
            )

    @property
    def reads_embeddings(self) -> bool:
        """Whether encoders are needed."""
        return self.method != "tfidf_ridge"

    @property
    def ridge_penalty(self) -> float:
        """``ridge_alpha``, or what it stands for."""
        if self.ridge_alpha is not None:
            return self.ridge_alpha
        return 3.0 if self.reads_embeddings else 1.0

    @property
    def names_without_effect(self) -> list[str]:
        """Settings of fine-tuning that were changed, and change nothing here; not what ``debug``
        changes by itself."""
        asked = vars(self)["_asked"] if self.debug else {}
        found = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            wanted = asked.get(field.name, value)
            by_debug = field.name in asked and wanted == value  # as in a copy of such settings
            if not _counts(field.name) and wanted != field.default and not by_debug:
                found.append(field.name)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Those that have a meaning here, ready for JSON; of ``folds`` those that are fitted, for
        ``full_data`` has none."""
        values = {name: value for name, value in super().to_dict().items() if _counts(name)}
        return values | {"folds": tuple(fold for fold in self.folds if fold < self.n_folds)}

    def result_values(self) -> dict[str, Any]:
        """Those that change what is computed, ready for JSON."""
        return {name: value for name, value in super().result_values().items() if _counts(name)}


_OWN = {field.name for field in dataclasses.fields(FeatureSettings)} - {
    field.name for field in dataclasses.fields(RegressionSettings)
}


def _counts(name: str) -> bool:
    return name in SHARED_WITH_FINE_TUNING or name in _OWN
