"""The out-of-fold predictions of several runs, side by side, matched by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib.artifacts import OOF, Run, open_run, read_oof
from kernel_lib.errors import ArtifactError, DataError, SettingsError
from kernel_lib.results.members import Member, check_members, gather_members
from kernel_lib.results.scale import Scale, scale_of
from kernel_lib.text.tables import listed

FEWEST_ROWS = 30
SAME_VALUE = 1e-5  # true values may have gone through float32 in one run and not in another


@dataclass(frozen=True)
class OofRows:
    """What several runs predicted out of fold for the rows that all of them predicted.

    Attributes:
        members: the runs.
        scale: what they predict.
        ids: of the rows, sorted.
        true: ``(rows, targets)``.
        predictions: ``(members, rows, targets)``.
    """

    members: list[Member]
    scale: Scale
    ids: list[str]
    true: NDArray[np.float64]
    predictions: NDArray[np.float64]


def read_rows(folders: Sequence[Path]) -> OofRows:
    """Reads the runs' out-of-fold predictions; what a run lacks is printed.

    Args:
        folders: run folders; several sessions of one run count as one.

    Raises:
        ArtifactError: a run has no finished fold or a damaged one, or they predict different
            columns or on different scales, or too few rows are common to all.
        DataError: two runs say different true values of a row.
        SettingsError: they are of a task whose predictions are not blended, or there is only one.
    """
    runs = [open_run(folder) for folder in folders]
    members = gather_members(runs)
    for member in members:
        if not scored_folds(member):
            where = member.sessions[0].folder
            raise ArtifactError(f"{where} has no finished fold, so no out-of-fold predictions.")
    check_members(members)
    scale = scale_of(members[0])
    if len(members) < 2:
        raise SettingsError(f"{members[0].name} alone is no blend: name at least two runs.")
    tables = [_table(member) for member in members]
    ids = _common_ids(members, tables)
    shared = [table.loc[ids] for table in tables]
    pairs = list(zip(members, shared, strict=True))
    true = [_values(member, table, "true", scale.targets) for member, table in pairs]
    for member, each in zip(members[1:], true[1:], strict=True):
        _check_truth(members[0].name, member.name, ids, true[0], each)
    predictions = [_values(member, table, "pred", scale.targets) for member, table in pairs]
    return OofRows(members, scale, ids, true[0], np.stack(predictions))


def scored_folds(member: Member) -> dict[int, Run]:
    """The folds of a run that have out-of-fold predictions; a model of all rows has none."""
    folds = member.folds.items()
    return {fold: run for fold, run in folds if fold in run.finished_folds()}


def _table(member: Member) -> pd.DataFrame:
    """All out-of-fold rows of a run, by id."""
    oof = pd.concat([read_oof(run, fold) for fold, run in scored_folds(member).items()])
    name = str(oof.columns[0])
    twice = oof.loc[oof[name].duplicated(), name].unique()
    if len(twice):
        raise ArtifactError(
            f"{member.name}: {OOF} has rows more than once: {listed(twice)}. Copy the run again."
        )
    return oof.set_index(name)


def _common_ids(members: Sequence[Member], tables: Sequence[pd.DataFrame]) -> list[str]:
    """Ids that every run has, sorted; prints what is not common."""
    common = set.intersection(*(set(table.index) for table in tables))
    union = set.union(*(set(table.index) for table in tables))
    lacking = []
    for member, table in zip(members, tables, strict=True):
        missing = sorted(union - set(table.index))
        if missing:
            lacking.append(
                f"{member.name} (folds {' '.join(map(str, scored_folds(member)))}) lacks "
                f"{len(missing):,}: {listed(missing)}"
            )
    if len(common) < FEWEST_ROWS:
        raise ArtifactError(
            f"the runs have {len(common)} rows in common of {len(union):,}, too few to choose "
            f"weights by ({FEWEST_ROWS}). {'. '.join(lacking)}."
        )
    if lacking:
        print(f"blending on the {len(common):,} rows of {len(union):,} that all runs have")
        print("\n".join(f"  {line}" for line in lacking))
    return sorted(common)


def _values(
    member: Member, table: pd.DataFrame, kind: str, targets: Sequence[str]
) -> NDArray[np.float64]:
    columns = [f"{kind}_{target}" for target in targets]
    missing = [name for name in columns if name not in table]
    if missing:
        raise ArtifactError(f"{member.name}: {OOF} has no column {', '.join(missing)}.")
    values = table[columns].to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise ArtifactError(f"{member.name}: {OOF} has values that are not finite.")
    return values


def _check_truth(
    first: str,
    second: str,
    ids: Sequence[str],
    one: NDArray[np.float64],
    two: NDArray[np.float64],
) -> None:
    largest: NDArray[np.float64] = np.abs(one - two).max(axis=1)
    rows = [name for name, apart in zip(ids, largest, strict=True) if apart > SAME_VALUE]
    if rows:
        raise DataError(
            f"{first} and {second} were trained on different true values of {len(rows):,} rows: "
            f"{listed(rows)}. Blend runs of the same train.csv."
        )
