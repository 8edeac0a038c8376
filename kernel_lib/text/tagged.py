"""Reading texts whose words are tagged: JSON lines, CSV, CoNLL's columns, character spans.

Words stay as they stand in the file, code point by code point; blanks, line breaks, zero-width
marks and empty ones are words too, since a tag belongs to a word by its place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.metrics.tag_faults import check_tags
from kernel_lib.metrics.tags import Scheme, check_scheme, convert_tags
from kernel_lib.text.annotations import has_annotations, read_annotations, read_plain_texts
from kernel_lib.text.conll import read_conll
from kernel_lib.text.documents import Document, check_documents
from kernel_lib.text.rows import read_objects, read_utf8
from kernel_lib.text.tables import listed, read_cells

COLUMNS = (".conll", ".txt", ".bio", ".iob")
SUFFIXES = (".jsonl", ".json", ".csv", *COLUMNS)


@dataclass(frozen=True)
class _Names:
    """What the columns are called."""

    id: str
    tokens: str
    tags: str


def read_tagged(
    path: Path,
    *,
    id_column: str = "id",
    tokens_column: str = "tokens",
    tags_column: str = "tags",
    needs_tags: bool,
    scheme: Scheme = "BIO",
) -> pd.DataFrame:
    """Reads texts as words, with their tags where they have any.

    The suffix says how:

    - ``.jsonl``: one object a line, its words and tags lists of texts. ``.json``: the same, or one
      list of such objects (Kaggle's PII: ``document``, ``tokens``, ``labels``).
    - ``.csv``: words and tags in cells, as JSON lists, or with blanks between them; most cells of
      a column tell which. An empty cell has no words.
    - ``.csv`` of character spans, with the texts in a folder of the same name beside it, as in
      Kaggle's Feedback 2021 (see ``annotations.py``); a folder itself: its ``.txt`` files, without
      tags.
    - ``.conll``, ``.txt``, ``.bio``, ``.iob``: a word a line, its tag last (see ``conll.py``).

    Args:
        path: UTF-8.
        id_column: must be filled and unique; text or whole numbers. Files in columns have none.
        tokens_column: the words.
        tags_column: one tag a word; checked wherever they are there.
        needs_tags: whether they must be there.
        scheme: how the file's tags are written.

    Returns:
        Columns ``id`` (text), ``tokens`` (list of texts), ``tags`` (list of texts, in BIO; only if
        the file has them), then the file's others under their own names, as they are. Another
        column that is called as one of these three is left out.

    Raises:
        DataError: the file cannot be read; a column is missing; an id is empty or comes twice; a
            value is no text, or holds half a surrogate; words and tags differ in number; a tag is
            unknown or cannot stand where it stands.
        SettingsError: the scheme is unknown.
    """
    check_scheme(scheme)
    names = _Names(id_column, tokens_column, tags_column)
    documents = _read(path, names, needs_tags)
    check_documents(path, documents, needs_tags=needs_tags)
    columns: dict[str, list[Any]] = {
        "id": [one.id for one in documents],
        "tokens": [one.tokens for one in documents],
    }
    tags = [one.tags for one in documents if one.tags is not None]
    if tags:
        columns["tags"] = _in_bio(path, documents, tags, scheme)
    for name in dict.fromkeys(name for one in documents for name in one.others):
        if name not in ("id", "tokens", "tags"):
            columns[name] = [one.others.get(name) for one in documents]
    return pd.DataFrame(columns)


def _in_bio(
    path: Path, documents: Sequence[Document], tags: Sequence[list[str]], scheme: Scheme
) -> list[list[str]]:
    try:
        check_tags(tags, scheme=scheme, ids=documents)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    if scheme == "BIO":
        return list(tags)
    return [convert_tags(each, from_scheme=scheme, to_scheme="BIO") for each in tags]


def _read(path: Path, names: _Names, needs_tags: bool) -> list[Document]:
    if path.is_dir():
        return read_plain_texts(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{path}: tagged texts are read from {', '.join(SUFFIXES)} files, "
            f"not from {suffix or 'files without a suffix'}. Convert or rename it."
        )
    text = read_utf8(path)
    if not text.strip():
        raise DataError(f"{path} is empty.")
    if suffix in COLUMNS:
        return read_conll(path, text)
    if suffix == ".csv":
        return _from_csv(path, text, names, needs_tags)
    if suffix == ".json" and text.lstrip()[:1] == "[":
        return _from_objects(path, _read_array(path, text), names, needs_tags)
    return _from_objects(path, read_objects(path, text), names, needs_tags)


def _read_array(path: Path, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON array, and their places."""
    try:
        items = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}. "
            "Copy it again."
        ) from None
    except RecursionError:
        raise DataError(f"{path} is not a list of texts: it is nested too deep.") from None
    wrong = [number for number, item in enumerate(items, 1) if not isinstance(item, dict)]
    if wrong:
        raise DataError(f"{path}: item {listed(wrong)} of the list is not a JSON object.")
    return [(f"item {number}", item) for number, item in enumerate(items, 1)]


