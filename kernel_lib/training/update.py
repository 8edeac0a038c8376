"""One optimizer update: as the textbook has it, and in smaller parts where memory is full."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.device import random_states, restore_random_states
from kernel_lib.text.batches import Batch, Example, collate
from kernel_lib.training.adversarial import FGM, GradientProbe
from kernel_lib.training.memory import is_memory_full, release_memory
from kernel_lib.training.state import TrainingState
from kernel_lib.training.task import Machine, Task

PROBE_EVERY_UPDATES = 10
MAX_SKIPPED_IN_A_ROW = 25


class Updater:
    """Makes the updates of one fold.

    Args:
        task: loss and settings.
        state: what an update changes.
        fold: its number, for messages.
        train: the examples that batches are made of.
        pad_id: the tokenizer's padding id.
        machine: device and precision.
    """

    def __init__(
        self,
        task: Task,
        state: TrainingState,
        *,
        fold: int,
        train: Sequence[Example],
        pad_id: int,
        machine: Machine,
    ) -> None:
        self.task, self.state, self.fold, self.machine = task, state, fold, machine
        self.examples, self.pad_id = train, pad_id
        self.probe = GradientProbe(state.model)
        self.say: Callable[[str], object] = print

    def make_fgm(self) -> FGM | None:
        """The adversary that the settings ask for, to be closed when the fold ends."""
        epsilon = self.task.settings.fgm_epsilon
        if epsilon == 0:
            return None
        backbone: Any = self.state.model.backbone
        return FGM(backbone.get_input_embeddings(), epsilon)

    def update(self, group: Sequence[NDArray[np.int64]], fgm: FGM | None) -> float:
        """One optimizer update from one or more batches of rows.

        Returns:
            The mean loss of their rows.

        Raises:
            TrainingError: too many updates in a row had gradients that are not finite.
            Exception: of a full memory, with a single row at a time too.
        """
        state, progress = self.state, self.state.progress
        loss = float(self._backward_within_memory(group, fgm))

        state.scaler.unscale_(state.optimizer)
        limit = self.task.settings.max_grad_norm
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
        if torch.isfinite(norm):
            state.scaler.step(state.optimizer)
            state.schedule.step()
            progress.updates += 1
            progress.skipped_in_a_row = 0
        else:
            self._count_skipped()
        state.scaler.update()
        state.model.zero_grad(set_to_none=True)

        if math.isfinite(loss):
            rows = sum(map(len, group))
            progress.loss_sum += loss * rows
            progress.loss_rows += rows
        return loss

    def _backward_group(self, group: Sequence[NDArray[np.int64]], fgm: FGM | None) -> Tensor:
        """The gradients of a group of batches, each row with the same weight; returns the loss.

        A batch goes through the model in parts when it is cut, but what it gives stays the same:
        FGM's step is still one over the whole batch. Only for a loss that is no mean over rows
        (``mcrmse``) cutting changes the function a little, as accumulating does.
        """
        rows_in_group = sum(map(len, group))
        measure = fgm is not None and self.state.progress.updates % PROBE_EVERY_UPDATES == 0
        loss = torch.zeros((), device=self.machine.device)
        for number, rows in enumerate(group):
            probing = measure and number == 0  # no earlier batch's gradient is there yet
            parts = self._parts(rows)
            for part in parts:
                loss += self._backward(part, len(part) / rows_in_group)
            if fgm:
                if probing:
                    self.probe.mark()
                with fgm.attack(parts) as attacked:
                    for part in parts if attacked else ():
                        self._backward(part, len(part) / rows_in_group)
                if probing:
                    self.state.progress.fgm_ratio = self.probe.added_ratio()
        return loss

    def _backward(self, batch: Batch, share: float) -> Tensor:
        """Forward, scale, backward. ``share``: the batch's part of the update's rows."""
        with self.machine.precision.autocast():
            outputs = self.state.model(batch.input_ids, batch.attention_mask)
        loss = self.task.loss(outputs, batch) * share
        self.state.scaler.scale(loss).backward()
        return loss.detach()

    def _parts(self, rows: NDArray[np.int64]) -> list[Batch]:
        """A batch, cut into equal parts where memory holds only so many rows at once."""
        count = -(-len(rows) // (self.state.progress.rows_at_once or len(rows)))
        return [
            collate([self.examples[row] for row in part], self.pad_id).to(self.machine.device)
            for part in np.array_split(rows, count)
        ]

    def _backward_within_memory(
        self, group: Sequence[NDArray[np.int64]], fgm: FGM | None
    ) -> Tensor:
        """:meth:`_backward_group`; all of it again with half as many rows while memory is full.

        Half of a gradient is never used. The new limit stays for the rest of the fold.
        """
        progress, randomness = self.state.progress, random_states()
        largest = max(map(len, group))
        too_many = 0
        while True:
            try:
                loss = self._backward_group(group, fgm)
                break
            except (RuntimeError, MemoryError) as error:
                at_once = min(largest, progress.rows_at_once or largest)
                if not is_memory_full(error) or at_once == 1:
                    raise
                too_many = too_many or at_once
                progress.rows_at_once = -(-at_once // 2)
            # Out here the error is gone, and with it what its frames held on to.
            self.state.model.zero_grad(set_to_none=True)
            if fgm:
                fgm.forget()
            release_memory(self.machine.device)
            restore_random_states(*randomness)
        if too_many:
            longest = max(len(self.examples[row].input_ids) for rows in group for row in rows)
            self.say(
                f"fold {self.fold}: the memory is full with {too_many} texts of up to {longest} "
                f"tokens; going on with {progress.rows_at_once} at a time, the updates stay the "
                "same"
            )
        return loss

    def _count_skipped(self) -> None:
        progress = self.state.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        if progress.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"fold {self.fold}: {progress.skipped_in_a_row} updates in a row had gradients "
                'that are not finite. Try precision="float32" or a lower learning_rate.'
            )
