"""What every format of tagged texts is read into, and what must hold of it in all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.errors import DataError
from kernel_lib.text.sentences import HALF_SURROGATE
from kernel_lib.text.tables import listed


@dataclass(frozen=True)
class Document:
    """One text of a file.

    Attributes:
        place: where it stands, for messages: ``line 7``.
        id: of the text.
        tokens: its words as they are: blanks, line breaks and empty ones are words too.
        tags: one of each word, as the file has them; None where it has none.
        others: its values in the file's other columns.
    """

    place: str
    id: str
    tokens: list[str]
    tags: list[str] | None
    others: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.id} ({self.place})"


def check_documents(path: Path, documents: Sequence[Document], *, needs_tags: bool) -> None:
    """Ids are filled and unique, texts are characters, and each word has a tag or none has.

    Raises:
        DataError: it is not so; ids and places are named.
    """
    if not documents:
        raise DataError(f"{path} holds no texts.")
    halves = [place for one in documents for place in _halves(one)]
    if halves:
        raise DataError(
            f"{path}: half of a surrogate pair, which is no character: {listed(halves)}. "
            "Write the whole character, or drop the half."
        )
    empty = [one.place for one in documents if not one.id.strip()]
    if empty:
        raise DataError(f"{path}: empty id in {listed(empty)}. Fill it.")
    places: dict[str, list[str]] = {}
    for one in documents:
        places.setdefault(one.id, []).append(one.place)
    twice = [f"{name} ({listed(found)})" for name, found in places.items() if len(found) > 1]
    if twice:
        raise DataError(f"{path}: an id comes more than once: {listed(twice)}.")
    if needs_tags or any(one.tags is not None for one in documents):
        _check_tags(path, documents)


def _check_tags(path: Path, documents: Sequence[Document]) -> None:
    without = [str(one) for one in documents if one.tags is None]
    if without:
        which = "" if len(without) == len(documents) else f" for {listed(without)}"
        raise DataError(
            f"{path} has no tags{which}. To learn from it, or to score on it, every text needs "
            "them: drop these, or check what the column of the tags is called."
        )
    wrong = [_uneven(one) for one in documents if len(one.tags or ()) != len(one.tokens)]
    if wrong:
        raise DataError(f"{path}: every word needs one tag: {listed(wrong)}. Mend these texts.")


def _uneven(one: Document) -> str:
    tags = one.tags or []
    first = min(len(one.tokens), len(tags))
    if first < len(one.tokens):
        what = f"no tag for word {first + 1}, {one.tokens[first][:20]!r}"
    else:
        what = f"no word for tag {first + 1}, {tags[first][:20]!r}"
    return f"{one} has {len(one.tokens)} words and {len(tags)} tags ({what})"


def _halves(one: Document) -> Iterable[str]:
    """Where in a text, its id, tags or other columns there is half a surrogate."""
    columns = {"id": [one.id], "word": one.tokens, "tag": one.tags or [], **one.others}
    for name, value in columns.items():
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            continue
        if not HALF_SURROGATE.search("".join(texts)):
            continue
        for number, text in enumerate(texts, start=1):
            if half := HALF_SURROGATE.search(text):
                which = f"{name} {number}" if isinstance(value, list) and name != "id" else name
                code = f"U+{ord(half[0]):04X}"
                yield f"{one.place}, {which}, character {half.start() + 1} ({code})"
