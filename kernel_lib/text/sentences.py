"""Reading the sentences of Chinese spelling correction: JSON lines, CSV, TSV, SIGHAN's files.

Texts stay as they stand in the file, code point by code point: nothing is trimmed or normalised,
since a correction is a position.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.text import sighan
from kernel_lib.text.rows import Rows, read_json_lines, read_tab_separated, read_utf8
from kernel_lib.text.tables import SHOWN, listed, read_table

HALF_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Frequent characters that are written differently, at the same place in both lines. Only such as
# belong to one script: neither form is in everyday use in the other.
TRADITIONAL = (
    "這個們來說時會學國對過還沒為開關東車馬門問間見現點種實經給讓話語請誰認識書長張樣頭體應當動"
)
SIMPLIFIED = (
    "这个们来说时会学国对过还没为开关东车马门问间见现点种实经给让话语请谁认识书长张样头体应当动"
)
TRADITIONAL_SHARE = 0.2
FEWEST_TRADITIONAL = 3


@dataclass(frozen=True)
class _Names:
    """What the columns are called."""

    id: str
    source: str
    target: str


def read_sentences(
    path: Path,
    *,
    id_column: str = "id",
    source_column: str = "source",
    target_column: str = "target",
    needs_target: bool,
) -> pd.DataFrame:
    """Reads sentences with their corrections, every cell as text exactly as it stands in the file.

    The suffix says how:

    - ``.jsonl``, ``.json``: one object a line; values of other columns that are no text are kept
      as JSON.
    - ``.csv``: with a header.
    - ``.tsv``: cells between tabs, without quoting. A first line that holds the source column's
      name is a header. Without one, three columns are id, source and target; two are source and
      target, one is the source, and the line number is the id.
    - ``.txt``, ``.sgml``: the official files of SIGHAN (see ``sighan.py``): test input with the
      truth file beside it, or training SGML.

    Empty lines are no rows (in a TSV of one column they are empty sentences), a byte order mark and
    the lines' own ends belong to no text, and a source may be empty.

    Args:
        path: a UTF-8 file.
        id_column: must be filled and unique.
        source_column: the text as it was written.
        target_column: the text as it should be, of the same length; checked wherever it is there.
        needs_target: whether the target must be there.

    Returns:
        Columns ``id_column``, ``source_column``, ``target_column`` if the file has one, then the
        file's others.

    Raises:
        DataError: the file cannot be read; a column is missing; a value is no text, or holds half
            a surrogate; an id is empty or comes twice; source and target differ in length.
    """
    names = _Names(id_column, source_column, target_column)
    if path.suffix.lower() == ".csv":
        wanted = (source_column, target_column) if needs_target else (source_column,)
        frame = read_table(path, columns=wanted, id_column=id_column)
        table = Rows([f"data row {row}" for row in range(1, len(frame) + 1)])
    else:
        table = _read_rows(path, names, needs_target)
        _check_columns(path, table, names, needs_target)
        _check_texts(path, table, names)
        keys = dict.fromkeys(key for row in table.rows for key in row)
        frame = pd.DataFrame({key: [row.get(key, "") for row in table.rows] for key in keys})
    first = [name for name in (id_column, source_column, target_column) if name in frame.columns]
    frame = frame[[*first, *(name for name in frame.columns if name not in first)]]
    if target_column in frame.columns:
        _check_lengths(path, frame, table, names)
    return frame


def warn_if_traditional(texts: Iterable[str], *, where: str) -> None:
    """Warns when texts are traditional Chinese; models and vocabularies here are mostly simplified.

    The rule: of about fifty frequent characters that the scripts write differently, count both
    forms. At least 3 traditional ones, making up at least a fifth of both, is "traditional".

    Args:
        texts: sentences.
        where: what they are, for the message.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    traditional = sum(counts[character] for character in TRADITIONAL)
    both = traditional + sum(counts[character] for character in SIMPLIFIED)
    if traditional >= FEWEST_TRADITIONAL and traditional >= TRADITIONAL_SHARE * both:
        warnings.warn(
            f"{where} looks like traditional Chinese: of {both} characters that differ between the "
            f"scripts {traditional} are traditional. A model trained on simplified text will "
            "leave or spoil them: convert the text first, or train on traditional text.",
            stacklevel=2,
        )


