"""What a spelling corrector changed, in the texts themselves, for a notebook or a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

import pandas as pd

from kernel_lib.errors import SettingsError
from kernel_lib.results.html import Html, Shown, choose, listing
from kernel_lib.results.spelling_diff import (
    MISSED,
    OVER,
    SIGNS,
    STYLE,
    UNKNOWN,
    diff_html,
    diff_text,
)
from kernel_lib.results.spelling_rows import Row, corrections

Only = Literal["changed", "wrong", "over-corrected", "missed", "all"]

_WANTED: dict[str, Callable[[Row], bool]] = {
    "changed": lambda row: row.corrected != row.source,
    "wrong": lambda row: row.corrected != row.target,
    "over-corrected": lambda row: any(mark.kind == OVER for mark in row.marks),
    "missed": lambda row: any(mark.kind == MISSED for mark in row.marks),
    "all": lambda row: True,
}
_JUDGED = ("wrong", "over-corrected", "missed")


def show_corrections(
    frame: pd.DataFrame, *, count: int = 20, only: Only = "changed", seed: int | None = None
) -> Html:
    """Texts with what was changed in them: struck through, then what came, with its probability.

    Where the target is known each change has a sign: ✓ right, ✗ wrong character (the right one
    follows), ▲ over-correction; ○ is an error that was missed. Texts of more than 120 characters
    are shown as excerpts about the changes.

    Args:
        frame: corrections.
        count: at most so many texts.
        only: ``"changed"``; or, where targets are known, ``"wrong"`` (the result is not the
            target), ``"over-corrected"`` or ``"missed"``; or ``"all"``.
        seed: draws the texts at random, the same for the same seed; None takes the first ones.

    Returns:
        What a notebook shows when it is the last expression of a cell; ``print`` shows it too.

    Raises:
        DataError: a column is missing, texts of a row differ in length, or ``only`` needs a target
            that a row has not.
        SettingsError: ``only`` is none of these, or ``count`` is negative.
    """
    if only not in _WANTED:
        raise SettingsError(f"only={only!r} is not known: it can be {', '.join(_WANTED)}.")
    wanted = [row for row in corrections(frame, judged=only in _JUDGED) if _WANTED[only](row)]
    shown = choose(wanted, count, seed)
    what = "texts" if only == "all" else f"{only} texts"
    title = f"{len(shown):,} of {len(wanted):,} {what}, {len(frame):,} texts in all"
    key = _key(shown)
    rows = (
        Shown(
            row.id,
            row.domain,
            diff_html(row.source, row.marks),
            diff_text(row.source, row.marks),
            'class="csc" lang="zh-Hans"',
        )
        for row in shown
    )
    return listing([title, *([key] if key else [])], rows, STYLE)


def _key(rows: Sequence[Row]) -> str:
    """The signs, with how often each is shown."""
    counts = Counter(mark.kind for row in rows for mark in row.marks)
    names = [name for name in SIGNS if name != UNKNOWN]
    if not any(counts[name] for name in names):
        return ""
    return " · ".join(f"{SIGNS[name]} {name} {counts[name]:,}" for name in names)
