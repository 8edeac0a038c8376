"""The rows of a frame of corrections, checked and judged.

Such a frame has the columns ``id, source, corrected, changes`` and, where known, ``target`` and
``domain``; ``changes`` holds lists of :class:`kernel_lib.text.corrections.Change`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.results.spelling_diff import Mark, marks_of


@dataclass(frozen=True)
class Row:
    """A row of a frame of corrections.

    Attributes:
        id: as text.
        domain: empty where it is not known.
        source, corrected: texts of one length.
        target: of the same length; None where it is not known.
        marks: what was changed, and what should have been.
    """

    id: str
    domain: str
    source: str
    corrected: str
    target: str | None
    marks: list[Mark]


def corrections(frame: pd.DataFrame, *, judged: bool) -> Iterator[Row]:
    """The rows of a frame of corrections.

    Args:
        frame: it.
        judged: whether each row must have a target.

    Raises:
        DataError: a column or a wanted target is missing, texts of a row differ in length, or the
            changes are not lists.
    """
    needed = ["id", "source", "corrected", "changes", *(["target"] if judged else [])]
    if missing := [name for name in needed if name not in frame]:
        raise DataError(
            f"the corrections have no column {', '.join(map(repr, missing))}; they have "
            f"{', '.join(map(str, frame.columns))}."
        )
    nothing = [None] * len(frame)
    for name, source, corrected, changes, target, domain in zip(
        *(frame[column] for column in needed[:4]),
        frame.get("target", nothing),
        frame.get("domain", nothing),
        strict=True,
    ):
        true = target if isinstance(target, str) else None  # a missing value is NaN or None
        if judged and true is None:
            raise DataError(f"the corrections' row {name!r} has no target to be judged by.")
        if not len(source) == len(corrected) == len(source if true is None else true):
            lengths = ", ".join(str(len(t)) for t in (source, corrected, true) if t is not None)
            raise DataError(
                f"the texts of row {name!r} differ in length ({lengths}): a corrected text and a "
                "target have a character for each one of the source."
            )
        if isinstance(changes, str):
            raise DataError(
                f"the changes of row {name!r} are text. Read it with "
                "kernel_lib.text.corrections.changes_from_json."
            )
        marks = marks_of(source, corrected, true, changes)
        known = domain if isinstance(domain, str) else ""
        yield Row(str(name), known, source, corrected, true, marks)
