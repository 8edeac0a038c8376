"""Rows of text files, cell by cell as they stand there: JSON lines and tab separated values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.errors import DataError
from kernel_lib.text.tables import listed, not_utf8


@dataclass
class Rows:
    """Rows as they come from a file.

    Attributes:
        places: where each stands, for messages: ``line 7``.
        rows: column to cell.
        note: for messages, a word on how the file was read; empty or begins with a space.
    """

    places: list[str] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    note: str = ""


def read_utf8(path: Path) -> str:
    """A text file without its byte order mark, line ends as they are.

    Raises:
        DataError: the file is missing or not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(not_utf8(path, error)) from None
    except FileNotFoundError:
        raise DataError(f"{path} does not exist.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


def read_json_lines(path: Path, text: str, *, text_columns: Sequence[str]) -> Rows:
    """The rows of :func:`read_objects` as text: values that are none are kept as JSON, null as the
    empty text.

    Args:
        path: for messages.
        text: the file's content.
        text_columns: names whose values must be text.

    Raises:
        DataError: a line is no JSON object, or a value of these columns is no text.
    """
    table = Rows()
    not_text = []
    for place, row in read_objects(path, text):
        for name in text_columns:
            if not isinstance(row.get(name, ""), str):
                not_text.append(f"{place}: {name} is {json.dumps(row[name])[:40]}")
        table.places.append(place)
        table.rows.append({key: _as_text(value) for key, value in row.items()})
    if not_text:
        raise DataError(f"{path}: {listed(not_text)}. These must be text, in quotes.")
    return table


def read_objects(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The JSON object of each line, and its place; empty lines are skipped.

    Only a line feed ends a line: a JSON string may hold U+2028 and the like.

    Args:
        path: for messages.
        text: the file's content.

    Raises:
        DataError: a line is no JSON object.
    """
    rows, broken = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            rows.append((f"line {number}", row))
        else:
            broken.append(number)
    if broken:
        array = " The file is one JSON array: write its objects one a line." * (
            text.lstrip()[:1] == "["
        )
        raise DataError(f"{path}: line {listed(broken)} is not a JSON object.{array}")
    return rows


def read_tab_separated(
    path: Path, text: str, *, known: str, headless: Sequence[Sequence[str]], id_column: str
) -> Rows:
    """Cells between tabs, without quoting. A first line that holds a known name is a header.

    Empty lines are skipped where there is more than one column.

    Args:
        path: for messages.
        text: the file's content.
        known: the name that tells a header.
        headless: what columns are called without a header; the entry of the right length counts.
        id_column: made from the line numbers where the columns without a header lack it.

    Raises:
        DataError: the number of cells is not the same in all lines, or none that can be named.
    """
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    if lines[-1] == "":
        lines.pop()  # the end of the last line, not a line
    header = lines[0].split("\t")
    table = Rows()
    begin = 1
    if known not in header:
        fitting = [names for names in headless if len(names) == len(header)]
        if not fitting:
            forms = "; ".join(", ".join(names) for names in headless)
            raise DataError(
                f"{path}: line 1 has {len(header)} columns, none of them called {known!r}. "
                f"Put a header above the lines, or keep only these columns: {forms}."
            )
        table.note = (
            f" Line 1 was read as a row, since it does not hold {known!r}; if it is a "
            "header, say what the columns are called."
        )
        header, begin = list(fitting[0]), 0
    elif len(set(header)) != len(header):
        raise DataError(f"{path}: a column's name comes twice in the header {header}.")
    wrong = []
    for number, line in enumerate(lines[begin:], start=begin + 1):
        cells = line.split("\t")
        if line == "" and len(header) > 1:
            continue
        if len(cells) != len(header):
            wrong.append(f"line {number} ({len(cells)})")
            continue
        row = dict(zip(header, cells, strict=True))
        table.places.append(f"line {number}")
        table.rows.append(row if begin or id_column in row else {id_column: str(number), **row})
    if wrong:
        raise DataError(
            f"{path}: {len(header)} columns are expected, {listed(wrong)} has another number. "
            "A text must not hold a tab." + table.note
        )
    return table


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
