"""Several sessions of one run, joined in one run folder.

Folds that were trained in different notebooks lie in different run folders, all of one id. What is
of another id is another computation, and is never mixed in.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernel_lib.artifacts import RUN_RECORD, WEIGHTS, Run, read_manifest
from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.files import read_json, replacing, write_json
from kernel_lib.training.state import RESUME, read_progress

# As runtime.files.replacing names them, and as safetensors does inside its save_file.
TEMPORARY = r"\..+\.[0-9a-f]{8}\.tmp|\.tmp[0-9A-Za-z]{6}"


def join_sessions(sessions: Sequence[Run], target: Path) -> None:
    """Copies what the sessions of a run left into one folder, each fold once.

    An unfinished fold comes from the session that got furthest with it. What is of no fold comes
    from the session with the most finished folds. The record comes last, so that half a copy does
    not count; its scores are those of that session, to be made anew.

    Args:
        sessions: one or more run folders.
        target: where to; what is there is written over.

    Raises:
        ArtifactError: they are of different runs, a fold is finished in two of them with different
            weights, or a file cannot be copied. The first two before anything is.
    """
    check_same_run(sessions)
    first = furthest(sessions)
    finished = _finished_folds(sessions)
    begun = _begun_folds(sessions, without=set(finished))
    for path in sorted(first.folder.rglob("*")):
        part = path.relative_to(first.folder).parts[0]
        if part != RUN_RECORD and not re.fullmatch(r"fold\d+", part):
            _copy(path, first.folder, target)
    for fold, run in sorted((finished | begun).items()):
        for path in sorted(run.fold_folder(fold).rglob("*")):
            if path.name != RESUME or fold in begun:
                _copy(path, run.folder, target)
    write_json(target / RUN_RECORD, read_json(first.folder / RUN_RECORD))


def _copy(path: Path, source: Path, target: Path) -> None:
    """Copies a file of one folder into another; what a killed session left of one is none."""
    if path.is_file() and not is_temporary(path):
        with replacing(target / path.relative_to(source)) as temporary:
            shutil.copyfile(path, temporary)  # without its mode: inputs are read-only


def check_same_run(sessions: Sequence[Run]) -> None:
    """Raises ArtifactError, which says what differs, when they are not all of one run."""
    first = sessions[0]
    for other in sessions[1:]:
        if other.id != first.id:
            what = differences(first.record["identity"], other.record["identity"])
            raise ArtifactError(
                f"{first.folder} and {other.folder} are not of one run: {what}. Their folds cannot "
                "be joined; as runs of their own they can be averaged at inference."
            )


def furthest(sessions: Sequence[Run]) -> Run:
    """The session with the most finished folds; of equals the first."""
    return max(sessions, key=lambda run: len(run.finished_models()))


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What two identities differ in, the settings by name."""
    then, now = old.get("settings", {}), new.get("settings", {})
    parts = [
        f"{name} was {then.get(name)!r}, is {now.get(name)!r}"
        for name in dict.fromkeys((*then, *now))
        if then.get(name) != now.get(name)
    ]
    keys = ("data", "tokens", "folds", "backbone", "soft labels", "first weights")
    parts += [f"other {key}" for key in keys if old.get(key) != new.get(key)]
    return "; ".join(parts) or "another task"


def is_temporary(path: Path) -> bool:
    """Whether it is what a killed session left of a file that it was writing."""
    return re.fullmatch(TEMPORARY, path.name) is not None


def _finished_folds(sessions: Sequence[Run]) -> dict[int, Run]:
    """Which session each finished fold is taken from: the first that has it."""
    found: dict[int, Run] = {}
    for run in sessions:
        for fold in run.finished_models():
            if fold not in found:
                found[fold] = run
                continue
            one, two = (
                read_manifest(each, fold)["sha256"].get(WEIGHTS) for each in (found[fold], run)
            )
            if one != two:
                raise ArtifactError(
                    f"fold {fold} is finished in {found[fold].folder} and in {run.folder}, with "
                    "different weights: trained twice. Leave one of the two out, or remove this "
                    "fold's folder from a copy of it."
                )
            print(f"{run.folder}: fold {fold} is also in {found[fold].folder}; taken once")
    return found


def _begun_folds(sessions: Sequence[Run], without: set[int]) -> dict[int, Run]:
    """Which session each unfinished fold goes on from: the one that got furthest with it."""
    found: dict[int, tuple[tuple[int, int], Run]] = {}
    for run in sessions:
        for path in sorted(run.folder.glob(f"fold*/{RESUME}")):
            number = path.parent.name.removeprefix("fold")
            progress = read_progress(path, run.id)
            if not number.isdecimal() or int(number) in without or progress is None:
                continue
            reached = progress.epoch, progress.batch
            if int(number) not in found or reached > found[int(number)][0]:
                found[int(number)] = reached, run
    return {fold: run for fold, (_, run) in found.items()}
