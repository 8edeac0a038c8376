"""From run folders to one prediction a row: fold by fold, mean over folds, blend of runs.

A valid file is there in the first seconds, and each fold replaces it by a better one. What the
time budget does not hold is left out, the least valuable first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from kernel_lib.artifacts import CONFIG, WEIGHTS, load_weights, read_manifest
from kernel_lib.config import InferenceSettings
from kernel_lib.results.combination import find_combination
from kernel_lib.results.members import (
    Member,
    best_first,
    check_members,
    encode_test,
    find_runs,
    gather_members,
    in_rounds,
)
from kernel_lib.results.visits import Plan, Prediction, Visit
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.crew import hire
from kernel_lib.runtime.device import (
    keep_freed_memory,
    make_places,
    pick_devices,
    pick_precision,
    versions,
)
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.runtime.release import compare_versions
from kernel_lib.runtime.worker import Station
from kernel_lib.tasks.submission import remove_leftovers
from kernel_lib.training.memory import release_memory
from kernel_lib.training.passes import predict_in_passes
from kernel_lib.training.prediction import TimeIsUp


def predict_submission(settings: InferenceSettings, clock: Clock | None = None) -> Path:
    """Predicts the test rows with all folds of all runs and writes the submission.

    The file is there, valid, before anything large is opened: the task's first guess. It is
    replaced by a better one after each fold: the best run's first fold, the next run's first fold,
    and so on, then the second of each.

    Args:
        settings: where runs and data are; everything else is read from the runs.
        clock: the time budget; by default it begins now. When it runs out, the file is left as
            good as it has become, and what was left out is printed.

    Returns:
        The path of the submission.

    Raises:
        KernelLibError: whatever is wrong with runs, data or disk. A submission that was written
            before that stays.
    """
    clock = clock or Clock(settings.time_budget_seconds)
    combination = find_combination(gather_members(find_runs(settings.runs)), settings)
    members = combination.members
    ranked = best_first(members)
    task = ranked[0].task
    for member in members:
        member.task.agree_with(task, settings)
    unseen = task.read_test(settings)
    path = Path(settings.submission)
    remove_leftovers(path)
    guess, origin = task.first_guess(ranked[0].record, unseen, ranked[0].name)
    task.write(guess, unseen, settings)
    print(f"{path}: valid from now on, {origin}; each fold makes it better")
    _print_drift(members)
    check_members(members)
    visits = in_rounds(ranked)
    _prepare(visits, unseen.frame, clock)
    places = make_places(pick_devices(settings.devices), jobs=len(visits))
    plan, work = Plan(ranked, visits, clock), PredictWork(ranked, settings)
    with hire(work, places, clock=clock, name=str) as crew:
        for outcome in crew.outcomes(plan.next_visit):
            if plan.count(outcome):
                task.write(combination.predictions(task), unseen, settings)
    plan.print_outcome(members)
    combination.print_outcome()
    plan.raise_failures()
    return path


@dataclass(frozen=True)
class PredictWork:
    """Predicts with one fold of one run, in this process or in a worker's.

    Attributes:
        members: the runs, the best first; their test rows are encoded.
        settings: of the notebook.
    """

    members: Sequence[Member]
    settings: InferenceSettings

    def __call__(self, visit: Visit, station: Station) -> Prediction:
        """Predicts all rows, unless the clock ends it."""
        keep_freed_memory()
        device, clock = station.place.occupy(), station.clock
        began = clock.elapsed_seconds
        try:
            member = self.members[visit.member]
            values = _predict_fold(member, visit.fold, self.settings, clock, device)
            seconds = clock.elapsed_seconds - began - member.task.seconds_shared
            found = Prediction(values, seconds)
        except TimeIsUp as stop:
            found = Prediction(None, clock.elapsed_seconds - began, stop.more_seconds)
        release_memory(device)
        return found


def _print_drift(members: Sequence[Member]) -> None:
    """How the versions here differ from those in training, each different line once."""
    here = versions()
    records = [run.record for member in members for run in member.sessions]
    lines = (compare_versions(record.get("versions", {}), here) for record in records)
    print("\n".join(dict.fromkeys(lines)))


def _prepare(visits: Sequence[tuple[Member, int]], test: pd.DataFrame, clock: Clock) -> None:
    """Encodes the test rows and checks all weight files: what is damaged ends the run early."""
    for member, fold in visits:
        if not clock.allows(0):
            return
        if not member.examples:
            encode_test(member, test)
        read_manifest(member.folds[fold], fold, check=(WEIGHTS, CONFIG))


def _predict_fold(
    member: Member, fold: int, settings: InferenceSettings, clock: Clock, device: torch.device
) -> NDArray[np.float32]:
    """One fold's predictions for all rows, settled."""
    folder = member.folds[fold].fold_folder(fold)
    model = member.task.empty_model(folder, attention=settings.attention)
    load_weights(model, folder / WEIGHTS)
    model.to(device)
    with progress_bar(len(member.examples), f"{member.name} fold {fold}", unit="text") as bar:
        predictions = predict_in_passes(
            member.task,
            model,
            member.examples,
            pad_id=member.pad_id,
            batch_tokens=settings.eval_batch_tokens,
            device=device,
            precision=pick_precision(settings.precision, device),
            bar=bar,
            clock=clock,
            limit=member.limit,
        )
    return member.task.settle(member.examples, predictions)
