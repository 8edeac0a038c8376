"""Tables of a spelling corrector's work: scores by domain, and its over-corrections.

An over-correction changes a character that was right: the first complaint of every user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kernel_lib.metrics.spelling import spelling_scores
from kernel_lib.metrics.spelling_characters import Particles
from kernel_lib.results.html import visible
from kernel_lib.results.spelling_diff import OVER, Mark
from kernel_lib.results.spelling_rows import Row, corrections

BESIDE = 8  # characters of context on either side of an over-correction
_COLUMNS = [
    "sentences",
    "with errors",
    "strict detection P",
    "strict detection R",
    "strict detection F1",
    "strict correction P",
    "strict correction R",
    "strict correction F1",
    "official correction F1",
    "false positive rate",
    "over-corrections",
]


def domain_table(frame: pd.DataFrame, *, particles: Particles = "as they are") -> pd.DataFrame:
    """Scores by domain, and of all texts in the last row.

    Args:
        frame: corrections with targets; where no domain is known there is the last row only.
        particles: what to do about 的, 地 and 得, as for
            :func:`kernel_lib.metrics.spelling.spelling_scores`.

    Returns:
        By domain, in alphabetical order: ``sentences``, ``with errors``, precision, recall and F1
        of strict detection and correction, the official correction F1, ``false positive rate``
        (NaN where no sentence is clean) and ``over-corrections``, counted in characters.
        No row when the frame has none.

    Raises:
        DataError: a column is missing, or texts of a row differ in length.
    """
    rows = list(corrections(frame, judged=True))
    domains: dict[str, list[Row]] = {}
    for row in rows:
        domains.setdefault(row.domain, []).append(row)
    parts = sorted(domains.items()) if domains.keys() - {""} else []
    parts += [("all", rows)] if rows else []
    values = [_scores_of(part, particles) for _, part in parts]
    index = pd.Index([name for name, _ in parts], name="domain", dtype=object)
    return pd.DataFrame(values, index=index, columns=_COLUMNS)


def worst_over_corrections(frame: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """The changes of characters that were right, those the model was surest of first.

    Args:
        frame: corrections with targets.
        count: at most so many.

    Returns:
        ``id, domain, position, wrong, right, probability, context``: ``wrong`` is what stood there
        (and was right), ``right`` what was put there; ``context`` is the source about it.

    Raises:
        DataError: a column is missing, or texts of a row differ in length.
    """
    found = sorted(
        _over_corrections(frame), key=lambda pair: pair[1].probability or 0.0, reverse=True
    )
    table = [
        (row.id, row.domain, at.position, at.wrong, at.right, at.probability, _context(row, at))
        for row, at in found[:count]
    ]
    columns = ["id", "domain", "position", "wrong", "right", "probability", "context"]
    return pd.DataFrame(table, columns=columns).astype({"position": int, "probability": float})


def frequent_over_corrections(frame: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """Which right characters are changed most often, and into what.

    Args:
        frame: corrections with targets.
        count: at most so many pairs.

    Returns:
        ``wrong, right, times``, as in :func:`worst_over_corrections`; most frequent first.

    Raises:
        DataError: a column is missing, or texts of a row differ in length.
    """
    pairs = Counter((mark.wrong, mark.right) for _, mark in _over_corrections(frame))
    most = sorted(pairs.items(), key=lambda entry: (-entry[1], entry[0]))[:count]
    rows = [(*pair, times) for pair, times in most]
    return pd.DataFrame(rows, columns=["wrong", "right", "times"]).astype({"times": int})


def _over_corrections(frame: pd.DataFrame) -> Iterator[tuple[Row, Mark]]:
    for row in corrections(frame, judged=True):
        yield from ((row, mark) for mark in row.marks if mark.kind == OVER)


def _context(row: Row, mark: Mark) -> str:
    start, end = max(0, mark.position - BESIDE), mark.position + BESIDE + 1
    ends = ("…" if start else "", "…" if end < len(row.source) else "")
    return f"{ends[0]}{visible(row.source[start:end])}{ends[1]}"


def _scores_of(rows: Sequence[Row], particles: Particles) -> list[Any]:
    """A row of the table by domain."""
    scores = spelling_scores(
        [row.source for row in rows],
        [str(row.target) for row in rows],
        [row.corrected for row in rows],
        particles=particles,
    )
    detection, correction = scores.strict_detection, scores.strict_correction
    return [
        scores.sentences,
        scores.positives,
        *(detection.precision, detection.recall, detection.f1),
        *(correction.precision, correction.recall, correction.f1),
        scores.official_correction.f1,
        scores.fpr if scores.sentences > scores.positives else np.nan,
        sum(mark.kind == OVER for row in rows for mark in row.marks),
    ]
