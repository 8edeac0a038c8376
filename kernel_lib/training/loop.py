"""The one training loop: a fold from pretrained weights to out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kernel_lib.artifacts import Run
from kernel_lib.errors import ArtifactError, TrainingError
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.text.batches import Example
from kernel_lib.text.order import training_order
from kernel_lib.training.adversarial import FGM
from kernel_lib.training.averaging import make_average
from kernel_lib.training.evaluation import Evaluator
from kernel_lib.training.forecast import GO_ON, Pace, projection, work
from kernel_lib.training.memory import is_memory_full
from kernel_lib.training.optimizer import make_optimizer, make_schedule, parameter_groups
from kernel_lib.training.prediction import TimeIsUp
from kernel_lib.training.pretrained_decay import join_pretrained_decay
from kernel_lib.training.shares import Group
from kernel_lib.training.state import RESUME, Progress, TrainingState
from kernel_lib.training.task import FoldResult, Machine, Task
from kernel_lib.training.tracking import Tracker
from kernel_lib.training.update import Updater


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
        folds_to_finish: how many are to be held against the budget, this one included, as soon as
            its pace is known; 0: nothing is said.

    Raises:
        SettingsError: so many processes cannot share a batch, or AWP has nothing to move.
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
        folds_to_finish: int = 0,
    ) -> None:
        task.settings.check_processes(machine.world.size)
        self.task, self.settings, self.run, self.fold = task, task.settings, run, fold
        self.train_examples, self.machine = train, machine
        self.folds_to_finish = folds_to_finish
        self.model = model.to(machine.device)
        self.groups = parameter_groups(model, self.settings)
        self.order = training_order(train, self.settings, fold=fold)
        accumulated = self.settings.gradient_accumulation_steps
        by_tokens = self.settings.batch_tokens > 0
        optimizer = make_optimizer(self.groups, self.settings)
        updates = sum(-(-count // accumulated) for count in self.order.counts)
        self.state = TrainingState(
            model=model,
            optimizer=optimizer,
            schedule=make_schedule(optimizer, total_updates=updates, settings=self.settings),
            scaler=torch.amp.GradScaler(
                machine.device.type, enabled=machine.precision.needs_scaler
            ),
            progress=Progress(),
            world=machine.world,
        )
        self.state.begin_together((self.settings.seed, fold))
        self.state.average = make_average(model, self.settings, updates)
        join_pretrained_decay(optimizer, model, self.settings)
        self.updater = Updater(
            task,
            self.state,
            fold=fold,
            train=train,
            pad_id=pad_id,
            machine=machine,
            rows_per_update=self.order.mean_rows * accumulated if by_tokens else None,
            counts=self.order.counts,
        )
        self.evaluator = Evaluator(
            task,
            fold=fold,
            valid=valid,
            pad_id=pad_id,
            machine=machine,
            order=self.order,
            tracker=tracker,
        )
        self.pace = Pace(
            batches=work(sum(self.order.counts), self.order.counts, self.settings),
            evaluations=self.settings.evals_per_epoch * self.settings.epochs,
            evaluation_batches=self.evaluator.cost_in_batches(),
        )
        self.say: Callable[[str], object] = print
        self._last_save = self._last_tick = machine.clock.elapsed_seconds
        self._saved = (0, 0)

    @property
    def resume_path(self) -> Path:
        """Where the state inside the fold is kept until the fold is finished."""
        return self.run.fold_folder(self.fold) / RESUME

    def train(self) -> FoldResult | None:
        """Trains to the end, from the saved state if there is one.

        Returns:
            The result; None when the clock ran out, with the state saved.
        """
        if self.machine.world.decide(self.resume_path.is_file()):
            self.state.load(self.resume_path, self.run.id)
        done = self.state.progress.batches_done(self.order.counts)
        bar = progress_bar(sum(self.order.counts), f"fold {self.fold}", done=done)
        self.say = self.updater.say = bar.write
        fgm = self.updater.make_fgm()
        try:
            self._train_epochs(bar, fgm)
        except TimeIsUp:
            self._stop()
            return None
        except (RuntimeError, MemoryError) as error:
            if not is_memory_full(error):
                raise
            raise TrainingError(
                f"fold {self.fold}: the memory is full at max_length={self.settings.max_length} "
                "even with one text at a time. Set gradient_checkpointing=True, or a lower "
                "max_length."
            ) from error
        finally:
            bar.close()
            if fgm:
                fgm.close()
        self._count_seconds()
        return self.evaluator.result(self.state)

    def _train_epochs(self, bar: Any, fgm: FGM | None) -> None:
        """What is left of the fold. Raises TimeIsUp before anything that would end too late."""
        progress = self.state.progress
        self.model.train()
        if progress.evaluation_due:  # the session before this one had no time left for it
            self._evaluate()
        for epoch in range(progress.epoch, self.settings.epochs):
            groups = self._accumulation_groups(epoch)
            for group, following in zip_longest(groups, groups[1:], fillvalue=()):
                if self.pace.has_begun:  # a step at least: many short sessions get there too
                    self._check_clock(self.pace.update_seconds)
                loss = self._update(group, fgm, following)
                bar.update(len(group))
                bar.set_postfix_str(self._postfix(loss), refresh=False)
                if progress.evaluation_due:
                    self._evaluate()
                self._save_from_time_to_time()
                self._tell_projection()
            progress.epoch, progress.batch = epoch + 1, 0

    def _accumulation_groups(self, epoch: int) -> list[Group]:
        """What is left of an epoch: the batches of each optimizer update, the last ones too."""
        batches = self.order.batches(epoch)
        size = self.settings.gradient_accumulation_steps
        starts = range(self.state.progress.batch, len(batches), size)
        return [batches[start : start + size] for start in starts]

    def _update(self, group: Group, fgm: FGM | None, following: Group) -> float:
        """One optimizer update, timed and counted; returns its loss."""
        progress, clock = self.state.progress, self.machine.clock
        begun, updates, done = clock.elapsed_seconds, progress.updates, self._work_done()
        loss = self.updater.update(group, fgm, following)
        if self.state.average and progress.updates > updates:
            self.state.average.count(progress.updates, progress.skipped)
        progress.batch += len(group)
        self.pace.count_update(self._work_done() - done, clock.elapsed_seconds - begun)
        progress.evaluation_due = self.evaluator.is_due(progress, len(group))
        return loss

    def _evaluate(self) -> None:
        """Makes the evaluation that is due, or leaves it so and raises TimeIsUp."""
        progress, clock = self.state.progress, self.machine.clock
        self._check_clock(self.pace.evaluation_seconds)
        self._count_seconds()
        begun = clock.elapsed_seconds
        line = self.evaluator.evaluate(self.state)
        self.pace.count_evaluation(clock.elapsed_seconds - begun)
        progress.evaluation_due = False
        self.say(line)

    def _check_clock(self, seconds: float) -> None:
        """Raises TimeIsUp when so much, and a save after it, would end too late."""
        is_time = self.machine.clock.allows(seconds + self.pace.save_seconds)
        if not self.machine.world.decide(is_time):
            raise TimeIsUp(seconds)

    def _tell_projection(self) -> None:
        """Says once, early, whether the budget is enough."""
        if not self.folds_to_finish or not self.pace.is_known:
            return
        line = projection(
            self.fold,
            fold_seconds=self.pace.fold_seconds,
            left_seconds=self.pace.left_seconds(self.state.progress, self._work_done()),
            folds=self.folds_to_finish,
            clock=self.machine.clock,
        )
        self.say(line)
        self.folds_to_finish = 0

    def _work_done(self) -> int:
        """What all batches so far took, as :func:`work` counts."""
        counts = self.order.counts
        return work(self.state.progress.batches_done(counts), counts, self.settings)

    def _postfix(self, loss: float) -> str:
        best = self.state.progress.best
        score = "" if best is None else f", best {self.task.score_name} {best:.4f}"
        return f"loss {loss:.4f}{score}"

    def _save(self) -> None:
        clock = self.machine.clock
        self._count_seconds()
        begun = clock.elapsed_seconds
        self.state.save(self.resume_path, self.run.id)
        self._last_save = clock.elapsed_seconds
        self.pace.save_seconds = self._last_save - begun
        self._saved = self._position()

    def _save_from_time_to_time(self) -> None:
        """A disk too full for a save between times is no reason to stop training."""
        now = self.machine.clock.elapsed_seconds
        is_due = now - self._last_save > self.settings.checkpoint_seconds
        if not self.machine.world.decide(is_due):
            return
        try:
            self._save()
        except ArtifactError as error:
            self.say(f"fold {self.fold}: going on without this save. {error}")
            self._last_save = now

    def _stop(self) -> None:
        """Saves at the end of the time, unless all was saved just before.

        What was saved before is not lost to a full disk now.
        """
        if not self.pace.has_begun:
            self.say(
                f"fold {self.fold}: the time budget is too short for the evaluation that is due; "
                "set a larger time_budget_seconds"
            )
            return
        nothing_else = not self.run.finished_models() and not self.resume_path.is_file()
        try:
            if self._saved != self._position():
                self._save()
        except ArtifactError as error:
            if nothing_else:
                raise
            self.say(f"fold {self.fold}: the time budget is used up; not saved again. {error}")
        else:
            self.say(f"fold {self.fold}: the time budget is used up; state saved; {GO_ON}")

    def _position(self) -> tuple[int, int]:
        """Batches and evaluations so far: others than at the last save if there is more to save."""
        progress = self.state.progress
        return progress.batches_done(self.order.counts), len(progress.history)

    def _count_seconds(self) -> None:
        now = self.machine.clock.elapsed_seconds
        self.state.progress.seconds += now - self._last_tick
        self._last_tick = now