def _read_rows(path: Path, names: _Names, needs_target: bool) -> Rows:
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json", ".tsv", ".txt", ".sgml"):
        raise DataError(
            f"{path}: sentences are read from .jsonl, .json, .csv, .tsv, .txt and .sgml files, "
            f"not from {suffix or 'files without a suffix'}. Convert or rename it."
        )
    text = read_utf8(path)
    if not text.strip():
        raise DataError(f"{path} is empty.")
    columns = [names.id, names.source, names.target]
    if suffix in (".jsonl", ".json"):
        return read_json_lines(path, text, text_columns=columns)
    if suffix == ".tsv":
        headless = (columns, columns[1:], columns[1:2])
        return read_tab_separated(
            path, text, known=names.source, headless=headless, id_column=names.id
        )
    return _from_sighan(path, text, names, needs_target)


def _from_sighan(path: Path, text: str, names: _Names, needs_target: bool) -> Rows:
    if sighan.looks_like_essays(text):
        sentences = sighan.read_essays(path, text)
    elif sighan.looks_like_input(text):
        sentences = sighan.read_input(path, text)
        truth_path = sighan.find_truth(path)
        truth = sighan.read_truth(truth_path, read_utf8(truth_path)) if truth_path else None
        if truth_path and truth is not None:
            sentences = sighan.apply_truth(sentences, truth, truth_path)
        elif needs_target and truth_path:
            raise DataError(
                f"{truth_path} has positions only, as that of 2013's sub-task 1 does: they say "
                "where errors are, not what is right. Take the files of sub-task 2."
            )
        elif needs_target:
            raise DataError(
                f"{path} has no truth file beside it, so there are no targets. Put it there as "
                f"{path.stem}.truth.txt."
            )
    else:
        raise DataError(
            f"{path} is no SIGHAN file: it begins neither with (pid=...) nor with <ESSAY> or <DOC>."
            " Other files must be .jsonl, .csv or .tsv."
        )
    table = Rows()
    for one in sentences:
        row = {names.id: one.id, names.source: one.source}
        table.places.append(f"line {one.line}")
        table.rows.append(row if one.target is None else {**row, names.target: one.target})
    return table


def _check_columns(path: Path, table: Rows, names: _Names, needs_target: bool) -> None:
    if not table.rows:
        raise DataError(f"{path} holds no sentences.")
    needed = [names.id, names.source]
    if needs_target or any(names.target in row for row in table.rows):
        needed.append(names.target)
    for name in needed:
        places = [
            place for place, row in zip(table.places, table.rows, strict=True) if name not in row
        ]
        if places:
            where = "" if len(places) == len(table.rows) else f" in {listed(places)}"
            raise DataError(
                f"{path} has no column {name!r}{where}; "
                f"it has {', '.join(map(repr, table.rows[0]))}.{table.note}"
            )


def _check_texts(path: Path, table: Rows, names: _Names) -> None:
    halves, empty = [], []
    seen: dict[str, list[str]] = {}
    for place, row in zip(table.places, table.rows, strict=True):
        for name, value in row.items():
            if half := HALF_SURROGATE.search(value):
                at = f"{place}, {name}, character {half.start() + 1}"
                halves.append(f"{at} (U+{ord(half[0]):04X})")
        if not row[names.id].strip():
            empty.append(place)
        seen.setdefault(row[names.id], []).append(place)
    if halves:
        raise DataError(
            f"{path}: half of a surrogate pair, which is no character: {listed(halves)}. "
            "Write the whole character, or drop the half."
        )
    if empty:
        raise DataError(f"{path}: empty {names.id} in {listed(empty)}. Fill it.")
    twice = [f"{name} ({listed(places)})" for name, places in seen.items() if len(places) > 1]
    if twice:
        raise DataError(f"{path}: {names.id} comes more than once: {listed(twice)}.{table.note}")


def _check_lengths(path: Path, frame: pd.DataFrame, table: Rows, names: _Names) -> None:
    sources, targets = frame[names.source].str.len(), frame[names.target].str.len()
    wrong: Sequence[int] = (sources != targets).to_numpy().nonzero()[0].tolist()
    if wrong:
        found = [
            f"{frame[names.id].iloc[row]} ({table.places[row]}: {sources.iloc[row]} and "
            f"{targets.iloc[row]} characters)"
            for row in wrong[: SHOWN + 1]
        ]
        shown = "; ".join(found[:SHOWN]) + ("; ..." if len(wrong) > SHOWN else "")
        raise DataError(
            f"{path}: {names.source} and {names.target} differ in length in {len(wrong)} rows: "
            f"{shown}. Spelling correction replaces characters, one for one: drop these rows."
            + table.note
        )
