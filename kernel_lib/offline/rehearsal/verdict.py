"""The verdict: what a person reads at the end of a rehearsal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from kernel_lib.offline.rehearsal.plan import Pass, Plan
from kernel_lib.offline.rehearsal.sandbox import DESCRIPTIONS
from kernel_lib.runtime.clock import format_seconds

WIDTH = 90
LONGEST_DETAIL = 500  # characters: an error message can be a page


def verdict(passes: Sequence[Pass], plan: Plan, *, notes: Sequence[str] = ()) -> str:
    """A line a run, every problem with its cure, and whether to push.

    Args:
        passes: from ``rehearse``.
        plan: what it was rehearsed with.
        notes: what else the reader should know.
    """
    lines = ["", "REHEARSAL", *_wrapped("isolation   ", DESCRIPTIONS[plan.isolation]), ""]
    titles = max((len(one.title) for one in passes), default=0)
    for one in passes:
        lines.append(_line(one, titles))
        for check in one.problems:
            lines += _wrapped("      - ", check.name)
            lines += _wrapped("        found  ", check.detail)
            lines += _wrapped("        cure   ", check.cure)
    everything = [*notes, *_projection(passes, plan)]
    lines += [""] if everything else []
    for note in everything:
        lines += _wrapped("note  ", note)
    failed = sum(len(one.problems) for one in passes)
    problems = f"{failed} problem{'s' if failed > 1 else ''}"
    lines += ["", f"NOT READY: {problems}, see above" if failed else "READY to push"]
    return "\n".join(lines)


def _line(one: Pass, titles: int) -> str:
    good, count = len(one.checks) - len(one.problems), len(one.checks)
    mark = "FAIL" if one.problems else "ok" if one.checks else "--"
    took = format_seconds(one.seconds) if one.seconds else ""
    held = f"{good:>4} of {count} checks" if one.checks else ""
    return f"{mark:<6}{one.title:<{titles}}{took:>14}{held}".rstrip()


def _wrapped(head: str, text: str) -> Iterator[str]:
    """Short lines under each other, without what a terminal would not print."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).encode("utf-8", "backslashreplace")
    words = " ".join(plain.decode("utf-8").split())
    if len(words) > LONGEST_DETAIL:
        words = f"{words[:LONGEST_DETAIL]} ..."
    yield from textwrap.wrap(
        words,
        WIDTH,
        initial_indent=head,
        subsequent_indent=" " * len(head),
        break_on_hyphens=False,
    )


def _projection(passes: Sequence[Pass], plan: Plan) -> list[str]:
    """What the real hidden test would take here, from what the smallest and largest test took."""
    measured = [one for one in passes if one.rows and not one.problems]
    if len(measured) < 2:
        return []
    few, *_, many = sorted(measured, key=lambda one: one.rows)
    a_row = max(0.0, many.seconds - few.seconds) / max(1, many.rows - few.rows)
    whole = few.seconds + a_row * max(0, plan.hidden_rows - few.rows)
    fits = "within" if whole < plan.limit_seconds else "OVER"
    return [
        f"{plan.hidden_rows:,} hidden rows would take about {format_seconds(whole)} here, "
        f"{fits} the limit of {format_seconds(plan.limit_seconds)} ({a_row:.2f} s a row)"
    ]
