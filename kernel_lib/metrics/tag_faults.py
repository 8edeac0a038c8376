"""Tags that cannot stand where they stand: which, where and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import NamedTuple, get_args

from kernel_lib.errors import DataError
from kernel_lib.metrics.tags import (
    CLOSED,
    Scheme,
    check_scheme,
    how_to_write,
    split_tag,
    split_tags,
)

SHOWN = 5  # how many places an error message names


class IllegalTag(NamedTuple):
    """A tag that cannot stand where it stands; positions count from 0."""

    position: int
    tag: str
    why: str


def illegal_tags(tags: Sequence[str], *, scheme: Scheme = "BIO") -> list[IllegalTag]:
    """The tags of one sentence that cannot stand where they stand, in order, each once.

    Raises:
        SettingsError: the scheme is unknown.
    """
    check_scheme(scheme)
    found: list[IllegalTag] = []
    before = None
    for position, tag in enumerate([*tags, None]):
        if tag is not None and not (isinstance(tag, str) and split_tag(tag, scheme)):
            found.append(IllegalTag(position, tag, f"no tag of {scheme}"))
            tag = "O"
        fault = _fault(before, tag, scheme)
        if fault:
            place = position + fault[0]
            found.append(IllegalTag(place, tags[place], fault[1]))
        before = tag
    first = {illegal.position: illegal for illegal in reversed(found)}
    return [first[position] for position in sorted(first)]


def check_tags(
    sequences: Sequence[Sequence[str]],
    *,
    scheme: Scheme = "BIO",
    ids: Sequence[object] | None = None,
    types: Collection[str] | None = None,
) -> None:
    """Refuses tags that cannot stand where they stand.

    Args:
        sequences: the tags of each sentence.
        scheme: how they should be written.
        ids: what the message calls the sentences; else it counts them from 0.
        types: the types there may be; None for any.

    Raises:
        DataError: at the first faults, with sentence, word (the first one is 1), tag and cause.
        SettingsError: the scheme is unknown.
    """
    found: list[str] = []
    for number, tags in enumerate(sequences):
        illegal = illegal_tags(tags, scheme=scheme)
        if types is not None:
            illegal += _of_other_types(tags, scheme, types)
        name = number if ids is None else ids[number]
        found += [f"sentence {name}, word {i + 1}, tag {tag!r}: {why}" for i, tag, why in illegal]
    if found:
        more = f"; {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
        raise DataError(
            f"{len(found):,} tag{'s' * (len(found) > 1)} cannot stand in {scheme}: "
            f"{'; '.join(found[:SHOWN])}{more}. {_cure(sequences, scheme, types)}"
        )


def is_legal(before: str | None, tag: str | None, *, scheme: Scheme = "BIO") -> bool:
    """Whether one tag may follow another; None stands for the sentence's beginning and its end.

    Raises:
        DataError: a tag is none of the scheme's.
        SettingsError: the scheme is unknown.
    """
    split_tags([each for each in (before, tag) if each is not None], scheme)
    return _fault(before, tag, scheme) is None


@lru_cache(maxsize=8192)
def _fault(before: str | None, tag: str | None, scheme: Scheme) -> tuple[int, str] | None:
    """Which of the two cannot stand (-1 or 0) and why; None where they may follow each other."""
    old_prefix, old_type = split_tag(before or "O", scheme) or ("O", "")
    prefix, type = split_tag(tag or "O", scheme) or ("O", "")
    behind = "at the beginning" if before is None else f"behind {before}"
    goes_on = old_type == type and old_prefix in "BI"
    if scheme == "IOB1":
        if prefix != "B" or old_type == type:
            return None
        return 0, f"{behind}, where only I-{type} opens an entity"
    if prefix in "IE":
        return None if goes_on else (0, f"{behind}, where it continues nothing")
    if scheme in CLOSED and old_prefix in "BI":
        return -1, f"no I-{old_type} or {CLOSED[scheme][0]}-{old_type} follows"
    return None


def _of_other_types(
    tags: Sequence[str], scheme: Scheme, types: Collection[str]
) -> list[IllegalTag]:
    known = ", ".join(sorted(types))
    parts = [split_tag(tag, scheme) if isinstance(tag, str) else None for tag in tags]
    return [
        IllegalTag(position, tags[position], f"its type is none of {known}")
        for position, part in enumerate(parts)
        if part and part[1] and part[1] not in types
    ]


def _cure(sequences: Sequence[Sequence[str]], scheme: Scheme, types: Collection[str] | None) -> str:
    for other in get_args(Scheme):
        if other != scheme and not any(
            illegal_tags(tags, scheme=other)
            or (types is not None and _of_other_types(tags, other, types))
            for tags in sequences
        ):
            return f"All of them can in {other}: read them as such."
    if any(not isinstance(tag, str) or not split_tag(tag, scheme) for t in sequences for tag in t):
        return how_to_write(scheme)
    if types is not None:
        return "Mend the file."
    return (
        "Mend the file: kernel_lib.metrics.tags.convert_tags(tags, from_scheme="
        f"{scheme!r}, to_scheme={scheme!r}) reads such tags as conlleval does, where one that "
        "continues nothing opens an entity, and writes them right."
    )
