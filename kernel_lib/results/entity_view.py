"""Which entities were named, in the texts themselves, for a notebook or a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from kernel_lib.errors import SettingsError
from kernel_lib.results.entity_marks import SIGNS, STYLE, hues_of, text_html, text_plain
from kernel_lib.results.entity_rows import (
    BOTH,
    BOUNDARY,
    ERRORS,
    MISSED,
    RIGHT,
    SPURIOUS,
    TYPE,
    UNKNOWN,
    Row,
    tagged_rows,
)
from kernel_lib.results.html import Html, Shown, choose, listing

Only = Literal["all", "wrong", "missed", "spurious", "boundary", "type"]

# Kinds of entities: a text is shown when it has one of them, and a long one about these.
_WANTED: dict[str, tuple[str, ...]] = {
    "all": (*ERRORS, RIGHT, UNKNOWN),
    "wrong": ERRORS,
    "missed": (MISSED,),
    "spurious": (SPURIOUS,),
    "boundary": (BOUNDARY, BOTH),
    "type": (TYPE, BOTH),
}
_NAMES = {
    "all": "texts",
    "wrong": "texts with errors",
    "missed": "texts with missed entities",
    "spurious": "texts with spurious entities",
    "boundary": "texts with wrong boundaries",
    "type": "texts with wrong types",
}


def show_entities(
    frame: pd.DataFrame, *, count: int = 20, only: Only = "all", seed: int | None = None
) -> Html:
    """Texts with their entities highlighted: a box is what was predicted, an underline is gold.

    Behind each stands its type and, where tags are known, a sign: ✓ right, ○ missed, ▲ spurious,
    ↔ boundary, ✗ type, ✗↔ both of these; an error says in words what gold has. Texts of more than
    100 words, or 200 Chinese characters, are shown as excerpts about their entities, or about the
    errors asked for.

    Args:
        frame: columns id, tokens, predicted and, where known, tags and domain; tokens and tags are
            lists, the tags BIO and read strictly, as the score does.
        count: at most so many texts.
        only: ``"all"``; or, where tags are known, those with an error (``"wrong"``), or with one
            of a kind: ``"missed"``, ``"spurious"``, ``"boundary"``, ``"type"``.
        seed: draws the texts at random, the same for the same seed; None takes the first ones.

    Returns:
        What a notebook shows when it is the last expression of a cell; ``print`` shows it too.

    Raises:
        DataError: a column is missing, a value is no list, a row's lists differ in length, or
            ``only`` needs tags that a row has not.
        SettingsError: ``only`` is none of these, or ``count`` is negative.
    """
    if only not in _WANTED:
        raise SettingsError(f"only={only!r} is not known: it can be {', '.join(_WANTED)}.")
    kinds = _WANTED[only]
    rows = list(tagged_rows(frame, judged=only != "all"))
    wanted = [row for row in rows if only == "all" or row.kinds.intersection(kinds)]
    shown = choose(wanted, count, seed)
    hues = hues_of(span.type for row in rows for each in row.entities for span in each.spans)
    title = f"{len(shown):,} of {len(wanted):,} {_NAMES[only]}, {len(rows):,} texts in all"
    return listing(
        [title, *_key(shown)],
        (
            Shown(
                row.id,
                row.domain,
                text_html(row, kinds, hues),
                text_plain(row, kinds),
                'class="ner"' if row.between else 'class="ner" lang="zh"',
            )
            for row in shown
        ),
        STYLE,
    )


def _key(rows: Sequence[Row]) -> list[str]:
    """The signs, with how often each is in these texts."""
    counts = Counter(entity.kind for row in rows for entity in row.entities)
    names = [RIGHT, *ERRORS]
    if not any(counts[name] for name in names):
        return []
    signs = " · ".join(f"{SIGNS[name]} {name} {counts[name]:,}" for name in names)
    return [signs, "box: predicted; underline: gold"]
