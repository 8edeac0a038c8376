"""One text in pieces: words as they are shown, where entities overlap, excerpts of a long text."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from kernel_lib.metrics.tags import Span
from kernel_lib.results.entity_rows import Entity, Row
from kernel_lib.results.html import visible

# Texts of up to so many words are shown whole; of a longer one so many words on either side of an
# entity's ends. A Chinese character is less than a word.
WHOLE, CONTEXT = 100, 10
WHOLE_CHARACTERS, CONTEXT_CHARACTERS = 200, 20
PLACES = 30  # entities of one long text that are shown; a page stays a page
LONG_WORD = 60  # characters of a word that are shown


@dataclass(frozen=True)
class Place:
    """Where entities overlap one another: one, or a gold and a predicted one, seldom more.

    Attributes:
        start: its first word.
        end: behind its last one.
        entities: that are there, by position.
    """

    start: int
    end: int
    entities: tuple[Entity, ...]


@dataclass(frozen=True)
class Piece:
    """A word, or what is between two of them, as it is shown; in which place, box and underline."""

    text: str
    quiet: bool  # it stands for what cannot be seen or is left out
    place: int | None
    predicted: Span | None
    gold: Span | None

    @property
    def page(self) -> str:
        """As HTML."""
        text = html.escape(self.text)
        return f"<i>{text}</i>" if self.quiet else text


def places_of(entities: Sequence[Entity]) -> list[Place]:
    """The entities of a text, those that overlap together."""
    places: list[Place] = []
    for entity in sorted(entities, key=lambda entity: (entity.start, entity.end)):
        if places and entity.start < places[-1].end:
            last = places.pop()
            both = (*last.entities, entity)
            places.append(Place(last.start, max(last.end, entity.end), both))
        else:
            places.append(Place(entity.start, entity.end, (entity,)))
    return places


def pieces_of(row: Row, places: Sequence[Place], kinds: Collection[str]) -> Iterator[Piece]:
    """Words, what stands between two of them, and ``…`` where some are left out."""
    length = len(row.tokens)
    numbers: list[int | None] = [None] * length
    for index, place in enumerate(places):
        numbers[place.start : place.end] = [index] * (place.end - place.start)
    boxes, lines = (_by_word(spans, length) for spans in (row.predicted, row.gold or []))
    parts = [(0, length)]
    if _is_long(row):
        context = CONTEXT if row.between else CONTEXT_CHARACTERS
        parts = excerpts(length, places, in_focus(places, kinds)[:PLACES], context)
    before = -1
    for at in (at for part in parts for at in range(*part)):
        number, box, line = numbers[at], boxes[at], lines[at]
        if at:  # what is between two words is where both are
            known = before >= 0
            yield Piece(
                row.between if at == before + 1 else " … ",
                at != before + 1,
                number if known and numbers[before] == number else None,
                box if known and boxes[before] == box else None,
                line if known and lines[before] == line else None,
            )
        yield Piece(shown_word(row.tokens[at]), _is_unseen(row.tokens[at]), number, box, line)
        before = at
    if before < length - 1:
        yield Piece(" … ", True, None, None, None)


def _by_word(spans: Sequence[Span], length: int) -> list[Span | None]:
    found: list[Span | None] = [None] * length
    for span in spans:
        found[span.start : span.end] = [span] * (span.end - span.start)
    return found


def excerpts(
    length: int, places: Sequence[Place], focus: Sequence[Place], context: int
) -> list[tuple[int, int]]:
    """The parts of a long text that are shown, from the first word to before the last one.

    Args:
        length: of the text in words.
        places: all there are. One that an excerpt touches has its first and its last word shown.
        focus: those that the excerpts are about: both ends of each of their entities are shown.
        context: words on either side of an end.
    """
    ends = [end for place in focus for each in place.entities for s in each.spans for end in s[1:]]
    parts = _joined(
        [(max(0, end - context), min(length, end + context)) for end in ends]
        or [(0, min(length, 4 * context))]
    )
    touched = [
        place
        for place in places
        if any(place.start < end and start < place.end for start, end in parts)
    ]
    first = [(place.start, place.start + 1) for place in touched]
    last = [(place.end - 1, place.end) for place in touched]
    return _joined([*parts, *first, *last])


def _joined(parts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(parts):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def in_focus(places: Sequence[Place], kinds: Collection[str]) -> list[Place]:
    return [place for place in places if any(each.kind in kinds for each in place.entities)]


def left_out(places: Sequence[Place], row: Row, kinds: Collection[str]) -> str:
    more = len(in_focus(places, kinds)) - PLACES
    return f" (and {more:,} more)" if more > 0 and _is_long(row) else ""


def shown_word(word: str) -> str:
    """A word with what cannot be seen written out, and the end of a very long one left out."""
    if not word:
        return "∅"
    cut = word if len(word) <= LONG_WORD else f"{word[:LONG_WORD]}…"
    return "".join(map(visible, cut)) if word.isspace() else visible(cut)


def _is_unseen(word: str) -> bool:
    return not any(visible(character) == character for character in word)


def _is_long(row: Row) -> bool:
    return len(row.tokens) > (WHOLE if row.between else WHOLE_CHARACTERS)
