"""The rows of a frame of tagged texts, checked and judged.

Such a frame has the columns ``id, tokens, predicted`` and, where known, ``tags`` and ``domain``;
tokens and both kinds of tags are lists, the tags BIO. They are read strictly, as the score does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.metrics.entity_errors import entity_errors
from kernel_lib.metrics.tags import Span, read_spans
from kernel_lib.text.characters import is_chinese

RIGHT, UNKNOWN = "right", "not judged"
MISSED, SPURIOUS, BOUNDARY, TYPE, BOTH = (
    "missed",
    "spurious",
    "boundary",
    "type",
    "boundary and type",
)
ERRORS = (MISSED, SPURIOUS, BOUNDARY, TYPE, BOTH)


@dataclass(frozen=True)
class Entity:
    """An entity, gold, predicted or both, as :mod:`kernel_lib.metrics.entity_errors` pairs them.

    Attributes:
        kind: ``"right"``, one of ``ERRORS``, or ``"not judged"`` where gold is not known.
        gold: None where spurious or not known.
        predicted: None where missed.
    """

    kind: str
    gold: Span | None
    predicted: Span | None

    @property
    def spans(self) -> list[Span]:
        """The one or two that there are."""
        return [span for span in (self.gold, self.predicted) if span is not None]

    @property
    def start(self) -> int:
        """The first word of either."""
        return min(span.start for span in self.spans)

    @property
    def end(self) -> int:
        """Behind the last word of either."""
        return max(span.end for span in self.spans)


@dataclass(frozen=True)
class Row:
    """A row of a frame of tagged texts.

    Attributes:
        id: as text.
        domain: empty where it is not known.
        tokens: the text's words.
        gold: its entities; None where they are not known.
        predicted: those that were named.
        entities: both, paired and judged, by position.
    """

    id: str
    domain: str
    tokens: list[str]
    gold: list[Span] | None
    predicted: list[Span]
    entities: list[Entity]

    @cached_property
    def between(self) -> str:
        """What stands between two words: nothing in Chinese with a word for each character."""
        chinese = sum(len(word) == 1 and is_chinese(word) for word in self.tokens)
        single = chinese > 0 and all(len(word) <= 1 for word in self.tokens)
        return "" if single or 2 * chinese > len(self.tokens) else " "

    @property
    def kinds(self) -> set[str]:
        """The kinds of its entities."""
        return {entity.kind for entity in self.entities}


def tagged_rows(frame: pd.DataFrame, *, judged: bool) -> Iterator[Row]:
    """The rows of a frame of tagged texts.

    Args:
        frame: columns id, tokens, predicted, and tags and domain where they are known.
        judged: whether every row must have tags to be judged by.

    Raises:
        DataError: a column or wanted tags are missing, a value is no list of texts, the lists of a
            row differ in length, or a tag is not BIO.
    """
    needed = ["id", "tokens", "predicted", *(["tags"] if judged else [])]
    if missing := [name for name in needed if name not in frame]:
        raise DataError(
            f"the tagged texts have no column {', '.join(map(repr, missing))}; they have "
            f"{', '.join(map(str, frame.columns))}."
        )
    nothing = [None] * len(frame)
    columns = (*(frame[name] for name in needed[:3]), frame.get("tags", nothing))
    for name, tokens, predicted, tags, domain in zip(
        *columns, frame.get("domain", nothing), strict=True
    ):
        words = _texts(name, "tokens", tokens)
        named = _spans(name, "predicted", predicted, len(words))
        gold = None if _is_missing(tags) else _spans(name, "tags", tags, len(words))
        if judged and gold is None:
            raise DataError(f"the tagged texts' row {name!r} has no tags to be judged by.")
        known = domain if isinstance(domain, str) else ""
        yield Row(str(name), known, words, gold, named, judge(gold, named))


def judge(gold: list[Span] | None, predicted: list[Span]) -> list[Entity]:
    """The entities of a text, paired and judged, by position."""
    if gold is None:
        return [Entity(UNKNOWN, None, span) for span in predicted]
    errors = [
        Entity(each.kind, each.gold, each.predicted) for each in entity_errors(gold, predicted)
    ]
    right = [Entity(RIGHT, span, span) for span in set(gold) & set(predicted)]
    return sorted(errors + right, key=lambda entity: (entity.start, entity.end))


def _spans(name: Any, column: str, value: Any, length: int) -> list[Span]:
    """The entities that the tags of a row stand for."""
    tags = _texts(name, column, value)
    if len(tags) != length:
        raise DataError(
            f"row {name!r} has {length:,} tokens and {len(tags):,} {column}: each token "
            "has one tag."
        )
    try:
        return read_spans(tags, strict=True)
    except DataError as error:
        raise DataError(f"row {name!r}, {column}, {error}") from None


def _texts(name: Any, column: str, value: Any) -> list[str]:
    if isinstance(value, str):
        raise DataError(
            f"the {column} of row {name!r} are text. Read them as lists, as "
            "kernel_lib.results.entities.read_tagged_oof does."
        )
    texts = [] if _is_missing(value) else list(value)
    if _is_missing(value) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"the {column} of row {name!r} are not a list of texts: {value!r:.80}.")
    return texts


def _is_missing(value: Any) -> bool:
    """None, NaN, a number: whatever holds no values."""
    return not hasattr(value, "__len__")
