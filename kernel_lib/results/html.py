"""Texts in a list that a notebook shows as HTML and a terminal as text, safe in both."""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kernel_lib.errors import SettingsError

T = TypeVar("T")

# No colours of its own: a notebook's theme is not known.
STYLE = """
.shown-rows { border-collapse: collapse; width: 100%; }
.shown-rows td { text-align: left; vertical-align: top; padding: .25rem .5rem;
  border-bottom: 1px solid rgba(128, 128, 128, .3); background: none; }
.shown-rows td:first-child { width: 9rem; overflow-wrap: anywhere; font-size: .85em; }
.shown-rows td:first-child span { opacity: .7; }
.shown-key { font-size: .9em; opacity: .85; margin: .3rem 0; }
"""


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


@dataclass(frozen=True)
class Shown:
    """A text of the list.

    Attributes:
        id: as it is.
        domain: likewise; empty where it is not known.
        page: the text as HTML, escaped.
        text: the same in plain text.
        attributes: of the cell, escaped: ``class="csc"``.
    """

    id: str
    domain: str
    page: str
    text: str
    attributes: str = ""


def listing(lines: Sequence[str], rows: Iterable[Shown], style: str) -> Html:
    """Texts one below the other, with their ids.

    Args:
        lines: what stands above them, plain.
        rows: the texts.
        style: CSS beside that of the list.
    """
    page = [f'<div class="shown-key">{"<br>".join(map(html.escape, lines))}</div>']
    page.append('<table class="shown-rows">')
    text = list(lines)
    for row in rows:
        domain = html.escape(visible(row.domain))
        name = html.escape(visible(row.id)) + (f"<br><span>{domain}</span>" if domain else "")
        cell = f"<td {row.attributes}>" if row.attributes else "<td>"
        page.append(f"<tr><td>{name}</td>{cell}{row.page}</td></tr>")
        text.append(f"{visible(row.id)}  {row.text}")
    return Html("\n".join([*page, "</table>"]), "\n".join(text), STYLE + style)


def choose(rows: Sequence[T], count: int, seed: int | None) -> Sequence[T]:
    """At most so many of them, in their order.

    Args:
        rows: any.
        count: how many.
        seed: draws them at random, the same for the same seed; None takes the first ones.

    Raises:
        SettingsError: ``count`` is negative.
    """
    if count < 0:
        raise SettingsError(f"count={count} must be at least 0.")
    if seed is None or len(rows) <= count:
        return rows[:count]
    drawn = np.random.default_rng(seed).choice(len(rows), count, replace=False)
    return [rows[at] for at in sorted(drawn.tolist())]


def visible(text: str) -> str:
    """The text with what cannot be seen written out, as in Python: ``\\n``, ``\\ud800``.

    A space is, too, where it stands alone, as in a change.
    """
    if len(text) == 1 and unicodedata.category(text) == "Zs":
        return "␣"
    return "".join(map(written_out, text))


def written_out(character: str) -> str:
    """The character, or how it is written when it cannot be seen or would turn the line about."""
    if unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape").decode("ascii")
