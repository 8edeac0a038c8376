"""The contract between training and a task, and what a fold is computed on and yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from kernel_lib.config import TrainingSettings
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.runtime.distributed import World
from kernel_lib.text.batches import Batch, Example
from kernel_lib.training.prediction import TokenLimit

if TYPE_CHECKING:
    from kernel_lib.training.origins import SoftRows


class Task(Protocol):
    """What a task gives to training."""

    name: str
    score_name: str
    lower_is_better: bool

    @property
    def settings(self) -> TrainingSettings:
        """The run's settings."""

    @property
    def passes(self) -> int:
        """How often a text is read when it is predicted; more than once only by token."""

    def resources(self) -> dict[str, Any]:
        """What predicting needs besides settings and weights, ready for JSON. Part of the run's
        identity; kept in ``run.json``."""

    def facts(self, examples: Sequence[Example]) -> dict[str, Any]:
        """What ``run.json`` is to tell of the training rows."""

    def soft_rows(self, tokenizer: PreTrainedTokenizerBase) -> SoftRows | None:
        """Rows with soft labels to train on instead of the true ones; None: the true ones."""

    def first_weights(self) -> str:
        """The run whose folds' weights each fold begins with; empty: the backbone's."""

    def cut(self, examples: Sequence[Example], *, training: bool) -> list[Example]:
        """Training rows as long as they are trained on, or as they are evaluated and predicted."""

    def augment(self, example: Example, seed: tuple[int, ...]) -> Example:
        """The example as it is trained on, the same for the same seed: with noise, say."""

    def build_model(
        self, backbone: Path, tokenizer: PreTrainedTokenizerBase, train: Sequence[Example]
    ) -> nn.Module:
        """The model with pretrained weights; its encoder is called ``backbone``."""

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""

    def finished(self, model: nn.Module) -> nn.Module:
        """The model as it is saved, once it is trained; may be the same, changed."""

    def predictor(self, model: nn.Module) -> nn.Module:
        """What predicts: the model, or a module around it that says it more briefly."""

    def outputs(
        self, model: nn.Module, examples: Sequence[Example], **options: Any
    ) -> NDArray[np.float32]:
        """What the model says of each example; ``options`` as for ``prediction.predict``."""

    def read_again(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> dict[int, Example]:
        """The examples that another pass has to read, by their place among ``examples``."""

    def after_reading(
        self, example: Example, before: NDArray[np.float32], found: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What holds of an example that was read again, ``(tokens, num_outputs)``: ``before``, of
        the pass before, or what this one found."""

    def oof_frame(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> pd.DataFrame:
        """Ids, true values and predictions, a row for each text. Columns that begin with ``true_``
        or ``pred_`` hold numbers, all others text."""

    def scores(self, oof: pd.DataFrame) -> dict[str, float]:
        """The scores of such a frame: ``score_name`` first, then its parts."""

    def standard_error(self, oof: pd.DataFrame) -> float:
        """Of the main score."""

    def tune(self, oof: pd.DataFrame) -> dict[str, Any]:
        """What is chosen by the out-of-fold predictions of all finished folds, for ``run.json``."""


@dataclass(frozen=True)
class Machine:
    """Where and how a fold is computed.

    Attributes:
        device: the CPU or a GPU.
        precision: of the forward passes.
        clock: the time budget of the whole run.
        world: the processes that compute it together; this one alone, unless torchrun says more.
        limit: what its memory was found to hold in a forward pass; one fold tells the next.
    """

    device: torch.device
    precision: Precision
    clock: Clock
    world: World = field(default_factory=World.single)
    limit: TokenLimit = field(default_factory=TokenLimit)


@dataclass(frozen=True)
class FoldResult:
    """A finished fold.

    Attributes:
        oof: its out-of-fold predictions.
        scores: of these.
        epoch: that the kept weights are from, counted in epochs done.
        history: one record an evaluation.
        seconds: spent on it, by all sessions together.
    """

    oof: pd.DataFrame
    scores: dict[str, float]
    epoch: float
    history: list[dict[str, Any]]
    seconds: float
