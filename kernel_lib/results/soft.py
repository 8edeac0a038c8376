"""Soft labels for further texts, and for training rows, that leak nothing into any fold.

    python -m kernel_lib.results.soft build/fb3/run --texts more.csv --out build/soft
    python -m kernel_lib.results.soft a/run b/run --texts more.csv --out build/soft --with-train

The teachers of fold k are the models of fold k of all runs, averaged: they never saw the rows of
fold k. A student of fold k learns from their labels (setting ``pseudo_labels``) and is scored on
the true rows of fold k. So the table has labels of its own for each fold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernel_lib.artifacts import CONFIG, WEIGHTS, read_manifest
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, DataError, SettingsError, TrainingError
from kernel_lib.results.ensemble import PredictWork
from kernel_lib.results.members import (
    Member,
    check_members,
    encode_test,
    find_runs,
    gather_members,
)
from kernel_lib.results.training_rows import read_training_rows
from kernel_lib.results.visits import Plan
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.crew import hire
from kernel_lib.runtime.device import make_places, pick_devices
from kernel_lib.tasks.regression_settings import RegressionSettings
from kernel_lib.tasks.soft_rows import FOLD, TABLE, write_soft_rows
from kernel_lib.text.tables import listed, read_table
from kernel_lib.training.origins import check_same_folds, read_folds
from kernel_lib.training.sessions import furthest


def write_soft_labels(
    settings: InferenceSettings,
    texts: Path | None,
    out: Path,
    *,
    with_train: bool = False,
    mix_true: float = 0.0,
    clock: Clock | None = None,
) -> Path:
    """Labels texts once for each fold, by the models of that fold.

    With ``with_train`` the student of fold k also gets the training rows outside of fold k. Their
    teachers have learned from these rows, so such a label is the teachers' fit; but no label of
    fold k has gone into it.

    Args:
        settings: ``runs``, the teachers; ``data_dir``, the folder of their ``train.csv``;
            precision, devices and time budget.
        texts: a CSV file with the id and text columns of the competition; None: no further texts,
            only training rows.
        out: a folder, or the CSV file to write.
        with_train: whether training rows are labelled too.
        mix_true: share of the true value in the label of a training row.
        clock: the time budget; by default it begins now.

    Returns:
        The path of the table.

    Raises:
        ArtifactError: the runs have other folds or targets than each other, or folds are missing
            or not as training wrote them.
        DataError: a text is one of the training rows.
        SettingsError: ``mix_true`` makes no sense, or there is nothing to label.
        TrainingError: the time budget is too short, or a model failed; nothing is written.
    """
    _check_mix(with_train, mix_true)
    if texts is None and not with_train:
        raise SettingsError("nothing to label: give texts (--texts), training rows (--with-train).")
    clock = clock or Clock(settings.time_budget_seconds)
    members = gather_members(find_runs(settings.runs))
    check_members(members)
    folds = _common_folds(members)
    _warn_of_chosen_epochs(members)
    task, s = members[0].task, _regression_settings(members[0])
    for member in members:
        member.task.agree_with(task, settings)
    known = read_training_rows(furthest(members[0].sessions), settings.data_dir or s.data_dir).frame
    columns = [s.id_column, s.text_column]
    frame = known[columns].iloc[:0]
    if texts is not None:
        frame = read_table(texts, columns=(s.text_column,), id_column=s.id_column)[columns]
        _refuse_known(frame, known, texts, s)
    further = len(frame)
    if with_train:
        frame = pd.concat([frame, known[columns]], ignore_index=True)
    _predict(members, frame, settings, clock)
    true = known[list(s.target_columns)].to_numpy(np.float64)
    parts = []
    for fold in range(s.n_folds):
        labels = task.average([member.predictions[fold] for member in members]).astype(np.float64)
        if with_train:
            labels[further:] += mix_true * (true - labels[further:])
        clipped = np.clip(labels, s.target_min, s.target_max)
        part = frame.assign(**dict(zip(s.target_columns, clipped.T, strict=True)))
        part.insert(0, FOLD, fold)
        parts.append(part[[folds.get(row_id) != fold for row_id in frame[s.id_column]]])
    path = out if out.suffix == ".csv" else out / TABLE
    facts = {
        "teachers": {member.name: member.sessions[0].id for member in members},
        "texts": further,
        "with_train": with_train,
        "mix_true": mix_true,
    }
    write_soft_rows(pd.concat(parts, ignore_index=True), path, folds=folds, facts=facts)
    print(f"{path}: {sum(map(len, parts)):,} labels, {further:,} further texts, {s.n_folds} folds")
    return path


def _check_mix(with_train: bool, mix_true: float) -> None:
    if not 0 <= mix_true <= 1:
        raise SettingsError(f"mix_true={mix_true} is a share: it must be from 0 to 1.")
    if mix_true and not with_train:
        raise SettingsError(
            f"mix_true={mix_true}, but only training rows have true values: ask for them too "
            "(--with-train)."
        )


def _common_folds(members: Sequence[Member]) -> dict[str, int]:
    """The fold of each training row, the same in all runs, each with a model of each fold."""
    folds: dict[str, int] = {}
    for member in members:
        run = furthest(member.sessions)
        here = read_folds(run)
        if folds:
            check_same_folds(folds, here, str(run.folder))
        folds = here
        missing = sorted(set(range(member.task.settings.n_folds)) - member.folds.keys())
        if missing:
            raise ArtifactError(
                f"{run.folder} has no finished fold {listed(missing)}: each fold's labels come of "
                "that fold's model. Train it, or give all its sessions."
            )
    return folds


def _warn_of_chosen_epochs(members: Sequence[Member]) -> None:
    for member in members:
        if member.task.settings.to_dict().get("keep") == "best":
            print(
                f'{member.name} has keep="best": the rows of its own fold chose its weights, so a '
                "student of these labels scores a little too well on them"
            )


def _regression_settings(member: Member) -> RegressionSettings:
    settings = member.task.settings
    if not isinstance(settings, RegressionSettings):
        raise ArtifactError(
            f"{member.name} is a run of the task {member.task.name!r}: soft labels are numbers, "
            "as of the task 'fb3'."
        )
    return settings


def _refuse_known(
    frame: pd.DataFrame, known: pd.DataFrame, source: Path, s: RegressionSettings
) -> None:
    """Raises DataError when a text is a training row, by id or but for white space by text."""

    def plain(texts: pd.Series[Any]) -> pd.Series[Any]:
        return texts.map(lambda text: " ".join(text.split()))

    is_known = frame[s.id_column].isin(known[s.id_column])
    is_known |= plain(frame[s.text_column]).isin(plain(known[s.text_column]))
    if is_known.any():
        raise DataError(
            f"{source}: {int(is_known.sum())} texts are rows of train.csv, by id or by text: "
            f"{s.id_column} {listed(frame.loc[is_known, s.id_column])}. A fold would learn from "
            "rows that it is validated on. Remove them (--with-train adds training rows safely)."
        )


def _predict(
    members: Sequence[Member], frame: pd.DataFrame, settings: InferenceSettings, clock: Clock
) -> None:
    """Each fold's model of each run predicts all rows; a model of all rows is no teacher."""
    for member in members:
        encode_test(member, frame)
    visits = [(m, fold) for fold in range(members[0].task.settings.n_folds) for m in members]
    for member, fold in visits:  # weights of another fold have learned this fold's rows
        read_manifest(member.folds[fold], fold, check=(WEIGHTS, CONFIG))
    places = make_places(pick_devices(settings.devices), jobs=len(visits))
    plan = Plan(members, visits, clock)
    with hire(PredictWork(members, settings), places, clock=clock, name=str) as crew:
        for outcome in crew.outcomes(plan.next_visit):
            plan.count(outcome)
    plan.raise_failures()
    missing = [f"{m.name} fold {fold}" for m, fold in visits if fold not in m.predictions]
    if missing:
        raise TrainingError(
            f"no labels of {listed(missing)}, so nothing is written. Give more time (--hours), "
            "more memory, or fewer texts."
        )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Label texts by the folds of one or more runs.")
    parser.add_argument("runs", nargs="+", help="run folders with the same folds, the teachers")
    parser.add_argument("--texts", type=Path, help="CSV file with id and text")
    parser.add_argument("--out", type=Path, required=True, help="folder, or CSV file, to write")
    parser.add_argument("--data", default="", help="folder of train.csv; that of the first run")
    parser.add_argument("--with-train", action="store_true", help="label training rows too")
    parser.add_argument(
        "--mix-true", type=float, default=0.0, help="share of the true value in their labels"
    )
    parser.add_argument("--hours", type=float, default=8.5, help="time budget")
    options = parser.parse_args()

    def work() -> None:
        settings = InferenceSettings(
            runs=tuple(options.runs),
            data_dir=options.data,
            time_budget_seconds=options.hours * 3600,
        )
        write_soft_labels(
            settings,
            options.texts,
            options.out,
            with_train=options.with_train,
            mix_true=options.mix_true,
        )

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
