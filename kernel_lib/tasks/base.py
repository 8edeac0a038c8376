"""What every task can do: for training (``training.task.Task``) and, beyond it, for predicting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from kernel_lib.artifacts import TOKENIZER, Run
from kernel_lib.config import InferenceSettings, TrainingSettings
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import check_tokens, load_tokenizer
from kernel_lib.training.origins import SoftRows
from kernel_lib.training.prediction import predict
from kernel_lib.training.task import Task


@dataclass(frozen=True)
class Unseen:
    """What is to be predicted.

    Attributes:
        frame: the test rows, all cells as text.
        sample: the competition's ``sample_submission.csv``; None where there is none.
    """

    frame: pd.DataFrame
    sample: Path | None


class PredictingTask(Task, ABC):
    """A task that training and inference know how to use; what most tasks do alike is done here.

    Attributes:
        kind: what must be equal of runs that are averaged, in words for a message.
    """

    @property
    @abstractmethod
    def settings(self) -> TrainingSettings:
        """The run's settings."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What it predicts: runs can be averaged when they predict the same."""

    @property
    def passes(self) -> int:
        """How often a text is read when it is predicted."""
        return 1

    @property
    def seconds_shared(self) -> float:
        """Of the last prediction, spent on what the other folds of the run do not cost again."""
        return 0.0

    def resources(self) -> dict[str, Any]:
        """What predicting needs besides settings and weights, ready for JSON."""
        return {}

    def restore(self, record: dict[str, Any]) -> None:
        """Takes up what training left in ``run.json`` besides the settings."""

    def agree_with(self, leader: PredictingTask, settings: InferenceSettings) -> None:
        """Takes from the best run or the notebook what all runs of an ensemble must share."""

    def facts(self, examples: Sequence[Example]) -> dict[str, Any]:
        """What ``run.json`` is to tell of the training rows."""
        return {}

    def soft_rows(self, tokenizer: PreTrainedTokenizerBase) -> SoftRows | None:
        """Rows with soft labels to train on instead of the true ones."""
        return None

    def first_weights(self) -> str:
        """The run whose folds' weights each fold begins with."""
        return ""

    def cut(self, examples: Sequence[Example], *, training: bool) -> list[Example]:
        """The examples as long as they are trained on, or as they are evaluated: the same."""
        return list(examples)

    def augment(self, example: Example, seed: tuple[int, ...]) -> Example:
        """The example as it is trained on."""
        return example

    def finished(self, model: nn.Module) -> nn.Module:
        """The model as it is saved, once it is trained; may be the same, changed."""
        return model

    def predictor(self, model: nn.Module) -> nn.Module:
        """What predicts."""
        return model

    def outputs(
        self, model: nn.Module, examples: Sequence[Example], **options: Any
    ) -> NDArray[np.float32]:
        """What the model says of each example."""
        return predict(self.predictor(model), examples, **options)

    def read_again(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> dict[int, Example]:
        """The examples that another pass has to read."""
        return {}

    def after_reading(
        self, example: Example, before: NDArray[np.float32], found: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What holds of an example that was read again."""
        return found

    def tune(self, oof: pd.DataFrame) -> dict[str, Any]:
        """What is chosen by the out-of-fold predictions."""
        return {}

    @abstractmethod
    def read_train(self) -> pd.DataFrame:
        """The training rows. Raises DataError when they are missing or damaged."""

    @abstractmethod
    def read_test(self, settings: InferenceSettings) -> Unseen:
        """The rows to predict. Raises DataError when they are missing or damaged."""

    @abstractmethod
    def encode(self, frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase) -> list[Example]:
        """The rows as examples, in the frame's order; with targets where the frame has them."""

    def read_unseen(self, run: Run, frame: pd.DataFrame) -> tuple[list[Example], int]:
        """The rows to predict as a run's models read them, and the id that pads them.

        Raises:
            ArtifactError: what the run was trained with is not there, or gives other results.
        """
        folder = run.folder / TOKENIZER
        tokenizer = load_tokenizer(folder)
        check_tokens(folder, tokenizer, run.record["identity"].get("tokens"))
        return self.encode(frame, tokenizer), int(tokenizer.pad_token_id)

    @abstractmethod
    def empty_model(self, fold_folder: Path, *, attention: str = "auto") -> nn.Module:
        """The model that a fold's ``config.json`` describes, for its weights to be loaded into."""

    @abstractmethod
    def settle(
        self, examples: Sequence[Example], predictions: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """A fold's predictions as they can be averaged with those of any other run."""

    def average(self, predictions: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """The mean of settled predictions, summed in the order given."""
        return sum(predictions, start=np.zeros(predictions[0].shape)) / len(predictions)

    def largest_change(self, before: NDArray[Any], after: NDArray[Any]) -> float:
        """How far a prediction moved at most, from one model to another."""
        return float(np.abs(after - before).max())

    @abstractmethod
    def first_guess(
        self, record: dict[str, Any], unseen: Unseen, name: str
    ) -> tuple[NDArray[Any], str]:
        """Settled predictions that need no model, and what they are.

        Args:
            record: of the best run.
            unseen: what is to be predicted.
            name: of that run, for the words.
        """

    @abstractmethod
    def write(self, predictions: NDArray[Any], unseen: Unseen, settings: InferenceSettings) -> None:
        """Writes what is handed in, checked, whole or not at all."""
