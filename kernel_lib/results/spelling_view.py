"""What a spelling corrector changed, in the texts themselves, for a notebook or a report."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from kernel_lib.errors import SettingsError
from kernel_lib.results import spelling_diff
from kernel_lib.results.spelling_diff import (
    MISSED,
    OVER,
    SIGNS,
    UNKNOWN,
    diff_html,
    diff_text,
    visible,
)
from kernel_lib.results.spelling_rows import Row, corrections

Only = Literal["changed", "wrong", "over-corrected", "missed", "all"]

STYLE = (
    spelling_diff.STYLE
    + """
.csc-rows { border-collapse: collapse; width: 100%; }
.csc-rows td { text-align: left; vertical-align: top; padding: .25rem .5rem;
  border-bottom: 1px solid rgba(128, 128, 128, .3); background: none; }
.csc-rows td:first-child { width: 9rem; overflow-wrap: anywhere; font-size: .85em; }
.csc-rows td:first-child span { opacity: .7; }
.csc-key { font-size: .9em; opacity: .85; margin: .3rem 0; }
"""
)

_WANTED: dict[str, Callable[[Row], bool]] = {
    "changed": lambda row: row.corrected != row.source,
    "wrong": lambda row: row.corrected != row.target,
    "over-corrected": lambda row: any(mark.kind == OVER for mark in row.marks),
    "missed": lambda row: any(mark.kind == MISSED for mark in row.marks),
    "all": lambda row: True,
}
_JUDGED = ("wrong", "over-corrected", "missed")


@dataclass(frozen=True, repr=False)
class Html:
    """Something a notebook shows as HTML, and a terminal as text.

    Attributes:
        page: HTML without a style.
        text: the same in plain text.
        style: CSS that the HTML needs.
    """

    page: str
    text: str
    style: str = ""

    def _repr_html_(self) -> str:
        return f"<style>{self.style}</style>\n{self.page}"

    def __repr__(self) -> str:
        return self.text


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
    if count < 0:
        raise SettingsError(f"count={count} must be at least 0.")
    wanted = [row for row in corrections(frame, judged=only in _JUDGED) if _WANTED[only](row)]
    if seed is None or len(wanted) <= count:
        shown = wanted[:count]
    else:
        drawn = np.random.default_rng(seed).choice(len(wanted), count, replace=False)
        shown = [wanted[at] for at in sorted(drawn.tolist())]
    what = "texts" if only == "all" else f"{only} texts"
    title = f"{len(shown):,} of {len(wanted):,} {what}, {len(frame):,} texts in all"
    key = _key(shown)
    page = [f'<div class="csc-key">{html.escape(title)}{"<br>" if key else ""}{key}</div>']
    lines = [title, *([key] if key else [])]
    page.append('<table class="csc-rows">')
    for row in shown:
        domain = html.escape(visible(row.domain))
        name = html.escape(visible(row.id)) + (f"<br><span>{domain}</span>" if domain else "")
        text = f'<td class="csc" lang="zh-Hans">{diff_html(row.source, row.marks)}</td>'
        page.append(f"<tr><td>{name}</td>{text}</tr>")
        lines.append(f"{visible(row.id)}  {diff_text(row.source, row.marks)}")
    return Html("\n".join([*page, "</table>"]), "\n".join(lines), STYLE)


def _key(rows: list[Row]) -> str:
    """The signs, with how often each is shown."""
    counts = Counter(mark.kind for row in rows for mark in row.marks)
    names = [name for name in SIGNS if name != UNKNOWN]
    if not any(counts[name] for name in names):
        return ""
    return " · ".join(f"{SIGNS[name]} {name} {counts[name]:,}" for name in names)
