"""The state inside a fold: saved so that a resumed fold equals one that was never stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kernel_lib.artifacts import read_tensors, save_tensors
from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.device import random_states, restore_random_states
from kernel_lib.runtime.distributed import World
from kernel_lib.training.averaging import WeightAverage
from kernel_lib.training.optimizer_state import load_optimizer_state, optimizer_state

RESUME = "resume.safetensors"


@dataclass
class Progress:
    """Where a fold stands, at an optimizer update.

    Attributes:
        epoch: the epoch under way, from 0.
        batch: batches of it that are done.
        updates: optimizer updates that happened; skipped ones do not count.
        skipped: updates skipped because a gradient was not finite.
        skipped_in_a_row: how many of them since the last that happened.
        loss_sum: sum of the losses since the last evaluation, weighted by rows.
        loss_rows: rows in that sum.
        fgm_ratio: last measured share that FGM adds to the gradient; NaN before the first.
        best: the best score so far; None before the first.
        best_epoch: where it was reached, in epochs done.
        history: one record an evaluation.
        seconds: time spent in the fold by earlier sessions and this one.
        evaluation_due: the evaluation that comes after the last batch is still to be made.
        rows_at_once: most rows that memory holds in training; None: no limit was met.
    """

    epoch: int = 0
    batch: int = 0
    updates: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    loss_sum: float = 0.0
    loss_rows: int = 0
    fgm_ratio: float = float("nan")
    best: float | None = None
    best_epoch: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    evaluation_due: bool = False
    rows_at_once: int | None = None

    def batches_done(self, batches: Sequence[int]) -> int:
        """Batches of all epochs so far, of as many as each epoch has."""
        return sum(batches[: self.epoch]) + self.batch


@dataclass
class TrainingState:
    """All that changes while a fold trains.

    Attributes:
        model, optimizer, schedule, scaler: as they are now.
        progress: where the fold stands.
        best_weights: of the best evaluation so far, when these are to be kept.
        predictions: for the validation rows, ``(rows, num_outputs)``, by the weights to keep: those
            of the best evaluation or of the last.
        world: the processes that train it together. Each has a state, and they are the same but
            for the random numbers, of which each draws its own.
        average: of the weights, to be evaluated and kept in their place; None: the weights are.
    """

    model: nn.Module
    optimizer: Optimizer
    schedule: LambdaLR
    scaler: torch.amp.GradScaler
    progress: Progress
    best_weights: dict[str, torch.Tensor] = field(default_factory=dict)
    predictions: NDArray[np.float32] | None = None
    world: World = field(default_factory=World.single)
    average: WeightAverage | None = None

    def begin_together(self, seed: Sequence[int]) -> None:
        """Begins with the first process's weights, and with random numbers of its own in each.

        Args:
            seed: numbers that fix the random numbers of all processes but the first, which goes on
                with those that it has.
        """
        buffers = dict(self.model.named_buffers())  # those too that are not saved, as Mixout's
        self.world.copy_first_({**self.model.state_dict(), **buffers}.values())
        if not self.world.is_first:
            sequence = np.random.SeedSequence([*seed, self.world.rank])
            torch.manual_seed(int(sequence.generate_state(1)[0]))

    def weights_to_keep(self) -> AbstractContextManager[None]:
        """The model holds the weights to evaluate and keep inside, and its own again after it."""
        return self.average.in_place() if self.average else nullcontext()

    def keep_best_weights(self) -> None:
        """Copies the weights as they are now."""
        self.best_weights = {
            name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
        }

    def save(self, path: Path, run_id: str) -> None:
        """Writes weights, optimizer, schedule, scaler, random states and progress, atomically.

        The first process writes, and all of them return when it has.

        Raises:
            ArtifactError: it could not; in all processes.
        """
        random_tensors, random_values = self._all_random_states()
        error = None
        if self.world.is_first:
            try:
                self._write(path, run_id, random_tensors, random_values)
            except ArtifactError as caught:
                error = caught
        if self.world.any(error is not None):
            raise error or ArtifactError(f"the first process could not write {path}.")

    def _write(
        self,
        path: Path,
        run_id: str,
        random_tensors: dict[str, torch.Tensor],
        random_values: dict[str, Any],
    ) -> None:
        remembered, numbers = optimizer_state(self.optimizer)
        average = self.average.tensors() if self.average else {}
        tensors = {
            **{f"model.{name}": value for name, value in self.model.state_dict().items()},
            **{f"best.{name}": value for name, value in self.best_weights.items()},
            **{f"random.{name}": value for name, value in random_tensors.items()},
            **{f"optimizer.{name}": value for name, value in remembered.items()},
            **{f"average.{name}": value for name, value in average.items()},
        }
        if self.predictions is not None:
            tensors["predictions"] = torch.from_numpy(self.predictions)
        values = {
            "run_id": run_id,
            "progress": asdict(self.progress),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "optimizer": numbers,
            "rates": [group["lr"] for group in self.optimizer.param_groups],
            "scaler": self.scaler.state_dict(),
            "random": random_values,
        }
        save_tensors(tensors, path, metadata={"state": json.dumps(values)})

    def load(self, path: Path, run_id: str) -> None:
        """Goes back to a saved state.

        Raises:
            ArtifactError: the file is damaged or of another run.
        """
        tensors, values = read_tensors(path), _read_values(path, run_id)
        self.model.load_state_dict(_with_prefix(tensors, "model."))
        self.best_weights = _with_prefix(tensors, "best.")
        predictions = tensors.get("predictions")
        self.predictions = None if predictions is None else predictions.numpy()
        for group, rate in zip(self.optimizer.param_groups, values["rates"], strict=True):
            group["lr"] = rate
        remembered = _with_prefix(tensors, "optimizer.")
        load_optimizer_state(self.optimizer, remembered, values.get("optimizer", {}))
        if self.average:
            self.average.load(_with_prefix(tensors, "average."))
        self.schedule.last_epoch = values["schedule"]["last_epoch"]
        if values["scaler"]:
            self.scaler.load_state_dict(values["scaler"])
        self._restore_random_states(_with_prefix(tensors, "random."), values["random"])
        self.progress = values["progress"]

    def _all_random_states(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Torch's generators of each process, by ``name`` in the first and ``rank.name`` in others.

        Python's and numpy's are the same in all: training draws nothing from them.
        """
        own, values = random_states()
        tensors = {
            f"{rank}.{name}" if rank else name: state
            for name, tensor in own.items()
            for rank, state in enumerate(self.world.gather(tensor))
        }
        return tensors, values

    def _restore_random_states(
        self, tensors: dict[str, torch.Tensor], values: dict[str, Any]
    ) -> None:
        """A process that was not there when the state was saved goes on with its own seed."""
        rank = self.world.rank
        own = {name: tensors[name] for name in tensors if not name[0].isdigit()}
        if rank:
            own = _with_prefix(tensors, f"{rank}.") or random_states()[0]
        restore_random_states(own, values)


def read_progress(path: Path, run_id: str) -> Progress | None:
    """Where a saved state stands; None when there is none.

    Raises:
        ArtifactError: the file is damaged or of another run.
    """
    if not path.is_file():
        return None
    progress: Progress = _read_values(path, run_id)["progress"]
    return progress


def _read_values(path: Path, run_id: str) -> dict[str, Any]:
    """What a state holds besides tensors."""
    try:
        with safe_open(path, framework="pt") as opened:
            values: dict[str, Any] = json.loads(opened.metadata()["state"])
        found = values["run_id"]
        values["progress"] = Progress(**values["progress"])
    except (SafetensorError, OSError, TypeError, KeyError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is damaged ({error!r}). Delete it to begin the fold anew, or copy it again."
        ) from None
    if found != run_id:
        raise ArtifactError(
            f"{path} was saved by run {found}, this is {run_id}. Delete it to begin the fold anew."
        )
    return values


def _with_prefix(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
