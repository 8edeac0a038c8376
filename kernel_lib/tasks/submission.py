"""The file that is handed in: checked against the sample, written whole or not at all."""

from __future__ import annotations

import csv
import glob
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib.errors import SubmissionError
from kernel_lib.runtime.files import replacing
from kernel_lib.text.tables import read_cells, read_table

SHOWN = 3


def make_submission(
    sample: Path, *, ids: Sequence[str], columns: Sequence[str], predictions: NDArray[np.floating]
) -> pd.DataFrame:
    """Predictions in the sample's columns and row order, joined by id, never by position.

    Args:
        sample: the competition's ``sample_submission.csv``; its first column holds the ids.
        ids: the id of each prediction.
        columns: the name of each predicted value.
        predictions: ``(rows, columns)``.

    Raises:
        SubmissionError: the sample has other columns or other ids than were predicted.
    """
    wanted = read_sample(sample)
    id_column, *value_columns = wanted.columns
    if sorted(value_columns) != sorted(columns):
        raise SubmissionError(
            f"{sample} asks for the columns {', '.join(value_columns)}; predicted were "
            f"{', '.join(columns)}. Is this the sample of the competition the run was trained for?"
        )
    predicted = pd.DataFrame(predictions, columns=list(columns), index=pd.Index(ids))
    compare_ids(sample, wanted[id_column], predicted.index)
    values = predicted.loc[wanted[id_column], value_columns].reset_index(drop=True)
    return pd.concat([wanted[[id_column]], values], axis=1)


def check_submission(
    path: Path, sample: Path, *, lowest: float = -np.inf, highest: float = np.inf
) -> pd.DataFrame:
    """Reads a submission back and checks it as the competition would.

    Args:
        path: the submission.
        sample: the competition's sample.
        lowest, highest: the range all values must be in.

    Raises:
        SubmissionError: columns, ids, their order or a value are not as they must be.
    """
    wanted = read_sample(sample)
    id_column, *value_columns = wanted.columns
    found = read_table(path, columns=value_columns, id_column=id_column)
    if list(found.columns) != list(wanted.columns):
        raise SubmissionError(
            f"{path} has the columns {', '.join(found.columns)}; {sample} has "
            f"{', '.join(wanted.columns)}."
        )
    compare_ids(sample, wanted[id_column], pd.Index(found[id_column]))
    if found[id_column].tolist() != wanted[id_column].tolist():
        raise SubmissionError(f"{path} has its rows in another order than {sample}.")
    numbers = found[value_columns].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    wrong = ~np.isfinite(numbers) | (numbers < lowest) | (numbers > highest)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise SubmissionError(
            f"{path}: {int(wrong.sum())} values are no numbers from {lowest} to {highest}, first "
            f"{value_columns[column]} of {found[id_column][row]}: "
            f"{found[value_columns[column]][row]!r}."
        )
    return found


def write_submission(
    frame: pd.DataFrame, path: Path, sample: Path, *, lowest: float, highest: float
) -> None:
    """Checks a submission in a file of another name, then puts it in place at once.

    Raises:
        SubmissionError: it does not pass :func:`check_submission`; ``path`` is as it was.
        ArtifactError: the disk is full or not writable; ``path`` is as it was.
    """
    with replacing(path) as temporary:
        text = frame.to_csv(index=False, lineterminator="\n")
        temporary.write_text(text, encoding="utf-8", newline="")
        check_submission(temporary, sample, lowest=lowest, highest=highest)


def texts_by_sample(
    texts: Sequence[str], ids: Sequence[str], sample: Path | None, columns: tuple[str, str]
) -> pd.DataFrame:
    """A text a row, in the sample's columns and order where there is one, joined by id.

    Args:
        texts: to hand in.
        ids: of each.
        sample: the competition's; None: ``columns``, in the order of ``ids``.
        columns: names of the id and the text.

    Raises:
        SubmissionError: the sample has not two columns, or other ids.
    """
    names, order = list(columns), list(ids)
    if sample is not None:
        wanted = read_sample(sample)
        names = list(wanted.columns)
        if len(names) != 2:
            raise SubmissionError(
                f"{sample} has the columns {', '.join(names)}; a text a row needs two: the id and "
                "the text."
            )
        compare_ids(sample, wanted[names[0]], pd.Index(list(ids)))
        order = wanted[names[0]].tolist()
    by_id = dict(zip(ids, texts, strict=True))
    return pd.DataFrame({names[0]: order, names[1]: [by_id[row_id] for row_id in order]})


def write_texts(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table of texts, whole or not at all: every cell in quotes, since a text may hold
    anything, and read back before it counts.

    Raises:
        SubmissionError: a row is read back as another.
        ArtifactError: the disk is full or not writable; ``path`` is as it was.
    """
    with replacing(path) as temporary:
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
        temporary.write_text(text, encoding="utf-8", newline="")
        read = read_back(temporary) if len(frame) else []
        none: list[str] = []
        pairs = zip_longest(frame.to_numpy().tolist(), read, fillvalue=none)
        wrong = [(one or other)[0] for one, other in pairs if one != other]
        if wrong:
            raise SubmissionError(
                f"{path}: the text of {wrong[0]!r} cannot be kept in a CSV file: it is read back "
                f"as another one ({len(wrong)} such rows)."
            )


def read_back(path: Path) -> list[list[str]]:
    """The rows of a table of texts."""
    rows: list[list[str]] = read_cells(path, columns=()).to_numpy().tolist()
    return rows


def remove_leftovers(path: Path) -> None:
    """Removes the temporary files of a session that was killed while it wrote ``path``."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*"):
        leftover.unlink(missing_ok=True)


def read_sample(sample: Path) -> pd.DataFrame:
    """The sample, all cells as text; its first column holds the ids."""
    header = read_header(sample)
    return read_table(sample, columns=header, id_column=header[0])


def read_header(path: Path) -> list[str]:
    """The column names of a CSV file. Raises SubmissionError when there is no such file."""
    try:
        return list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise SubmissionError(
            f"{path} is missing or empty; it says which ids and columns to hand "
            "in. Attach the competition's data."
        ) from None


def compare_ids(sample: Path, wanted: pd.Series, found: pd.Index) -> None:
    """Raises SubmissionError unless both are the same ids, in any order."""
    there, asked = set(found), set(wanted)
    missing = [value for value in wanted if value not in there]
    extra = [value for value in found if value not in asked]
    if missing or extra:
        raise SubmissionError(
            f"the ids differ from those of {sample}: {len(missing)} missing "
            f"({', '.join(missing[:SHOWN])}), {len(extra)} not asked for "
            f"({', '.join(extra[:SHOWN])}). Are test.csv and the sample of one competition?"
        )
