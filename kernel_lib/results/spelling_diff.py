"""One corrected text as a person reads it: what was changed, into what, how surely, rightly or not.

Nothing here rests on colour alone: what was there is struck through, what came is underlined, and a
sign says how the truth judges it. No character of a text reaches the page unescaped, and those that
cannot be seen (control characters, half surrogates) are written out.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kernel_lib.results.html import visible, written_out
from kernel_lib.text.corrections import Change

RIGHT, WRONG, OVER, MISSED, UNKNOWN = (
    "right",
    "wrong character",
    "over-correction",
    "missed",
    "not judged",
)
SIGNS = {RIGHT: "✓", WRONG: "✗", OVER: "▲", MISSED: "○", UNKNOWN: ""}
WHOLE = 120  # texts up to so many characters are shown whole
CONTEXT = 15  # characters shown on either side of a mark in a longer one
MARKS = 40  # marks of one text that are shown; a page stays a page when all is changed

STYLE = """
.csc { line-height: 1.9; overflow-wrap: anywhere; white-space: pre-wrap; unicode-bidi: isolate;
  font-family: system-ui, "Segoe UI", "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC",
  "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "WenQuanYi Micro Hei", sans-serif; }
.csc del, .csc ins, .csc u { padding: .05em .2em; border-radius: .2em; }
.csc del { background: var(--gone, #fbe0d2); color: var(--gone-ink, #8a2f00);
  text-decoration: line-through 1px; }
.csc ins { background: var(--come, #cdeee1); color: var(--come-ink, #00513a); font-weight: 600;
  text-decoration: underline; }
.csc u { background: var(--miss, #fdf0c4); color: var(--miss-ink, #5c4500);
  text-decoration: underline dotted 2px; }
.csc small, .csc b { font-size: .75em; color: inherit; padding: 0 .15em; }
.csc small { opacity: .8; } .csc b { font-size: .85em; font-weight: 600; }
.csc i, .csc-ends { opacity: .6; font-style: normal; font-size: .85em; }
"""


@dataclass(frozen=True)
class Mark:
    """A character that was changed, or should have been.

    Attributes:
        position: in the text, from 0.
        wrong: what the source has there.
        right: what the prediction has there.
        target: what belongs there; None when nobody knows.
        probability: the model's, of ``right``; None when it is not known.
    """

    position: int
    wrong: str
    right: str
    target: str | None = None
    probability: float | None = None

    @property
    def kind(self) -> str:
        """How the truth judges it."""
        if self.target is None:
            return UNKNOWN
        if self.right == self.target:
            return RIGHT
        if self.wrong == self.target:
            return OVER
        return MISSED if self.wrong == self.right else WRONG

    @property
    def words(self) -> str:
        """All that is known of it, in a line."""
        parts = [f"position {self.position}: {visible(self.wrong)}"]
        if self.right != self.wrong:
            parts[0] += f" → {visible(self.right)}"
        if self.probability is not None:
            parts.append(f"probability {self.probability:.4f}")
        if self.target is not None:
            known = f", should be {visible(self.target)}" if self.kind in (WRONG, MISSED) else ""
            parts.append(self.kind + known)
        return "; ".join(parts)


def marks_of(
    source: str, corrected: str, target: str | None = None, changes: Sequence[Change] = ()
) -> list[Mark]:
    """What was changed in a text and what should have been, by position.

    Args:
        source, corrected, target: texts of one length.
        changes: give the probabilities; the characters are those of ``corrected``.
    """
    sure = {change.position: change.probability for change in changes}
    true = source if target is None else target
    if source == corrected == true:
        return []
    return [
        Mark(at, was, became, None if target is None else belongs, sure.get(at))
        for at, (was, became, belongs) in enumerate(zip(source, corrected, true, strict=True))
        if not was == became == belongs
    ]


def diff_html(source: str, marks: Sequence[Mark]) -> str:
    """The source with its marks, as HTML; a long text in excerpts about them."""
    parts = []
    for piece in _pieces(source, marks):
        if isinstance(piece, Mark):
            parts.append(_mark_html(piece))
        elif piece is None:
            parts.append('<span class="csc-ends">…</span>')
        else:
            shown = ((written_out(character), character) for character in piece)
            parts += [
                html.escape(c) if seen == c else f"<i>{html.escape(seen)}</i>" for seen, c in shown
            ]
    return "".join(parts) + html.escape(_left_out(marks))


def diff_text(source: str, marks: Sequence[Mark]) -> str:
    """The same as plain text: ``我去图书[管→馆 0.98 ✓]。``."""
    parts = []
    for piece in _pieces(source, marks):
        if isinstance(piece, Mark):
            change = "" if piece.right == piece.wrong else f"→{visible(piece.right)}"
            notes = "".join(f" {note}" for note in _notes(piece) if note)
            parts.append(f"[{visible(piece.wrong)}{change}{notes}]")
        else:
            parts.append("…" if piece is None else "".join(map(written_out, piece)))
    return "".join(parts) + _left_out(marks)


def excerpts(length: int, positions: Sequence[int]) -> list[tuple[int, int]]:
    """The parts of a text that are shown, from the first character to before the last one.

    Args:
        length: of the text in characters.
        positions: of its marks, in order.
    """
    if length <= WHOLE:
        return [(0, length)]
    parts: list[tuple[int, int]] = []
    for at in positions or [0]:
        start, end = max(0, at - CONTEXT), min(length, at + CONTEXT + 1)
        if parts and start <= parts[-1][1]:
            start = parts.pop()[0]
        parts.append((start, end))
    return parts


def _pieces(source: str, marks: Sequence[Mark]) -> Iterator[str | Mark | None]:
    """Runs of characters, marks, and None where something is left out."""
    at = 0
    shown = {mark.position: mark for mark in marks[:MARKS]}
    parts = excerpts(len(source), list(shown))
    for start, end in parts:
        if start > at:
            yield None
        at = start
        for position in (position for position in shown if start <= position < end):
            yield source[at:position]
            yield shown[position]
            at = position + 1
        yield source[at:end]
        at = end
    if at < len(source):
        yield None


def _mark_html(mark: Mark) -> str:
    wrong, right = html.escape(visible(mark.wrong)), html.escape(visible(mark.right))
    body = f"<u>{wrong}</u>" if mark.kind == MISSED else f"<del>{wrong}</del><ins>{right}</ins>"
    sure, judged = map(html.escape, _notes(mark))
    notes = (f"<small>{sure}</small>" if sure else "") + (f"<b>{judged}</b>" if judged else "")
    return f'<span title="{html.escape(mark.words)}">{body}{notes}</span>'


def _notes(mark: Mark) -> tuple[str, str]:
    """The probability; the sign, and the character that belongs there where it is another one."""
    sure = "" if mark.probability is None else f"{mark.probability:.2f}"
    judged = SIGNS[mark.kind]
    if mark.kind in (WRONG, MISSED):
        judged += f" {visible(str(mark.target))}"
    return sure, judged


def _left_out(marks: Sequence[Mark]) -> str:
    more = len(marks) - MARKS
    return f" (and {more:,} more)" if more > 0 else ""
