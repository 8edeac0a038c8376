"""Tagged texts in columns, as CoNLL's shared tasks wrote them: a word a line, its tag at the end.

    EU NNP B-NP B-ORG
    rejects VBZ B-VP O

Cells stand between tabs where the lines hold tabs, otherwise between blanks. A sentence ends at a
line that is empty or holds only blanks or tabs (WNUT17 writes a lone tab), and at ``-DOCSTART-``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_lib.errors import DataError
from kernel_lib.text.documents import Document
from kernel_lib.text.tables import listed

DOCUMENT_START = "-DOCSTART-"
TAG = re.compile(r"O|[A-Z]-.+")


@dataclass(frozen=True)
class _Line:
    number: int
    text: str
    cells: list[str]


def read_conll(path: Path, text: str) -> list[Document]:
    """The sentences of a file in columns; the first holds the words, the last the tags.

    Sentences get their number, from 1, as id. With one column there are no tags. A line that
    begins with ``#`` and a blank is a comment, unless it has as many cells as the others and ends
    with a tag: then it is the word ``#``.

    Args:
        path: for messages.
        text: the file's content.

    Raises:
        DataError: lines differ in their number of columns (a word without tag, a tag without
            word), or a word or a tag is empty.
    """
    groups = _groups(text)
    usual = _usual_width([line for group in groups for line in group])
    documents: list[Document] = []
    wrong: list[_Line] = []
    for group in groups:
        lines = [line for line in group if not _is_comment(line, usual)]
        wrong += [line for line in lines if len(line.cells) != usual or not _is_filled(line)]
        if lines:
            tags = [line.cells[-1] for line in lines] if usual > 1 else None
            number = str(len(documents) + 1)
            tokens = [line.cells[0] for line in lines]
            documents.append(Document(f"line {lines[0].number}", number, tokens, tags))
    if wrong:
        raise DataError(
            f"{path}: most lines have {usual} columns, a word first and its tag last. Not so "
            f"{listed([_described(line, usual) for line in wrong])}. Give each word its tag, and "
            "put an empty line between sentences."
        )
    return documents


def _groups(text: str) -> list[list[_Line]]:
    """Lines of one sentence each, without the lines that separate them."""
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    content = [line for line in lines if line.strip(" \t")]
    tabs = sum("\t" in line for line in content) * 2 > len(content)
    groups: list[list[_Line]] = [[]]
    for number, line in enumerate(lines, start=1):
        if not line.strip(" \t") or line.startswith(DOCUMENT_START):
            groups.append([])
        else:
            cells = line.split("\t") if tabs else re.split("[ \t]+", line.strip(" \t"))
            groups[-1].append(_Line(number, line, cells))
    return groups


def _usual_width(lines: Sequence[_Line]) -> int:
    widths = Counter(len(line.cells) for line in lines if not line.text.startswith("# "))
    return widths.most_common(1)[0][0] if widths else 1


def _is_comment(line: _Line, usual: int) -> bool:
    if not line.text.startswith(("# ", "#\t")):
        return False
    return len(line.cells) != usual or (usual > 1 and not TAG.fullmatch(line.cells[-1]))


def _is_filled(line: _Line) -> bool:
    return line.cells[0] != "" and line.cells[-1].strip() != ""


def _described(line: _Line, usual: int) -> str:
    what = f"{len(line.cells)} columns" if len(line.cells) != usual else "an empty cell"
    return f"line {line.number} ({what}: {line.text[:30]!r})"
