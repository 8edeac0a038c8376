"""The one training loop: a fold from pretrained weights to out-of-fold predictions."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernel_lib.artifacts import Run
from kernel_lib.errors import ArtifactError, TrainingError
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.text.batches import Batch, Example, collate, training_batches
from kernel_lib.training.adversarial import FGM, GradientProbe
from kernel_lib.training.evaluation import Evaluator
from kernel_lib.training.optimizer import make_optimizer, make_schedule, parameter_groups
from kernel_lib.training.state import RESUME, Progress, TrainingState
from kernel_lib.training.task import FoldResult, Machine, Task
from kernel_lib.training.tracking import Tracker

PROBE_EVERY_UPDATES = 10
MAX_SKIPPED_IN_A_ROW = 25


class FoldTrainer:
    """Trains one fold.

    Args:
        task: loss, scores and settings.
        model: with pretrained weights.
        run: the run folder, for the state inside the fold.
        fold: its number.
        train: examples to learn from.
        valid: examples to be scored on.
        pad_id: the tokenizer's padding id.
        machine: device, precision, clock.
        tracker: gets each evaluation's record.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        *,
        run: Run,
        fold: int,
        train: Sequence[Example],
        valid: Sequence[Example],
        pad_id: int,
        machine: Machine,
        tracker: Tracker,
    ) -> None:
        self.task, self.settings, self.run, self.fold = task, task.settings, run, fold
        self.train_examples, self.pad_id, self.machine = train, pad_id, machine
        self.model = model.to(machine.device)
        self.groups = parameter_groups(model, self.settings)
        self.batches_per_epoch = -(-len(train) // self.settings.batch_size)
        updates_per_epoch = -(-self.batches_per_epoch // self.settings.gradient_accumulation_steps)
        optimizer = make_optimizer(self.groups, self.settings)
        self.state = TrainingState(
            model=model,
            optimizer=optimizer,
            schedule=make_schedule(
                optimizer,
                total_updates=updates_per_epoch * self.settings.epochs,
                settings=self.settings,
            ),
            scaler=torch.amp.GradScaler(
                machine.device.type, enabled=machine.precision.needs_scaler
            ),
            progress=Progress(),
        )
        self.evaluator = Evaluator(
            task,
            fold=fold,
            valid=valid,
            pad_id=pad_id,
            machine=machine,
            batches_per_epoch=self.batches_per_epoch,
            tracker=tracker,
        )
        self.probe = GradientProbe(model)
        self._last_save = time.monotonic()
        self._last_tick = time.monotonic()

    @property
    def resume_path(self) -> Path:
        """Where the state inside the fold is kept until the fold is finished."""
        return self.run.fold_folder(self.fold) / RESUME

    def train(self) -> FoldResult | None:
        """Trains to the end, from the saved state if there is one.

        Returns:
            The result; None when the clock ran out, with the state saved.
        """
        if self.resume_path.is_file():
            self.state.load(self.resume_path, self.run.id)
        progress, settings = self.state.progress, self.settings
        fgm = self._make_fgm()
        done = progress.epoch * self.batches_per_epoch + progress.batch
        bar = progress_bar(self.batches_per_epoch * settings.epochs, f"fold {self.fold}", done=done)
        try:
            self.model.train()
            for epoch in range(progress.epoch, settings.epochs):
                for group in self._accumulation_groups(epoch):
                    loss = self._update(group, fgm)
                    progress.batch += len(group)
                    bar.update(len(group))
                    bar.set_postfix_str(self._postfix(loss), refresh=False)
                    if self.evaluator.is_due(progress, len(group)):
                        self._count_seconds()
                        bar.write(self.evaluator.evaluate(self.state))
                    if not self._is_done() and not self.machine.clock.allows(0):
                        self._save()
                        bar.write(f"fold {self.fold}: the time budget is used up; state saved.")
                        return None
                    if time.monotonic() - self._last_save > settings.checkpoint_seconds:
                        self._save_if_possible(bar)
                progress.epoch, progress.batch = epoch + 1, 0
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"fold {self.fold}: the GPU's memory is full at batch_size={settings.batch_size}, "
                f"max_length={settings.max_length}. Set gradient_checkpointing=True, or halve "
                "batch_size and double gradient_accumulation_steps."
            ) from error
        finally:
            bar.close()
            if fgm:
                fgm.close()
        self._count_seconds()
        return self.evaluator.result(self.state)

    def _accumulation_groups(self, epoch: int) -> list[list[NDArray[np.int64]]]:
        """What is left of an epoch: the batches of each optimizer update, the last ones too."""
        batches = training_batches(
            [len(example.input_ids) for example in self.train_examples],
            batch_size=self.settings.batch_size,
            seed=(self.settings.seed, self.fold, epoch),
        )
        size = self.settings.gradient_accumulation_steps
        starts = range(self.state.progress.batch, len(batches), size)
        return [batches[start : start + size] for start in starts]

    def _update(self, group: list[NDArray[np.int64]], fgm: FGM | None) -> float:
        """One optimizer update from one or more batches; returns the mean loss of their rows."""
        state, progress = self.state, self.state.progress
        rows_in_group = sum(len(rows) for rows in group)
        measure = fgm is not None and progress.updates % PROBE_EVERY_UPDATES == 0
        total_loss = torch.zeros((), device=self.machine.device)

        for number, rows in enumerate(group):
            probing = measure and number == 0  # no earlier batch's gradient is there yet
            batch = collate([self.train_examples[row] for row in rows], self.pad_id)
            batch = batch.to(self.machine.device)
            share = len(rows) / rows_in_group
            total_loss += self._backward(batch, share)
            if fgm:
                if probing:
                    self.probe.mark()
                with fgm.attack(batch.input_ids, batch.attention_mask) as attacked:
                    if attacked:
                        self._backward(batch, share)
                if probing:
                    progress.fgm_ratio = self.probe.added_ratio()

        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.max_grad_norm)
        if torch.isfinite(norm):
            state.scaler.step(state.optimizer)
            state.schedule.step()
            progress.updates += 1
            progress.skipped_in_a_row = 0
        else:
            self._count_skipped()
        state.scaler.update()
        self.model.zero_grad(set_to_none=True)

        loss = float(total_loss)
        if math.isfinite(loss):
            progress.loss_sum += loss * rows_in_group
            progress.loss_rows += rows_in_group
        return loss

    def _backward(self, batch: Batch, share: float) -> Tensor:
        """Forward, scale, backward. ``share``: the batch's part of the update's rows."""
        with self.machine.precision.autocast():
            outputs = self.model(batch.input_ids, batch.attention_mask)
        loss = self.task.loss(outputs, batch) * share
        self.state.scaler.scale(loss).backward()
        return loss.detach()

    def _count_skipped(self) -> None:
        progress = self.state.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        if progress.skipped_in_a_row > MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"fold {self.fold}: {progress.skipped_in_a_row} updates in a row had gradients "
                'that are not finite. Try precision="float32" or a lower learning_rate.'
            )

    def _is_done(self) -> bool:
        """Whether the last update of the last epoch was made."""
        progress = self.state.progress
        in_last_epoch = progress.epoch == self.settings.epochs - 1
        return in_last_epoch and progress.batch >= self.batches_per_epoch

    def _make_fgm(self) -> FGM | None:
        if self.settings.fgm_epsilon == 0:
            return None
        backbone: Any = self.model.backbone
        return FGM(backbone.get_input_embeddings(), self.settings.fgm_epsilon)

    def _postfix(self, loss: float) -> str:
        best = self.state.progress.best
        score = "" if best is None else f", best {self.task.score_name} {best:.4f}"
        return f"loss {loss:.4f}{score}"

    def _save(self) -> None:
        self._count_seconds()
        self.state.save(self.resume_path, self.run.id)
        self._last_save = time.monotonic()

    def _save_if_possible(self, bar: Any) -> None:
        """Saves between times; a disk too full for that is no reason to stop training."""
        try:
            self._save()
        except ArtifactError as error:
            bar.write(f"fold {self.fold}: going on without this save. {error}")
            self._last_save = time.monotonic()

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.state.progress.seconds += now - self._last_tick
        self._last_tick = now
