"""Tables of a tagger's work: scores by domain, and its errors by kind with the most frequent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kernel_lib.metrics.entity_definitions import span_scores
from kernel_lib.results.entity_marks import surface
from kernel_lib.results.entity_rows import BOUNDARY, ERRORS, TYPE, Entity, Row, tagged_rows
from kernel_lib.results.html import visible

_COLUMNS = ["texts", "words", "gold", "predicted", "correct", "P", "R", "F1", "macro F1"]


def domain_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Strict scores by domain, and of all texts in the last row.

    Args:
        frame: tagged texts with tags; where no domain is known there is the last row only.

    Returns:
        By domain, in alphabetical order: ``texts``, ``words``, entities ``gold``, ``predicted`` and
        ``correct``, precision, recall and F1 of all entities, and the mean F1 of the types that
        the domain has in gold or prediction. No row when the frame has none.

    Raises:
        DataError: as :func:`kernel_lib.results.entity_rows.tagged_rows`.
    """
    rows = list(tagged_rows(frame, judged=True))
    domains: dict[str, list[Row]] = {}
    for row in rows:
        domains.setdefault(row.domain, []).append(row)
    parts = sorted(domains.items()) if domains.keys() - {""} else []
    parts += [("all", rows)] if rows else []
    index = pd.Index([name for name, _ in parts], name="domain", dtype=object)
    return pd.DataFrame([_scores_of(part) for _, part in parts], index=index, columns=_COLUMNS)


def error_table(frame: pd.DataFrame, count: int = 5) -> pd.DataFrame:
    """How often each kind of error was made, and the most frequent ones.

    Args:
        frame: tagged texts with tags.
        count: at most so many examples of a kind.

    Returns:
        By kind, ``missed`` first: ``errors``, how many; ``examples``, a list of what was gold or
        predicted, and how often.

    Raises:
        DataError: as :func:`kernel_lib.results.entity_rows.tagged_rows`.
    """
    found: dict[str, Counter[str]] = {kind: Counter() for kind in ERRORS}
    for row in tagged_rows(frame, judged=True):
        for entity in row.entities:
            if entity.kind in found:
                found[entity.kind][_in_words(row, entity)] += 1
    values = [(counts.total(), _most(counts, count)) for counts in found.values()]
    index = pd.Index(list(found), name="kind", dtype=object)
    return pd.DataFrame(values, index=index, columns=["errors", "examples"])


def _most(counts: Counter[str], count: int) -> list[str]:
    most = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))[:count]
    return [f"{words} {times:,} ×" for words, times in most]


def _in_words(row: Row, entity: Entity) -> str:
    """``“Ashford Bank” (LOCATION → ORGANIZATION)``: what was predicted, an arrow, what is gold."""
    spans = entity.spans[::-1]
    words = [f"“{surface(row, span)}”" for span in spans[: 1 if entity.kind == TYPE else 2]]
    types = [visible(span.type) for span in spans[: 1 if entity.kind == BOUNDARY else 2]]
    return f"{' → '.join(words)} ({' → '.join(types)})"


def _scores_of(rows: Sequence[Row]) -> list[Any]:
    """A row of the table by domain."""
    gold, predicted = [row.gold or [] for row in rows], [row.predicted for row in rows]
    types = {span.type for each in (*gold, *predicted) for span in each}
    scores = span_scores(gold, predicted, sorted(types))
    micro = scores.micro
    return [
        len(rows),
        sum(len(row.tokens) for row in rows),
        *(micro.gold, micro.predicted, int(micro.correct)),
        *(micro.precision, micro.recall, micro.f1, scores.macro_f1),
    ]
