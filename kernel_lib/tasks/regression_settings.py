"""What the notebooks of a regression on texts can set."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kernel_lib.config import TrainingSettings, setting
from kernel_lib.errors import SettingsError

FB3_COLUMNS = ("cohesion", "syntax", "vocabulary", "phraseology", "grammar", "conventions")
LEAST_LENGTH = 8  # as for max_length


@dataclass(frozen=True, kw_only=True)
class RegressionSettings(TrainingSettings):
    """Settings of a regression run; the defaults are FB3's."""

    competition: str = setting("feedback-prize-english-language-learning", changes_result=False)
    """Slug of the competition: the name of the folder its files are mounted in."""
    id_column: str = setting("text_id")
    text_column: str = setting("full_text")
    target_columns: tuple[str, ...] = setting(FB3_COLUMNS)
    target_min: float = setting(1.0)
    target_max: float = setting(5.0)
    """Predictions are clipped to this range; targets outside it are an error."""
    loss: str = setting("smooth_l1", choices=("smooth_l1", "mse", "mcrmse", "elementwise_l1"))
    """``mcrmse`` is taken over the texts that go through the model together: another function where
    a batch is cut for memory or shared by processes, and of one text the absolute error."""
    target_weights: tuple[float, ...] = setting(())
    """Of each target in ``loss``, in the order of ``target_columns``; empty: all alike."""
    rank_loss_weight: float = setting(0.0, at_least=0)
    """Of a loss by the order of a batch's texts, added to ``loss``. It too is of those that go
    through the model together, and 0 for a text alone."""
    head_dropout: float | None = setting(None, at_least=0, below=1)
    """Before the last layer; None: ``dropout``."""
    multi_sample_dropout: int = setting(1, at_least=1)
    """With so many masks of ``head_dropout`` at once, their losses averaged."""
    inference_max_length: int = setting(0, at_least=0)
    """Longest sequence in evaluation and inference; 0: ``max_length``."""
    pseudo_labels: str = setting("", changes_result=False)
    """Folder or file with soft labels of further texts (``make soft``): trained on instead of the
    true rows. A path, or a folder name to be found under the inputs; a run is known by what the
    table holds."""
    init_from: str = setting("", changes_result=False)
    """A run with the same folds, as a path or a folder name under the inputs: each fold begins with
    the weights of that fold there, by which the run is known."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.target_min < self.target_max:
            raise SettingsError(
                f"target_min={self.target_min} must be below target_max={self.target_max}."
            )
        if not self.target_columns:
            raise SettingsError("target_columns is empty: there is nothing to predict.")
        if self.target_weights:
            self._check_target_weights()
        if self.rank_loss_weight and self.batch_size == 1 and not self.batch_tokens:
            raise SettingsError(
                f"rank_loss_weight={self.rank_loss_weight} compares the texts of a batch, but "
                "batch_size=1. Set a larger batch_size, or rank_loss_weight=0."
            )
        if self.multi_sample_dropout > 1 and not self.dropout_of_head:
            raise SettingsError(
                f"multi_sample_dropout={self.multi_sample_dropout}, but the head has no dropout: "
                "all samples would be the same. Set head_dropout above 0."
            )
        if self.init_from and self.reinit_layers:
            raise SettingsError(
                f"init_from={self.init_from!r} and reinit_layers={self.reinit_layers}: each fold "
                "begins with all weights of that run, and what was drawn anew is overwritten. Set "
                "reinit_layers=0."
            )
        if 0 < self.inference_max_length < LEAST_LENGTH:
            raise SettingsError(
                f"inference_max_length={self.inference_max_length} must be at least "
                f"{LEAST_LENGTH}, or 0 for that of max_length."
            )

    @property
    def compares_rows(self) -> bool:
        """Whether the loss compares the rows that go through the model together."""
        return self.loss == "mcrmse" or self.rank_loss_weight > 0

    def check_processes(self, processes: int) -> None:
        """Raises SettingsError where a process would have one text of a batch, and nothing to
        compare it with."""
        alone = self.batch_size < 2 * processes and not self.batch_tokens
        if self.rank_loss_weight and processes > 1 and alone:
            raise SettingsError(
                f"rank_loss_weight={self.rank_loss_weight} compares the texts of a batch, but with "
                f"batch_size={self.batch_size} in {processes} processes one has a single text, or "
                f"none. Set batch_size={2 * processes} or more, or rank_loss_weight=0."
            )

    @property
    def dropout_of_head(self) -> float:
        """Before the last layer."""
        return self.dropout if self.head_dropout is None else self.head_dropout

    @property
    def evaluation_length(self) -> int:
        """Longest sequence in evaluation and inference, in tokens."""
        return self.inference_max_length or self.max_length

    def _check_target_weights(self) -> None:
        weights, columns = self.target_weights, self.target_columns
        if len(weights) != len(columns):
            raise SettingsError(
                f"target_weights={weights} has {len(weights)} numbers for {len(columns)} targets: "
                f"give one each, in the order {', '.join(columns)}."
            )
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
            raise SettingsError(
                f"target_weights={weights} must be 0 or more, and not all of them 0."
            )
