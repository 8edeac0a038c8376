"""From tags to entities and back, in the four ways of writing them.

======  ====================================================================================
scheme  what opens an entity, and what ends it
======  ====================================================================================
BIO     B-X opens, I-X continues; also called IOB2
IOB1    I-X opens and continues; B-X opens only directly behind another entity of type X
        (CoNLL-2003 comes so)
BIOES   B-X opens, I-X continues, E-X ends; S-X is an entity of one token; also called IOBES
BILOU   the same with L- for E- and U- for S- (spaCy)
======  ====================================================================================

What stands before the first hyphen is the prefix, all behind it the type: ``B-creative-work``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, get_args

from kernel_lib.errors import DataError, SettingsError

Scheme = Literal["BIO", "IOB1", "BIOES", "BILOU"]
PREFIXES = {"BIO": "BI", "IOB1": "BI", "BIOES": "BIES", "BILOU": "BILU"}
CLOSED = {"BIOES": "ES", "BILOU": "LU"}  # schemes that mark an entity's end, and one of one token


class Span(NamedTuple):
    """An entity: its type, its first token and the one behind its last."""

    type: str
    start: int
    end: int


def read_spans(tags: Sequence[str], *, scheme: Scheme = "BIO", strict: bool) -> list[Span]:
    """The entities that the tags of one sentence stand for, in order.

    The two readings agree wherever ``tag_faults.illegal_tags`` finds nothing.

    Args:
        tags: one a token.
        scheme: how they are written.
        strict: False reads as conlleval does: an entity opens wherever a tag cannot continue the
            one before, whatever its prefix, and ends before the next that opens or an O. True
            lets only what the scheme allows open and close. BIO: only B-; an I- that continues
            nothing is dropped. BIOES: S-, or B- I* E- of one type; what is not closed is dropped,
            in BILOU too. IOB1: a B- not behind a tag of its type is dropped.

    Raises:
        DataError: a tag is none of the scheme's.
        SettingsError: the scheme is unknown.

    Example:
        ``["I-PER", "I-PER", "O", "B-LOC", "I-ORG"]`` in BIO is leniently PER, LOC and ORG,
        strictly LOC alone.
    """
    parts = split_tags(tags, scheme)
    if not strict:
        return _read_leniently(parts)
    return _read_closed(parts) if scheme in CLOSED else _read_opened(parts, scheme)


def write_tags(spans: Iterable[Span], length: int, *, scheme: Scheme = "BIO") -> list[str]:
    """The tags of a sentence of so many tokens that has these entities.

    Raises:
        DataError: an entity is empty, has no type or reaches out of the sentence, or two overlap.
        SettingsError: the scheme is unknown.
    """
    check_scheme(scheme)
    tags, before = ["O"] * length, Span("", 0, 0)
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if not (0 <= span.start < span.end <= length and span.type):
            raise DataError(
                f"{span} does not fit a sentence of {length} tokens: give it a type, and a start "
                "below its end, both within the sentence; the end is not part of the entity."
            )
        if span.start < before.end:
            raise DataError(
                f"{before} and {span} overlap, and a token has one tag. Keep one of the two."
            )
        inside = [f"I-{span.type}"] * (span.end - span.start)
        touching = (before.type, before.end) == (span.type, span.start)
        if scheme != "IOB1" or touching:
            inside[0] = f"B-{span.type}"
        if scheme in CLOSED:
            inside[-1] = f"{CLOSED[scheme][len(inside) == 1]}-{span.type}"
        tags[span.start : span.end] = inside
        before = span
    return tags


def convert_tags(tags: Sequence[str], *, from_scheme: Scheme, to_scheme: Scheme) -> list[str]:
    """The same entities in another scheme; illegal tags are read leniently, and so mended.

    Raises:
        DataError: a tag is none of the first scheme's.
        SettingsError: a scheme is unknown.
    """
    spans = read_spans(tags, scheme=from_scheme, strict=False)
    return write_tags(spans, len(tags), scheme=to_scheme)


def label_names(types: Iterable[str], *, scheme: Scheme = "BIO") -> list[str]:
    """All labels of these types: O, then each type's, types in alphabetical order."""
    check_scheme(scheme)
    return [
        "O",
        *(f"{prefix}-{type}" for type in sorted(set(types)) for prefix in PREFIXES[scheme]),
    ]


def check_scheme(scheme: str) -> None:
    """Raises a SettingsError for a scheme that is none of the four."""
    if scheme not in get_args(Scheme):
        known = ", ".join(map(repr, get_args(Scheme)))
        raise SettingsError(f"scheme is {scheme!r}; choose one of {known}.")


def how_to_write(scheme: Scheme) -> str:
    """What a tag looks like, for messages."""
    prefixes = ", ".join(f"{prefix}-" for prefix in PREFIXES[scheme])
    return f"Write O, or one of {prefixes} and a type behind it, as in 'B-PERSON'."


@lru_cache(maxsize=8192)
def split_tag(tag: str, scheme: Scheme) -> tuple[str, str] | None:
    """Prefix and type, ``("O", "")`` for O; None for what is no tag of the scheme. BILOU's
    prefixes are given as BIOES's."""
    if tag == "O":
        return "O", ""
    prefix, _, type = tag.partition("-")
    if not type.strip() or prefix not in tuple(PREFIXES[scheme]):
        return None
    own = CLOSED.get(scheme, "")
    return CLOSED["BIOES"][own.index(prefix)] if prefix in tuple(own) else prefix, type


def split_tags(tags: Sequence[str], scheme: Scheme) -> list[tuple[str, str]]:
    """Prefix and type of each tag.

    Raises:
        DataError: one is no tag of the scheme; the message says which one, from 1.
        SettingsError: the scheme is unknown.
    """
    check_scheme(scheme)
    parts = []
    for number, tag in enumerate(tags, start=1):
        part = split_tag(tag, scheme) if isinstance(tag, str) else None
        if part is None:
            raise DataError(f"tag {number}: {tag!r} is no tag of {scheme}. {how_to_write(scheme)}")
        parts.append(part)
    return parts


def _read_leniently(parts: list[tuple[str, str]]) -> list[Span]:
    spans, start, type = [], 0, ""
    before = "O"
    for position, (prefix, kind) in enumerate([*parts, ("O", "")]):
        opens = prefix in "BS" or before in "OES" or kind != type
        if before != "O" and (opens or prefix == "O"):
            spans.append(Span(type, start, position))
        if opens:
            start = position
        before, type = prefix, kind
    return spans


def _read_opened(parts: list[tuple[str, str]], scheme: Scheme) -> list[Span]:
    """Strict BIO and IOB1: an entity ends where it is not continued."""
    spans: list[Span] = []
    open_, start, before = "", 0, ""
    for position, (prefix, type) in enumerate([*parts, ("O", "")]):
        if not (prefix == "I" and open_ == type):
            if open_:
                spans.append(Span(open_, start, position))
            opens = prefix == "B" if scheme == "BIO" else prefix == "I" or type == before
            open_, start = type if opens else "", position
        before = type
    return spans


def _read_closed(parts: list[tuple[str, str]]) -> list[Span]:
    """Strict BIOES: an entity is one only when it is closed."""
    spans: list[Span] = []
    open_, start = "", 0
    for position, (prefix, type) in enumerate(parts):
        if prefix in "BS":
            open_, start = type, position
        if prefix == "S" or (prefix == "E" and open_ == type):
            spans.append(Span(type, start, position + 1))
        if prefix in "SEO" or open_ != type:
            open_ = ""
    return spans
