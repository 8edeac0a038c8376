"""What a notebook hands in, looked at as the competition does: the sample says what it wants."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from kernel_lib.offline.rehearsal.checks import Check, shown
from kernel_lib.offline.rehearsal.hidden import SAMPLE, text_columns

SUBMISSION = "submission.csv"


def check_submission(
    working: Path, sample: Path, train: Path, *, test: Path | None = None
) -> list[Check]:
    """What the competition asks of the file handed in.

    Args:
        working: where the notebook left it.
        sample: the ``sample_submission.csv`` of the test that was predicted.
        train: the competition's ``train.csv``, for the values' range; it need not be there.
        test: the ``test.csv`` that was predicted, for what its texts ask of an answer.
    """
    path = working / SUBMISSION
    if path.is_symlink() or not path.is_file():
        there = sorted(p.name for p in working.iterdir()) or ["nothing"]
        detail = "it is a link" if path.is_symlink() else f"in /kaggle/working: {shown(there)}"
        cure = f'write the file itself, in the folder where the notebook starts: "{SUBMISSION}"'
        return [Check(f"{SUBMISSION} is there", detail, cure)]
    wanted = _read(sample)
    try:
        found = _read(path)
    except ValueError as error:  # of pandas, and of the encoding
        return [Check(f"{SUBMISSION} is CSV", str(error), "write it with pandas: to_csv(...)")]
    columns = Check(
        "columns as in the sample",
        "" if list(found) == list(wanted) else f"{_named(found)} instead of {_named(wanted)}",
        f"keep the columns of {SAMPLE}, and write with index=False",
    )
    if not columns.passed:
        return [columns]
    first, *values = wanted.columns
    known = _read(train) if train.is_file() else None
    texts = _read_texts(test, known, found[first], answers=values) if test is not None else None
    return [
        columns,
        *_check_ids(found[first], wanted[first]),
        *_check_values(found, wanted, first, values, known, texts),
        *_check_lengths(found, first, values, known, texts),
    ]


def _read(path: Path) -> pd.DataFrame:
    """All of a CSV file as text, as it stands. The header is read as a row, so that rows longer
    than it are an error, and not taken for rows with an index."""
    rows = pd.read_csv(
        path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig", low_memory=False
    ).fillna("")
    frame = rows[1:].reset_index(drop=True)
    frame.columns = pd.Index(rows.iloc[0])
    return frame


def _read_texts(
    test: Path, train: pd.DataFrame | None, ids: pd.Series, *, answers: list[str]
) -> pd.DataFrame:
    """The test's columns of free text, in the order of some ids; missing where an id is unknown."""
    frame = _read(test).drop(columns=answers, errors="ignore")
    if ids.name not in frame:
        return pd.DataFrame(index=ids.index)
    first = str(ids.name)
    pool = frame if train is None or not set(frame) <= set(train) else train[list(frame)]
    texts = frame.drop_duplicates(first).set_index(first)[text_columns(pool, first)]
    return texts.reindex(ids).reset_index(drop=True)


def _named(frame: pd.DataFrame) -> str:
    return ", ".join(name or "(no name)" for name in frame.columns)


def _check_ids(found: pd.Series, wanted: pd.Series) -> Iterable[Check]:
    yield Check(
        "a row for every id",
        "" if len(found) == len(wanted) else f"{len(found)} rows instead of {len(wanted)}",
        "predict every row of test.csv as it is found, with drop_last=False; store no rows or ids",
    )
    missing = wanted[~wanted.isin(found)].tolist()
    extra = found[~found.isin(wanted)].tolist()
    twice = found[found.duplicated() & ~found.isin(wanted[wanted.duplicated()])].tolist()
    parts = [
        f"{len(missing)} missing ({_quoted(missing)})" if missing else "",
        f"{len(extra)} unknown ({_quoted(extra)})" if extra else "",
        f"{len(twice)} more than once ({_quoted(twice)})" if twice else "",
    ]
    yield Check(
        "the ids of this test, each once",
        ", ".join(part for part in parts if part),
        "take the ids from this run's test.csv, read as text: dtype=str",
    )
    moved = found.tolist() != wanted.tolist() and sorted(found) == sorted(wanted)
    yield Check(
        "in the sample's order",
        "the rows are in another order" if moved else "",
        f"merge the answers onto the ids of {SAMPLE}",
    )


def _quoted(values: list[str]) -> str:
    """Blanks around an id, or an empty one, must be seen."""
    return shown(value if value and value == value.strip() else repr(value) for value in values)


