"""A table of soft labels: a row for each fold and text, and what keeps it free of leaks.

    soft.csv    fold, and as in the competition's files: id, text, targets
    soft.json   SHA-256 of the table, who made it, and the fold of each true row as they had them

The labels of a fold were made by models that never saw that fold's rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kernel_lib.artifacts import write_csv
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.runtime.files import read_json, sha256, write_json
from kernel_lib.text.batches import Example
from kernel_lib.text.tables import listed, numeric_columns, read_cells
from kernel_lib.training.origins import SoftRows, find_input

if TYPE_CHECKING:
    from kernel_lib.tasks.regression_settings import RegressionSettings

TABLE = "soft.csv"
FOLD = "fold"
FORMAT = 1


def write_soft_rows(
    frame: pd.DataFrame, path: Path, *, folds: dict[str, int], facts: dict[str, Any]
) -> None:
    """Writes a table and what belongs to it; the latter last, and without it the table is none.

    Args:
        frame: fold, id, text and targets.
        path: of the CSV file.
        folds: the fold of each true row, by id.
        facts: how it was made.
    """
    write_csv(frame, path)
    record = {"format": FORMAT, "sha256": sha256(path), **facts, "folds": folds}
    write_json(path.with_suffix(".json"), record)


def read_soft_rows(
    settings: RegressionSettings, encode: Callable[[pd.DataFrame], list[Example]]
) -> SoftRows:
    """The table that ``pseudo_labels`` names, as examples; each text is encoded once.

    Args:
        settings: of the run that is to learn from it.
        encode: makes examples of rows with id, text and targets.

    Raises:
        ArtifactError: there is none, or it is not what was written.
        DataError: a column is missing, or a label is no number of the scale.
    """
    s, path = settings, _table_of(settings.pseudo_labels)
    folds = _folds_of(path)
    frame = read_cells(path, columns=(FOLD, s.id_column, s.text_column, *s.target_columns))
    frame = numeric_columns(
        frame,
        s.target_columns,
        id_column=s.id_column,
        lowest=s.target_min,
        highest=s.target_max,
        source=path,
    )
    wrong = frame.loc[~frame[FOLD].str.fullmatch("[0-9]+"), FOLD]
    if len(wrong):
        raise DataError(f"{path}: column {FOLD!r} must hold numbers of folds: {listed(wrong)}.")
    encoded = {example.id: example for example in encode(frame.drop_duplicates(s.id_column))}
    by_fold: dict[int, list[Example]] = {}
    for fold, rows in frame.groupby(frame[FOLD].map(int)):
        targets = rows[list(s.target_columns)].to_numpy(np.float32)
        ids = rows[s.id_column]
        by_fold[int(str(fold))] = [
            replace(encoded[row_id], target=target, row=row)
            for row, (row_id, target) in enumerate(zip(ids, targets, strict=True))
        ]
    return SoftRows(by_fold, folds, path)


def _table_of(given: str) -> Path:
    if given.endswith(".csv") and Path(given).is_file():
        return Path(given)
    return find_input(given, TABLE, "pseudo_labels") / TABLE


def _folds_of(path: Path) -> dict[str, int]:
    """The fold of each true row; of a table that is what was written."""
    beside = path.with_suffix(".json")
    record = read_json(beside)
    folds = record.get("folds") if isinstance(record, dict) else None
    if not isinstance(folds, dict) or not all(isinstance(fold, int) for fold in folds.values()):
        raise ArtifactError(f"{beside} does not tell the folds of {path.name}. Make both again.")
    if record.get("format") != FORMAT:
        raise ArtifactError(f"{beside} is of another layout than {FORMAT}. Make it again.")
    if record.get("sha256") != sha256(path):
        raise ArtifactError(
            f"{path} is not the table that {beside.name} belongs to: altered, or only one of the "
            "two was copied. Copy both, or make them again."
        )
    return folds
