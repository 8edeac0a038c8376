"""Reading CSV files the way competition data needs: ids stay text, bad rows are named."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.runtime.files import csv_engine

SHOWN = 5  # how many offending rows an error message names


def read_table(path: Path, *, columns: Sequence[str], id_column: str) -> pd.DataFrame:
    """Reads a CSV file, every cell as text exactly as it stands there.

    Nothing is guessed: an id such as ``53E542321463`` stays what it is, an essay that says ``NA``
    is an essay. Other columns of the file are kept too.

    Args:
        path: a UTF-8 CSV file with a header.
        columns: names that must be there, ``id_column`` among them or not.
        id_column: must be filled and unique.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or not CSV; a column is missing; an id is
            empty or comes twice.
    """
    frame = read_cells(path, columns=(id_column, *columns))
    empty = frame.index[frame[id_column].str.strip() == ""]
    if len(empty):
        raise DataError(f"{path}: empty {id_column} in data row {listed(empty + 1)}.")
    twice = frame.loc[frame[id_column].duplicated(), id_column].unique()
    if len(twice):
        raise DataError(f"{path}: {id_column} comes more than once: {listed(twice)}.")
    return frame


def read_cells(path: Path, *, columns: Sequence[str]) -> pd.DataFrame:
    """Reads a CSV file, every cell as text exactly as it stands there, whatever its rows are.

    Args:
        path: a UTF-8 CSV file with a header.
        columns: names that must be there.

    Raises:
        DataError: the file is missing, empty, not UTF-8 or not CSV, or a column is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                engine=csv_engine(path),
            )
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, error)) from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty: not even a header.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        raise DataError(f"{path} is not a CSV file: {str(error).strip()}.") from None
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(map(repr, dict.fromkeys(missing)))}; "
            f"it has {', '.join(map(repr, frame.columns))}."
        )
    if frame.empty:
        raise DataError(f"{path} has a header but no rows.")
    return frame


def numeric_columns(
    frame: pd.DataFrame,
    columns: Sequence[str],
    *,
    id_column: str,
    lowest: float,
    highest: float,
    source: Path,
) -> pd.DataFrame:
    """The frame with some columns as float64.

    Raises:
        DataError: a value is no number, not finite, or outside ``[lowest, highest]``; the row's id,
            the column and the value are named.
    """
    frame = frame.copy()
    for column in columns:
        numbers = pd.to_numeric(frame[column], errors="coerce").astype(np.float64)
        wrong = ~np.isfinite(numbers) | (numbers < lowest) | (numbers > highest)
        if wrong.any():
            found = [
                f"{row[id_column]}: {row[column]!r}"
                for _, row in frame[wrong].head(SHOWN).iterrows()
            ]
            raise DataError(
                f"{source}: column {column!r} must hold numbers from {lowest} to {highest}; "
                f"{int(wrong.sum())} rows do not ({'; '.join(found)}). Mend or drop these rows."
            )
        frame[column] = numbers
    return frame


def listed(values: Any) -> str:
    """The first few of some values, and how many there are more."""
    shown = ", ".join(str(value) for value in list(values)[:SHOWN])
    return shown if len(values) <= SHOWN else f"{shown} and {len(values) - SHOWN} more"


def not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    """The message about a file of another encoding: which byte, in which line."""
    content = path.read_bytes()
    try:
        content.decode("utf-8")
        line = "?"
    except UnicodeDecodeError as exact:
        error, line = exact, str(content[: exact.start].count(b"\n") + 1)
    wrong = error.object[error.start : error.start + 1].hex()
    return (
        f"{path} is not UTF-8: byte 0x{wrong} in line {line}. Save the file as UTF-8 "
        "(from cp1252 or GBK, say: iconv -f cp1252 -t utf-8)."
    )