def _check_values(
    found: pd.DataFrame,
    sample: pd.DataFrame,
    first: str,
    values: list[str],
    train: pd.DataFrame | None,
    texts: pd.DataFrame | None,
) -> Iterable[Check]:
    """Numbers must be numbers; a text may be any, but for an empty one: Kaggle reads a null. It may
    be empty where the row's own text is, and anywhere if the sample has it so elsewhere."""
    without = pd.Series(False, index=found.index)
    if texts is not None and len(texts.columns):
        without = (texts.fillna("x").map(str.strip) == "").any(axis=1)
    may_be = set(found[first][without])
    empty, wrong, ranges = [], [], 0
    for name in values:
        if not _are_numbers(sample[name], train, name):
            anywhere = ((sample[name] == "") & ~sample[first].isin(may_be)).any()
            bad = np.flatnonzero((found[name] == "") & ~without & (not anywhere))
            empty += [f"{name} of {found[first][row]}" for row in bad]
            continue
        numbers = pd.to_numeric(found[name], errors="coerce").astype(float)
        finite = np.isfinite(numbers)
        for row in np.flatnonzero(~finite):
            text = found[name][row]
            empty.append(f"{name} of {found[first][row]}" + (f" = {text}" if text.strip() else ""))
        if span := _span(train, name):
            ranges += 1
            outside = finite & ((numbers < span[0]) | (numbers > span[1]))
            wrong += [
                f"{name} of {found[first][row]} = {found[name][row]}"
                for row in np.flatnonzero(outside)
            ]
    yield Check(
        "no value empty or infinite",
        shown(empty),
        "look for texts that are empty or very long, and for a loss that overflows",
    )
    if ranges:
        yield Check(
            "values near those of the training data",
            shown(wrong),
            "look for a scaling that was not undone, and clip to the scale",
        )


def _check_lengths(
    found: pd.DataFrame,
    first: str,
    values: list[str],
    train: pd.DataFrame | None,
    texts: pd.DataFrame | None,
) -> Iterable[Check]:
    """Where every answer in train is as long as its text, of whatever length that is, an answer of
    another length has shifted its characters; or, where it is a tag for each word, its words."""
    if texts is None or train is None:
        return
    for text, name in itertools.product(texts.columns, values):
        unit = next((unit for unit in UNITS if _keeps_length(train, text, name, unit)), None)
        if unit is None:
            continue
        count, cure = UNITS[unit]
        pairs = zip(found[first], found[name], texts[text], strict=True)
        wrong = [
            f"{name} of {row_id} has {count(answer)} {unit}, its {text} {count(given)}"
            for row_id, answer, given in pairs
            if isinstance(given, str) and count(answer) != count(given)
        ]
        yield Check(f"as many {unit} in {name} as in {text}", shown(wrong), cure)


def _count_words(text: str) -> int:
    return len(text.split())


# What an answer has as many of as its text, and what to do where it has not.
UNITS: dict[str, tuple[Callable[[str], int], str]] = {
    "characters": (
        len,
        "keep what cannot be read as it is: unknown characters, blanks, line breaks",
    ),
    "words": (
        _count_words,
        "give each word its tag, also one that the tokenizer makes nothing of or that was cut off",
    ),
}


def _keeps_length(train: pd.DataFrame, text: str, answer: str, unit: str) -> bool:
    if text not in train or answer not in train:
        return False
    count, _ = UNITS[unit]
    lengths = train[text].map(count)
    return bool((lengths == train[answer].map(count)).all() and lengths.nunique() > 1)


def _are_numbers(sample: pd.Series, train: pd.DataFrame | None, name: str) -> bool:
    """Whether a column holds numbers, by the sample and, where it has the column, by train."""
    columns = [sample] if train is None or name not in train else [sample, train[name]]
    there = [column[column != ""] for column in columns]
    return all(pd.to_numeric(column, errors="coerce").notna().all() for column in there) and any(
        len(column) for column in there
    )


def _span(train: pd.DataFrame | None, name: str) -> tuple[float, float] | None:
    """What a value may be: the training values' span, and as much again at both ends, since a
    model may well go a little beyond. None when train does not tell."""
    if train is None or name not in train:
        return None
    numbers = pd.to_numeric(train[name][train[name] != ""], errors="coerce")
    lowest, highest = float(numbers.min()), float(numbers.max())
    span = highest - lowest
    return (lowest - span, highest + span) if span > 0 else None
