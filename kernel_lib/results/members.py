"""The runs of an ensemble: found, sessions of one run joined, checked, in order of worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib.artifacts import MANIFEST, RUN_RECORD, Run, open_run
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.runtime.paths import input_folders, input_root
from kernel_lib.tasks.base import PredictingTask
from kernel_lib.tasks.registry import restore_task
from kernel_lib.text.batches import Example
from kernel_lib.training.prediction import TokenLimit
from kernel_lib.training.sessions import furthest


@dataclass
class Member:
    """A run in the ensemble, and what it has predicted so far.

    Attributes:
        name: what printed lines call it.
        sessions: the run folders of it; several may be attached side by side.
        folds: which of them each fold is taken from, in the folds' order.
        task: what it was trained for.
        examples: the encoded test rows, once they are.
        pad_id: its tokenizer's, likewise.
        predictions: settled, of each fold that is done.
        fold_seconds: what a fold takes, as far as this session knows; 0: nothing yet.
        limit: what memory was found to hold by the folds before, in this process.
    """

    name: str
    sessions: list[Run]
    folds: dict[int, Run]
    task: PredictingTask
    examples: list[Example] = field(default_factory=list)
    pad_id: int = 0
    predictions: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    fold_seconds: float = 0.0
    limit: TokenLimit = field(default_factory=TokenLimit)

    @property
    def record(self) -> dict[str, Any]:
        """The record of the session that got furthest."""
        return furthest(self.sessions).record

    def mean(self) -> NDArray[Any]:
        """Over the folds that are done, summed in their order whatever order they were done in."""
        return self.task.average([self.predictions[fold] for fold in sorted(self.predictions)])


def find_runs(given: Sequence[str]) -> list[Run]:
    """The runs to ensemble, each with at least one finished fold.

    Args:
        given: run folders; none: every folder with a ``run.json`` under the inputs.

    Raises:
        ArtifactError: there is none, or a folder is no run or has no finished fold.
    """
    found = [folder for folder in input_folders() if (folder / RUN_RECORD).is_file()]
    folders = [Path(folder) for folder in given] or found
    if not folders:
        raise ArtifactError(
            f"no run folder ({RUN_RECORD}) under {input_root()}. Attach the training notebook's "
            "output or a dataset made of it, or set runs."
        )
    runs = [open_run(folder) for folder in folders]
    for run in runs:
        if not run.finished_models():
            raise ArtifactError(f"{run.folder} has no finished fold (fold<n>/{MANIFEST}).")
    return runs


def task_of(run: Run) -> PredictingTask:
    """The task a run was trained for, with the settings it was trained with."""
    try:
        return restore_task(run.record)
    except (ArtifactError, SettingsError) as error:
        raise ArtifactError(
            f"{run.folder / RUN_RECORD}: {error} Use the kernel_lib that wrote it."
        ) from None


def gather_members(runs: Sequence[Run]) -> list[Member]:
    """A member for each different run, every fold once, however many sessions of it are there.

    Raises:
        ArtifactError: a run is of another task.
    """
    by_id: dict[str, list[Run]] = {}
    for run in runs:
        by_id.setdefault(run.id, []).append(run)
    names = _short_names([sessions[0].folder for sessions in by_id.values()])
    members = []
    for name, sessions in zip(names, by_id.values(), strict=True):
        folds: dict[int, Run] = {}
        for run in sessions:
            for fold in run.finished_models():
                if fold in folds:
                    print(f"{run.folder}: fold {fold} is also in {folds[fold].folder}; taken once")
                folds.setdefault(fold, run)
        task = task_of(furthest(sessions))
        members.append(Member(name, sessions, dict(sorted(folds.items())), task))
    return members


def best_first(members: Sequence[Member]) -> list[Member]:
    """By pooled CV score; members without one come last, equals stay in their order."""

    def rank(member: Member) -> float:
        scores = member.record.get("pooled", {}).get("scores", {})
        score = float(scores.get(member.task.score_name, np.nan))
        if np.isnan(score):
            return np.inf
        return score if member.task.lower_is_better else -score

    return sorted(members, key=rank)


def in_rounds(members: Sequence[Member]) -> list[tuple[Member, int]]:
    """The first fold of each member, then the second of each, and so on."""
    queues = ([(member, fold) for fold in member.folds] for member in members)
    return [visit for each in zip_longest(*queues) for visit in each if visit is not None]


def check_members(members: Sequence[Member]) -> None:
    """Checks what can be seen without opening a large file.

    Raises:
        ArtifactError: two members predict different things, or a finished fold has lost its
            manifest on the way.
    """
    kind = members[0].task.kind
    for member in members:
        if member.task.kind != kind:
            raise ArtifactError(
                f"one run predicts {kind}, another {member.task.kind}: they cannot be averaged."
            )
        for run in member.sessions:
            for entry in [*run.record["folds"], *run.record.get("full_data", [])]:
                folder = run.fold_folder(entry["fold"])
                if folder.is_dir() and entry["fold"] not in member.folds:
                    raise ArtifactError(
                        f"{folder / MANIFEST} is missing, though {RUN_RECORD} says that the fold "
                        "is finished. Copy the whole fold folder, or remove it to do without."
                    )


def encode_test(member: Member, test: pd.DataFrame) -> None:
    """Encodes the test rows as the member reads them.

    Raises:
        ArtifactError: its tokenizer gives other ids than in training, or another part of what it
            was trained with is missing.
    """
    run = furthest(member.sessions)
    member.examples, member.pad_id = member.task.read_unseen(run, test)


def _short_names(folders: Sequence[Path]) -> list[str]:
    """The end of each path, as short as tells them apart: ``a/run``, ``b/run``."""
    names: list[str] = []
    for depth in range(1, 1 + max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            break
    return names