def _from_objects(
    path: Path, rows: Sequence[tuple[str, dict[str, Any]]], names: _Names, needs_tags: bool
) -> list[Document]:
    _check_columns(path, rows, names, needs_tags)
    documents, wrong = [], []
    for place, row in rows:
        name, tokens, tags = row[names.id], row[names.tokens], row.get(names.tags)
        if isinstance(name, bool) or not isinstance(name, str | int):
            wrong.append(f"{place}: {names.id} is {_shown(name)}, not text or a whole number")
        wrong += _list_faults(place, names.tokens, tokens)
        if tags is not None:
            wrong += _list_faults(place, names.tags, tags)
        others = {key: value for key, value in row.items() if key not in vars(names).values()}
        documents.append(Document(place, str(name), tokens, tags, others))
    if wrong:
        raise DataError(f"{path}: {listed(wrong)}. Mend these values.")
    return documents


def _check_columns(
    path: Path, rows: Sequence[tuple[str, dict[str, Any]]], names: _Names, needs_tags: bool
) -> None:
    for name in (names.id, names.tokens, *([names.tags] if needs_tags else [])):
        places = [place for place, row in rows if name not in row]
        if places:
            where = "" if len(places) == len(rows) else f" in {listed(places)}"
            raise DataError(
                f"{path} has no column {name!r}{where}; it has {', '.join(map(repr, rows[0][1]))}."
            )


def _list_faults(place: str, name: str, values: Any) -> Iterable[str]:
    if not isinstance(values, list):
        yield f"{place}: {name} is {_shown(values)}, not a list of texts"
        return
    for number, value in enumerate(values, start=1):
        if not isinstance(value, str):
            yield f"{place}: {name} {number} is {_shown(value)}, not text"
            return  # the first tells enough of a list


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:40]


def _from_csv(path: Path, text: str, names: _Names, needs_tags: bool) -> list[Document]:
    if has_annotations(text.split("\n", 1)[0]):
        return read_annotations(path)
    wanted = (names.id, names.tokens, names.tags) if needs_tags else (names.id, names.tokens)
    frame = read_cells(path, columns=wanted)
    tokens = _lists(path, frame, names.tokens)
    tags: Sequence[list[str] | None] = [None] * len(frame)
    if names.tags in frame and (needs_tags or (frame[names.tags].str.strip() != "").any()):
        tags = _lists(path, frame, names.tags)
    others = [name for name in frame.columns if name not in vars(names).values()]
    return [
        Document(f"data row {row}", name, words, labels, dict(zip(others, rest, strict=True)))
        for row, (name, words, labels, rest) in enumerate(
            zip(frame[names.id], tokens, tags, frame[others].to_numpy().tolist(), strict=True), 1
        )
    ]


def _lists(path: Path, frame: pd.DataFrame, name: str) -> list[list[str]]:
    """The lists in a column's cells: JSON where most cells are in brackets, else by blanks."""
    cells = frame[name].str.strip().tolist()
    filled = [cell for cell in cells if cell]
    brackets = sum(cell[0] == "[" and cell[-1] == "]" for cell in filled)
    if brackets * 2 <= len(filled):
        return [cell.split() for cell in cells]
    lists, wrong = [], []
    for row, cell in enumerate(cells, start=1):
        try:
            values = json.loads(cell or "[]")
        except (ValueError, RecursionError):
            values = None
        if values is None:
            wrong.append(f"data row {row}: {name} is {cell[:40]}, not a JSON list")
        else:
            wrong += _list_faults(f"data row {row}", name, values)
        lists.append(values)
    if wrong:
        raise DataError(
            f"{path}: {listed(wrong)}. Write lists with json.dumps (pandas alone writes Python's, "
            "in single quotes), or put blanks between the words of all cells."
        )
    return lists
