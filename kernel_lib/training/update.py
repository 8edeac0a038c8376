"""One optimizer update: as the textbook has it, and in smaller parts where memory is full.

Several processes can share an update: each takes every so-many-th row of each batch, and their
gradients are summed. Nothing here waits for a GPU but the one read at an update's end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.device import random_states, restore_random_states
from kernel_lib.text.batches import Batch, Example, collate_to
from kernel_lib.training.adversarial import FGM, GradientProbe, Words, find_words
from kernel_lib.training.memory import MemoryFullElsewhere, is_memory_full, release_memory
from kernel_lib.training.state import TrainingState
from kernel_lib.training.task import Machine, Task

PROBE_EVERY_UPDATES = 10
MAX_SKIPPED_IN_A_ROW = 25

Group = Sequence[NDArray[np.int64]]  # the rows of each batch of an update


@dataclass(frozen=True)
class Share:
    """What this process does of a batch, ready on its device.

    Attributes:
        parts: its rows, cut to what memory holds at once; none where a batch has too few rows.
        words: of the whole batch, for FGM.
    """

    parts: list[Batch]
    words: Words | None


class Updater:
    """Makes the updates of one fold.

    Args:
        task: loss and settings.
        state: what an update changes.
        fold: its number, for messages.
        train: the examples that batches are made of.
        pad_id: the tokenizer's padding id.
        machine: device, precision, and the processes that share the work.
        rows_per_update: where updates have more or fewer rows, as batches cut by tokens do, their
            mean. An update's gradient is then that of the sum of its rows' losses over this number,
            so that every row weighs the same. None: that of the mean over its rows.
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
        rows_per_update: float | None = None,
    ) -> None:
        self.task, self.state, self.fold, self.machine = task, state, fold, machine
        self.rows_per_update = rows_per_update
        self.examples, self.pad_id, self.world = train, pad_id, machine.world
        self.probe = GradientProbe(state.model)
        self.say: Callable[[str], object] = print
        # A CPU has no time of its own in which the next batch could be made.
        self.works_ahead = machine.device.type == "cuda"
        self._ahead: tuple[Group, list[Share]] | None = None

    def make_fgm(self) -> FGM | None:
        """The adversary that the settings ask for, to be closed when the fold ends."""
        epsilon = self.task.settings.fgm_epsilon
        if epsilon == 0:
            return None
        backbone: Any = self.state.model.backbone
        return FGM(backbone.get_input_embeddings(), epsilon)

    def update(self, group: Group, fgm: FGM | None, following: Group = ()) -> float:
        """One optimizer update from one or more batches of rows.

        Args:
            group: the rows of each batch, in all processes together.
            fgm: the adversary, if there is one.
            following: the group that comes next; a GPU gets it while it computes this one.

        Returns:
            The mean loss of their rows.

        Raises:
            TrainingError: too many updates in a row had gradients that are not finite.
            Exception: of a full memory, with a single row at a time too.
        """
        state, progress = self.state, self.state.progress
        measure = fgm is not None and progress.updates % PROBE_EVERY_UPDATES == 0
        loss_on_device = self._backward_within_memory(group, fgm, measure)

        state.scaler.unscale_(state.optimizer)
        limit = self.task.settings.max_grad_norm
        norm_on_device = nn.utils.clip_grad_norm_(state.model.parameters(), limit)
        step_if_finite(state.optimizer, norm_on_device)
        state.scaler.update()
        state.model.zero_grad(set_to_none=True)

        results = [loss_on_device, norm_on_device, *([self.probe.added_ratio()] if measure else [])]
        results_on_device = torch.stack([result.double() for result in results])
        if self.works_ahead and len(following):
            self._ahead = following, self._shares(following, fgm)
        loss, norm, *ratio = results_on_device.tolist()  # the one wait for the device

        if math.isfinite(norm):
            state.schedule.step()
            progress.updates += 1
            progress.skipped_in_a_row = 0
        else:
            self._count_skipped()
        if ratio:
            progress.fgm_ratio = ratio[0]
        rows = sum(map(len, group))
        loss *= (self.rows_per_update or rows) / rows
        if math.isfinite(loss):
            progress.loss_sum += loss * rows
            progress.loss_rows += rows
        return float(loss)

    def _backward_group(self, group: Group, fgm: FGM | None, measure: bool) -> Tensor:
        """The gradients of a group of batches, each row with the same weight; returns the loss.

        A batch goes through the model in parts when it is cut or shared, but what it gives stays
        the same: FGM's step is still one over the whole batch. Only for a loss that is no mean over
        rows (``mcrmse``) cutting changes the function a little, as accumulating does.
        """
        rows_in_group = self.rows_per_update or sum(map(len, group))
        loss = torch.zeros((), device=self.machine.device)
        probed: list[Tensor] = []
        for number, share in enumerate(self._shares_of(group, fgm)):
            probing = measure and number == 0  # no earlier batch's gradient is there yet
            for part in share.parts:
                loss += self._backward(part, len(part) / rows_in_group)
            if fgm is None or share.words is None:
                continue
            if probing:
                self.probe.mark()
            gradient = fgm.gradient(share.words)
            self._sum_over_processes([gradient])
            with fgm.attack(share.words, gradient) as weight:
                for part in share.parts:
                    self._backward(part, len(part) / rows_in_group * weight)
            if probing:
                probed = self.probe.measure()
        gradients = self._gradients()
        self._sum_over_processes([loss, *probed, *gradients])
        return loss

    def _backward(self, batch: Batch, share: float | Tensor) -> Tensor:
        """Forward, scale, backward. ``share``: the batch's part of the update's rows."""
        with self.machine.precision.autocast():
            outputs = self.state.model(*batch.inputs)
        loss = self.task.loss(outputs, batch) * share
        self.state.scaler.scale(loss).backward()
        return loss.detach()

    def _shares_of(self, group: Group, fgm: FGM | None) -> list[Share]:
        """:meth:`_shares`, or what was made ahead of it."""
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead and ahead[0] is group else self._shares(group, fgm)

    def _shares(self, group: Group, fgm: FGM | None) -> list[Share]:
        """This process's share of each batch, in equal parts that memory holds."""
        shares = []
        for rows in group:
            mine = self.world.share(rows)
            count = -(-len(mine) // (self.state.progress.rows_at_once or len(rows)))
            cut = np.array_split(mine, count) if count else []
            parts = []
            seen = {int(row): self._seen(int(row)) for row in (rows if fgm else mine)}
            for numbers in cut:
                some = [seen[row] for row in numbers]
                texts = [example.input_ids for example in some]
                parts.append((texts, collate_to(some, self.pad_id, self.machine.device)))
            words = None
            if fgm:
                whole = [example.input_ids for example in seen.values()]
                words = find_words(whole, parts, self.machine.device)
            shares.append(Share([part for _, part in parts], words))
        return shares

    def _seen(self, row: int) -> Example:
        """A training row as it is seen in this epoch, the same whenever it is asked for."""
        settings, epoch = self.task.settings, self.state.progress.epoch
        return self.task.augment(self.examples[row], (settings.seed, self.fold, epoch, row))

    def _gradients(self) -> list[Tensor]:
        """All gradients; zeros where only other processes, with more rows, have one."""
        parameters = [p for p in self.state.model.parameters() if p.requires_grad]
        if self.world.size > 1:
            self._meet()
            somewhere = self.world.any_of([p.grad is not None for p in parameters])
            for parameter, has_gradient in zip(parameters, somewhere, strict=True):
                if has_gradient and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return [p.grad for p in parameters if p.grad is not None]

    def _sum_over_processes(self, tensors: list[Tensor]) -> None:
        """In place; begun only when no process has to stop before it."""
        self._meet()
        self.world.sum_(tensors)

    def _meet(self) -> None:
        """Raises MemoryFullElsewhere when another process's memory was full before it came here."""
        if self.world.any(False):
            raise MemoryFullElsewhere("another process's memory is full")

    def _backward_within_memory(self, group: Group, fgm: FGM | None, measure: bool) -> Tensor:
        """:meth:`_backward_group`; all of it again with half as many rows while memory is full.

        Half of a gradient is never used. The new limit stays for the rest of the fold, and is the
        same in all processes: the one whose memory is full says so where they meet next.
        """
        progress, randomness = self.state.progress, random_states()
        largest = -(-max(map(len, group)) // self.world.size)
        too_many = 0
        while True:
            try:
                loss = self._backward_group(group, fgm, measure)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_memory_full(error):
                    raise
                if not isinstance(error, MemoryFullElsewhere):
                    self.world.any(True)
                at_once = min(largest, progress.rows_at_once or largest)
                if at_once == 1:
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


def step_if_finite(optimizer: Any, norm: Tensor) -> None:
    """The optimizer's step; none at all when the gradients' norm is not finite.

    A fused AdamW leaves the step out on the device, as under a loss scaler, and nothing waits.

    Args:
        optimizer: AdamW, its gradients unscaled.
        norm: of all its gradients together.
    """
    if optimizer.defaults.get("fused"):
        optimizer.found_inf = torch.isfinite(norm).logical_not().float()
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf
    elif torch.isfinite(norm):
        optimizer.step()
