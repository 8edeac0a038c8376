"""One text with its entities as a person reads it: named how, rightly or not, what they should be.

A box is what was predicted, an underline what is gold. Nothing rests on colour alone: a label says
the type, and an error has a sign and words. No character of a text reaches the page unescaped, and
those that cannot be seen (control characters, blanks that are words) are written out.
"""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import groupby

from kernel_lib.metrics.tags import Span
from kernel_lib.results.entity_pieces import (
    Piece,
    Place,
    left_out,
    pieces_of,
    places_of,
    shown_word,
)
from kernel_lib.results.entity_rows import (
    BOTH,
    BOUNDARY,
    ERRORS,
    MISSED,
    RIGHT,
    SPURIOUS,
    TYPE,
    UNKNOWN,
    Entity,
    Row,
)
from kernel_lib.results.html import visible

SIGNS = {RIGHT: "✓", MISSED: "○", SPURIOUS: "▲", BOUNDARY: "↔", TYPE: "✗", BOTH: "✗↔", UNKNOWN: ""}
QUOTED = 40  # characters of an entity that a label repeats
HUES = (  # Okabe & Ito's, which colour-blind readers tell apart, and two more
    "0, 114, 178",
    "213, 94, 0",
    "0, 158, 115",
    "204, 121, 167",
    "86, 180, 233",
    "230, 159, 0",
    "120, 94, 240",
    "128, 128, 128",
)

# Tints over whatever the page is, with the page's own ink: right in light and dark.
STYLE = (
    """
.ner { line-height: 2; overflow-wrap: anywhere; unicode-bidi: isolate;
  font-family: system-ui, "Segoe UI", "Noto Sans", "Noto Sans CJK SC", "Noto Sans SC",
  "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
.ner mark { background: rgba(var(--hue), .22); color: inherit; border-radius: .2em;
  padding: .12em .2em; box-decoration-break: clone; -webkit-box-decoration-break: clone; }
.ner u { text-decoration: underline 2px rgb(var(--hue)); text-underline-offset: .28em; }
.ner b { display: inline-block; max-width: 100%; font-size: .75em; font-weight: 600;
  line-height: 1.35; padding: 0 .4em; margin: 0 .15em 0 .25em;
  border: 1px solid rgb(var(--hue)); border-radius: .6em; }
.ner .ner-error { border-color: #7a2e0b; background: #7a2e0b; color: #fff; }
.ner i { opacity: .6; font-style: normal; font-size: .85em; }
"""
    + "\n".join(f".ner-{number} {{ --hue: {hue}; }}" for number, hue in enumerate(HUES))
    + "\n"
)


def hues_of(types: Iterable[str]) -> dict[str, int]:
    """A number of a colour for each type, by alphabet; they repeat when the colours are used up."""
    return {name: number % len(HUES) for number, name in enumerate(sorted(set(types)))}


def text_html(row: Row, kinds: Collection[str], hues: Mapping[str, int]) -> str:
    """The text with its entities, as HTML; a long one in excerpts about some of them.

    Args:
        row: a text.
        kinds: of the entities that excerpts are about; none of them there: its beginning.
        hues: of :func:`hues_of`.
    """
    places = places_of(row.entities)
    parts = []
    for at, group in groupby(pieces_of(row, places, kinds), key=lambda piece: piece.place):
        pieces = list(group)
        if at is None:
            parts += [piece.page for piece in pieces]
            continue
        marked = "".join(_boxes(pieces, hues))
        labels = "".join(_label_html(each, places[at], row, hues) for each in places[at].entities)
        parts.append(f"<span>{marked}{labels}</span>")
    return "".join(parts) + html.escape(left_out(places, row, kinds))


def text_plain(row: Row, kinds: Collection[str]) -> str:
    """The same as plain text: ``[Anna Weber|PERSON ✓] left [Norbury|○ missed LOCATION] .``"""
    places = places_of(row.entities)
    parts = []
    for at, group in groupby(pieces_of(row, places, kinds), key=lambda piece: piece.place):
        text = "".join(piece.text for piece in group)
        if at is not None:
            labels = (label(each, places[at], row) for each in places[at].entities)
            text = f"[{text}|{'; '.join(labels)}]"
        parts.append(text)
    return "".join(parts) + left_out(places, row, kinds)


def label(entity: Entity, place: Place, row: Row) -> str:
    """What is said of an entity: its type, a sign, and what it should be."""
    sign, gold, predicted = SIGNS[entity.kind], entity.gold, entity.predicted

    def named(span: Span) -> str:
        """The type, and the words where they are not all that is marked."""
        part = "" if (span.start, span.end) == (place.start, place.end) else f" {_quote(span)}"
        return visible(span.type) + part

    def _quote(span: Span) -> str:
        return f"“{surface(row, span)}”"

    if predicted is None:
        assert gold is not None, "an entity is gold or predicted"
        return f"{sign} missed {named(gold)}"
    if gold is None or gold == predicted:
        words = " spurious" if entity.kind == SPURIOUS else ""
        return f"{named(predicted)} {sign}{words}".rstrip()
    wrong = {BOUNDARY: "boundary", TYPE: "type", BOTH: "type and boundary"}[entity.kind]
    right = [
        *([] if entity.kind == BOUNDARY else [visible(gold.type)]),
        *([] if entity.kind == TYPE else [_quote(gold)]),
    ]
    return f"{named(predicted)} {sign} {wrong}, gold {' '.join(right)}"


def surface(row: Row, span: Span) -> str:
    """The words of an entity, as they are shown; the middle of a long one is left out."""
    text = row.between.join(shown_word(word) for word in row.tokens[span.start : span.end])
    if len(text) <= QUOTED:
        return text
    return f"{text[: QUOTED // 2]}…{text[-(QUOTED // 2) + 1 :]}"


def _boxes(pieces: Iterable[Piece], hues: Mapping[str, int]) -> Iterator[str]:
    """A place's words in their boxes, and in these the underlines."""
    for box, boxed in groupby(pieces, key=lambda piece: piece.predicted):
        parts = []
        for line, under in groupby(boxed, key=lambda piece: piece.gold):
            text = "".join(piece.page for piece in under)
            parts.append(text if line is None else f'<u class="ner-{hues[line.type]}">{text}</u>')
        text = "".join(parts)
        yield text if box is None else f'<mark class="ner-{hues[box.type]}">{text}</mark>'


def _label_html(entity: Entity, place: Place, row: Row, hues: Mapping[str, int]) -> str:
    span = entity.predicted or entity.gold
    assert span is not None, "an entity is gold or predicted"
    error = " ner-error" if entity.kind in ERRORS else ""
    text = html.escape(label(entity, place, row))
    return f'<b class="ner-{hues[span.type]}{error}">{text}</b>'
