"""All folds of a run: each saved as it ends, resumed where it stopped.

With one device they are trained in this process, one after the other; with several, in a process
for each device, one fold at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from kernel_lib.artifacts import OOF, RUN_RECORD, WEIGHTS, Run, read_manifest
from kernel_lib.errors import ArtifactError, TrainingError
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.crew import Outcome, hire
from kernel_lib.runtime.device import make_places, pick_devices, pick_precision
from kernel_lib.runtime.distributed import World
from kernel_lib.runtime.worker import Failure
from kernel_lib.text.batches import Example
from kernel_lib.training.fold_work import FoldJob, FoldWork
from kernel_lib.training.forecast import GO_ON, reason_not_to_begin
from kernel_lib.training.origins import find_origins
from kernel_lib.training.record import open_or_begin, with_scores
from kernel_lib.training.state import RESUME, Progress, read_progress
from kernel_lib.training.task import Task
from kernel_lib.training.tracking import make_tracker


def cross_validate(
    task: Task,
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerFast,
    *,
    clock: Clock | None = None,
) -> Run:
    """Trains the wanted folds that are not finished yet; run it again to go on where it stopped.

    A fold that does not fit in what is left of the time budget is not begun, going by what the
    folds before it took; one that turns out not to fit is stopped in time, with its state saved.

    Started by torchrun, all processes train each fold together; only the first one returns, the
    others end here.

    Args:
        task: with the settings. For several devices it must be of a class that can be imported:
            one that a notebook defines itself is not known to other processes.
        examples: all rows, with targets.
        folds: the fold of each row, ``(rows,)``.
        tokenizer: that made the examples; saved with the run.
        clock: the time budget; by default it begins now.

    Returns:
        The run, its record filled with the scores so far.

    Raises:
        ArtifactError: ``output_dir`` holds a run of other settings or data.
        TrainingError: with several devices, folds failed; the others are finished and saved.
        KernelLibError: whatever is wrong with settings, backbone or disk.
    """
    settings = task.settings
    clock = clock or Clock(settings.time_budget_seconds)
    world = World.enter()
    devices = pick_devices(settings.devices) if world.size == 1 else [world.device]
    backbone = find_backbone(settings.backbone)
    origins = find_origins(task, tokenizer)
    run = _open_together(
        world,
        settings.run_folder,
        lambda: open_or_begin(task, examples, folds, tokenizer, backbone, origins),
    )
    work = FoldWork(task, examples, folds, tokenizer, backbone, run, world=world, origins=origins)
    plan = _Plan(work, clock)
    places = make_places(devices, jobs=len(plan.unfinished()))
    precisions = (pick_precision(settings.precision, place.device).name for place in places)
    print(
        f"run {run.id} in {run.folder}  device {', '.join(map(str, places))}  "
        f"precision {', '.join(dict.fromkeys(precisions))}"
    )
    if len(places) > 1:
        plan.look_ahead()
    wanted = settings.wandb and world.is_first
    tracker = make_tracker(wanted, name=run.id, settings=settings.to_dict())
    with hire(work, places, clock=clock, name=str, note=tracker.log) as crew:
        for outcome in crew.outcomes(plan.next_job):
            plan.count(outcome)
            if outcome.value is not None and world.is_first:
                run = with_scores(task, run)
    tracker.finish()
    world.leave()
    run = with_scores(task, run)
    plan.raise_failures()
    return run


def _open_together(world: World, folder: Path, open_or_begin: Callable[[], Run]) -> Run:
    """The run that the first process opens or begins, and that all others find in its folder."""

    def find() -> Run | None:
        return open_or_begin() if world.is_first or (folder / RUN_RECORD).exists() else None

    run = world.in_turn(find)
    seen = "" if run is None else f"{run.id} {run.finished_models()}"
    if not world.agrees(seen) or run is None:
        raise ArtifactError(
            f"the processes do not see the same run in {folder}: they have other settings or data, "
            "or its disk is not shared by their machines. Start all alike, with an output_dir that "
            "all can see."
        )
    return run


class _Plan:
    """Which fold is next, going by how the ones before it ended.

    Args:
        work: of the run.
        clock: the time budget.
    """

    def __init__(self, work: FoldWork, clock: Clock) -> None:
        self._work, self._clock, self._settings = work, clock, work.task.settings
        self._waiting = deque(self._settings.wanted_models)
        self._longest_seconds = 0.0  # of the folds that were finished here
        self._is_first = True
        self._failures: dict[int, Failure] = {}

    def unfinished(self) -> set[int]:
        """The wanted folds that are not finished yet, the model of all rows among them."""
        return set(self._settings.wanted_models) - set(self._work.run.finished_models())

    def look_ahead(self) -> None:
        """Reads all that earlier sessions saved; raises now, rather than while others work."""
        self._waiting = deque(fold for fold in self._waiting if not self._is_finished(fold))
        for fold in self._waiting:
            self._saved(fold)

    def next_job(self) -> FoldJob | None:
        """The next fold that is to be trained; None: there is none, or no time for it."""
        while self._waiting:
            fold = self._waiting.popleft()
            if self._is_finished(fold):
                continue
            reason = self._reason_not_to_begin(fold)
            if self._work.world.decide(bool(reason)):
                print(f"fold {fold}: not begun, {reason}; {GO_ON}")
                self._waiting.clear()
                break
            if fold in self._failures:
                print(f"fold {fold}: tried a second time")
            job = FoldJob(
                fold,
                folds_to_finish=len(self.unfinished()) if self._is_first else 0,
                shows_groups=fold == self._settings.wanted_models[0],
            )
            self._is_first = False
            return job
        return None

    def count(self, outcome: Outcome) -> None:
        """Takes note of how a fold ended. One whose process died is tried a second time."""
        fold, failure = outcome.job.fold, outcome.failure
        if failure:
            if failure.has_died and fold not in self._failures:
                self._waiting.append(fold)
            self._failures[fold] = failure
            return
        self._failures.pop(fold, None)
        if outcome.value is None:  # the clock ended it: it is not the time to begin another
            self._waiting.clear()
        else:
            self._longest_seconds = max(self._longest_seconds, outcome.value)

    def raise_failures(self) -> None:
        """Raises TrainingError when folds failed, in words that say what is there all the same."""
        if not self._failures:
            return
        failed = sorted(self._failures.items())
        parts = [f"fold {fold} failed: {failure.cause}" for fold, failure in failed]
        others = sorted(self.unfinished() - self._failures.keys())
        if others:
            parts.append(f"not finished either: {', '.join(map(str, others))}")
        if any(failure.has_died for failure in self._failures.values()):
            parts.append("if the memory was full, devices=1 needs less")
        finished = ", ".join(map(str, self._work.run.finished_models())) or "none"
        raise TrainingError(
            f"{'; '.join(parts)}. Finished and saved in {self._work.run.folder}: {finished}. Run "
            "again to train the rest."
        )

    def _is_finished(self, fold: int) -> bool:
        """Whether it needs no training; says so."""
        run, task = self._work.run, self._work.task
        if fold not in run.finished_models():
            return False
        manifest = read_manifest(run, fold, check=(WEIGHTS, OOF))
        scored = fold in run.finished_folds()
        what = f"{task.score_name} {manifest['score']:.4f}" if scored else "on all rows"
        print(f"fold {fold}: finished before, {what}")
        return True

    def _reason_not_to_begin(self, fold: int) -> str:
        run = self._work.run
        return reason_not_to_begin(
            run,
            self._saved(fold),
            batches=self._work.batches(fold),
            settings=self._settings,
            longest_seconds=self._longest_seconds,
            clock=self._clock,
        )

    def _saved(self, fold: int) -> Progress | None:
        """Where the fold stands that was begun in an earlier session."""
        run = self._work.run
        return read_progress(run.fold_folder(fold) / RESUME, run.id)
