"""Where predicted entities differ from gold ones: pairs, kinds of errors, which type for which."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernel_lib.metrics.tags import Span

Kind = Literal["missed", "spurious", "boundary", "type", "boundary and type"]


@dataclass(frozen=True)
class Mistake:
    """A gold entity and what was predicted in its place.

    Attributes:
        kind: ``"missed"``: no prediction overlaps it, or only one that another entity got;
            ``"spurious"``: the same of a prediction; ``"boundary"``: the right type, another start
            or end; ``"type"``: the other way round; ``"boundary and type"``: they overlap only.
        gold: None where spurious.
        predicted: None where missed.
    """

    kind: Kind
    gold: Span | None
    predicted: Span | None


@dataclass(frozen=True)
class TypeConfusion:
    """How often each type was taken for which.

    Attributes:
        types: the first rows and columns, in order.
        counts: ``(types + 1, types + 1)``, a row for each gold type and a column for each
            predicted one. The diagonal has the right type, be the boundaries right or not. The
            last column counts the missed ones, the last row the spurious; their corner is 0.
        boundary: ``(types,)``, how many on the diagonal have wrong boundaries.
    """

    types: tuple[str, ...]
    counts: NDArray[np.int64]
    boundary: NDArray[np.int64]


def entity_errors(gold: Iterable[Span], predicted: Iterable[Span]) -> list[Mistake]:
    """The errors of one sentence, by position; each entity is in one of them at most.

    Args:
        gold: its entities.
        predicted: those predicted.
    """
    pairs = pair_entities(gold, predicted)
    return [Mistake(_kind(*pair), *pair) for pair in pairs if pair[0] != pair[1]]


def type_confusion(
    gold: Sequence[Iterable[Span]],
    predicted: Sequence[Iterable[Span]],
    *,
    types: Iterable[str] | None = None,
) -> TypeConfusion:
    """Counts which type was predicted for which, missed and spurious ones too.

    Args:
        gold: the entities of each sentence.
        predicted: of the same sentences.
        types: rows and columns, in order; the entities of others do not count. None: all there
            are, in alphabetical order.
    """
    pairs = [pair for both in zip(gold, predicted, strict=True) for pair in pair_entities(*both)]
    if types is None:
        types = sorted({span.type for pair in pairs for span in pair if span})
    types = tuple(types)
    index = {type: number for number, type in enumerate(types)}
    counts = np.zeros((len(types) + 1, len(types) + 1), np.int64)
    boundary = np.zeros(len(types), np.int64)
    for pair in pairs:
        row, column = (index.get(span.type, -1) if span else -1 for span in pair)
        counts[row, column] += 1
        boundary[row] += row == column and pair[0] != pair[1]
    counts[-1, -1] = 0
    return TypeConfusion(types, counts, boundary)


def pair_entities(
    gold: Iterable[Span], predicted: Iterable[Span]
) -> list[tuple[Span | None, Span | None]]:
    """Gold entities and predictions of one sentence, each in one pair, None for what has no other.

    Those that overlap pair up: equal ones first, then those of equal boundaries, then of equal
    type, then the others, each by the longest overlap; the earlier one where that is equal too.

    Returns:
        The pairs in the order they stand in the sentence.
    """
    gold, predicted = (sorted(spans, key=lambda span: span[1:]) for spans in (gold, predicted))
    candidates = []
    for i, wanted in enumerate(gold):
        for j, found in enumerate(predicted):
            shared = min(wanted.end, found.end) - max(wanted.start, found.start)
            if shared > 0:
                rank = (wanted != found, wanted[1:] != found[1:], wanted.type != found.type)
                candidates.append((rank, -shared, i, j))
    pairs: list[tuple[Span | None, Span | None]] = []
    left, unclaimed = dict(enumerate(gold)), dict(enumerate(predicted))
    for *_, i, j in sorted(candidates):
        if i in left and j in unclaimed:
            pairs.append((left.pop(i), unclaimed.pop(j)))
    pairs += [(span, None) for span in left.values()]
    pairs += [(None, span) for span in unclaimed.values()]
    return sorted(pairs, key=_place)


def _place(pair: tuple[Span | None, Span | None]) -> tuple[int, int]:
    spans = [span for span in pair if span]
    return min(span.start for span in spans), max(span.end for span in spans)


def _kind(gold: Span | None, predicted: Span | None) -> Kind:
    if gold is None or predicted is None:
        return "spurious" if gold is None else "missed"
    if gold.type == predicted.type:
        return "boundary"
    return "type" if gold[1:] == predicted[1:] else "boundary and type"
