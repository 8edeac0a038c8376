"""One optimizer update: as the textbook has it, and in smaller parts where memory is full.

Several processes can share an update: each takes every so-many-th row of each batch, and their
gradients are summed. Nothing here waits for a GPU but the one read at an update's end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.device import random_states, restore_random_states
from kernel_lib.text.batches import Batch, Example
from kernel_lib.training.adversarial import FGM, GradientProbe
from kernel_lib.training.awp import batches_before_awp, make_awp
from kernel_lib.training.memory import MemoryFullElsewhere, is_memory_full, release_memory
from kernel_lib.training.shares import Group, Share, ShareMaker
from kernel_lib.training.state import TrainingState
from kernel_lib.training.task import Machine, Task

PROBE_EVERY_UPDATES = 10
MAX_SKIPPED_IN_A_ROW = 25
SAME_UPDATES = "the updates stay the same"
OTHER_LOSS = (
    "and as the loss compares the texts that are together, it is another one from here on, of a "
    "text alone without any comparison; gradient_checkpointing=True may keep them together"
)


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
        counts: batches of each epoch, for AWP to know when it begins; none: at once.
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
        counts: Sequence[int] = (),
    ) -> None:
        self.task, self.state, self.fold, self.machine = task, state, fold, machine
        self.rows_per_update, self.counts = rows_per_update, counts
        self.batches_before_awp = batches_before_awp(counts, task.settings)
        self.examples, self.world = train, machine.world
        self.shares = ShareMaker(
            task, state, fold=fold, train=train, pad_id=pad_id, machine=machine
        )
        self.probe = GradientProbe(state.model)
        self.awp = make_awp(state.model, task.settings)
        self.say: Callable[[str], object] = print
        # A CPU has no time of its own in which the next batch could be made.
        self.works_ahead = machine.device.type == "cuda"

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
            self.shares.make_ahead(following, fgm is not None)
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
        """The gradients of a group of batches, those of AWP once it has begun; returns the loss.

        The loss is that of the first pass: with ``no_extra_pass`` at the moved weights.
        """
        rows = self.rows_per_update or sum(map(len, group))
        shares = self.shares.take(group, fgm is not None)
        if self.awp is None or not self._awp_has_begun():
            return self._backward_shares(shares, rows, fgm, measure)
        if self.task.settings.awp == "no_extra_pass":
            with self.awp.along_running_mean(self.state.optimizer):
                return self._backward_shares(shares, rows, fgm, measure)
        loss = self._backward_shares(shares, rows, fgm, measure)
        with self.awp.along_gradient():
            self.state.model.zero_grad(set_to_none=True)
            self._backward_shares(shares, rows, fgm, measure=False)
        return loss

    def _awp_has_begun(self) -> bool:
        return self.state.progress.batches_done(self.counts) >= self.batches_before_awp

    def _backward_shares(
        self, shares: Sequence[Share], rows: float, fgm: FGM | None, measure: bool
    ) -> Tensor:
        """The gradients of a group of batches, each row with the same weight; returns the loss.

        A batch goes through the model in parts when it is cut or shared. Where the loss is a mean
        over rows, what it gives stays the same: FGM's step is still one over the whole batch. A
        loss that compares rows (``compares_rows``: ``mcrmse``, the rank loss) is taken of each
        part, which is another function, the more so the smaller the parts: of one row ``mcrmse`` is
        the absolute error, and the rank loss 0.

        Args:
            shares: this process's, of each batch.
            rows: what the sum over the rows' losses is divided by.
            fgm, measure: the adversary, if there is one, and whether what it adds is measured.
        """
        loss = torch.zeros((), device=self.machine.device)
        probed: list[Tensor] = []
        for number, share in enumerate(shares):
            probing = measure and number == 0  # no earlier batch's gradient is there yet
            for part in share.parts:
                loss += self._backward(part, len(part) / rows)
            if fgm is None or share.words is None:
                continue
            if probing:
                self.probe.mark()
            gradient = fgm.gradient(share.words)
            self._sum_over_processes([gradient])
            with fgm.attack(share.words, gradient) as weight:
                for part in share.parts:
                    self._backward(part, len(part) / rows * weight)
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
            effect = OTHER_LOSS if self.task.settings.compares_rows else SAME_UPDATES
            self.say(
                f"fold {self.fold}: the memory is full with {too_many} texts of up to {longest} "
                f"tokens; going on with {progress.rows_at_once} at a time, {effect}"
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
