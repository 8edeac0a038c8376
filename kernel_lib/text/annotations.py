"""Spans of characters in texts of their own files, as in Kaggle's Feedback 2021.

A table has one row a span: the text's id, the first character and the one behind the last, and the
type. The texts are the ``ID.txt`` files of a folder called as the table: ``train.csv``, ``train/``.
Words are what stands between blanks, as that competition counts them.
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.metrics.tags import Span, write_tags
from kernel_lib.text.documents import Document
from kernel_lib.text.rows import read_utf8
from kernel_lib.text.tables import listed, read_cells

ID, START, END, TYPE = "id", "discourse_start", "discourse_end", "discourse_type"
WORDS = "predictionstring"  # the numbers of the span's words: what the competition scores


def has_annotations(header: str) -> bool:
    """Whether a CSV file with this first line is a table of spans."""
    cells = {cell.strip(' "\r') for cell in header.split(",")}
    return {ID, START, END, TYPE} <= cells


def read_plain_texts(folder: Path) -> list[Document]:
    """The ``.txt`` files of a folder by name, split at blanks; without tags.

    Raises:
        DataError: there is none, or one is not UTF-8.
    """
    documents = []
    for path in sorted(folder.glob("*.txt")):
        text = re.sub(r"\r\n?", "\n", read_utf8(path))
        place = f"{folder.name}/{path.name}"
        documents.append(Document(place, path.stem, text.split(), None, {"text": text}))
    if not documents:
        raise DataError(f"{folder} holds no .txt files.")
    return documents


def read_annotations(path: Path) -> list[Document]:
    """The texts of the folder beside a table of spans, with the spans as tags in BIO.

    The table's own word numbers count where it has them, else every word of which a span holds a
    character. A word of two spans goes to the one that begins first, or is longer, with a warning.
    A text without spans has only O.

    Raises:
        DataError: the folder or a text is missing; a span lies outside of its text, or has no word.
    """
    frame = read_cells(path, columns=(ID, START, END, TYPE))
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise DataError(
            f"{path} has spans of characters, but the texts are missing: put the .txt files, "
            f"called by their ids, into {folder}."
        )
    documents = read_plain_texts(folder)
    missing = sorted(set(frame[ID]) - {one.id for one in documents})
    if missing:
        raise DataError(f"{folder} has no text of {listed(missing)}, which {path.name} names.")
    spans = _spans(path, frame, {one.id: one for one in documents})
    shared: list[str] = []
    tagged = []
    for one in documents:
        flat = _flat(spans[one.id])
        if flat != sorted(spans[one.id], key=_begin):
            shared.append(one.id)
        tags = write_tags(flat, len(one.tokens), scheme="BIO")
        tagged.append(Document(one.place, one.id, one.tokens, tags, one.others))
    if shared:
        warnings.warn(
            f"{path}: spans share words in {len(shared)} texts: {listed(shared)}. A word has one "
            "tag: each goes to the span that begins first.",
            stacklevel=5,
        )
    return tagged


def _spans(
    path: Path, frame: pd.DataFrame, texts: dict[str, Document]
) -> defaultdict[str, list[Span]]:
    """The spans of each text, in words."""
    places = {
        name: [found.span() for found in re.finditer(r"\S+", texts[name].others["text"])]
        for name in frame[ID].unique()
    }
    words = frame[WORDS] if WORDS in frame else [""] * len(frame)
    rows = zip(frame[ID], frame[START], frame[END], frame[TYPE], words, strict=True)
    spans: defaultdict[str, list[Span]] = defaultdict(list)
    wrong = []
    for row, (name, start, end, kind, numbers) in enumerate(rows, start=1):
        found = (
            _numbered(numbers, len(places[name]))
            if numbers.strip()
            else _covered(start, end, places[name])
        )
        if found is None or not kind.strip():
            what = numbers[:30] if numbers.strip() else f"{start} to {end}"
            wrong.append(f"data row {row} ({name}: {kind!r}, {what})")
        else:
            spans[name].append(Span(kind.strip(), *found))
    if wrong:
        raise DataError(
            f"{path}: no type, or no words of the text at that place: {listed(wrong)}. "
            "Mend or drop these rows."
        )
    return spans


def _numbered(numbers: str, count: int) -> tuple[int, int] | None:
    """The words of ``7 8 9``; None unless they follow each other and are in the text."""
    cells = numbers.split()
    if not all(cell.isdecimal() for cell in cells):
        return None
    start, end = int(cells[0]), int(cells[-1]) + 1
    return (start, end) if [*map(int, cells)] == [*range(start, end)] and end <= count else None


def _covered(start: str, end: str, places: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """The words with a character in ``[start, end)``; None without any."""
    try:
        begin, stop = float(start), float(end)  # the competition writes 8.0
    except ValueError:
        return None
    inside = [
        number for number, (first, last) in enumerate(places) if first < stop and last > begin
    ]
    return (inside[0], inside[-1] + 1) if inside else None


def _begin(span: Span) -> tuple[int, int]:
    return span.start, -span.end


def _flat(spans: Sequence[Span]) -> list[Span]:
    """The spans in order, those that share words cut or dropped."""
    flat: list[Span] = []
    behind = 0
    for span in sorted(spans, key=_begin):
        if span.end > behind:
            flat.append(Span(span.type, max(span.start, behind), span.end))
            behind = span.end
    return flat
