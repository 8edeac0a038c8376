"""Labels; from probabilities to tags, and how ready to name each type, by out-of-fold texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernel_lib.metrics.tags import Span, label_names, read_spans
from kernel_lib.tasks.viterbi import ILLEGAL, decode, legal_transitions

BIASES = tuple(sorted(np.arange(-3.0, 3.01, 0.5).tolist(), key=abs))  # the smallest first
MOST_BIAS = 100.0  # either way, as `viterbi.decode` has it
LEAST = 1e-30  # of a probability, before its logarithm is taken


def types_of(tags: Iterable[str]) -> list[str]:
    """The types of entities in BIO tags, in order."""
    return sorted({tag.partition("-")[2] for tag in tags} - {""})


def are_labels(labels: Any) -> bool:
    """Whether these are the labels of a run: a list, O first, B-X and I-X of each type in order."""
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return False
    return len(labels) > 1 and labels == label_names(types_of(labels))


def are_biases(o_bias: Any, types: Sequence[str]) -> bool:
    """Whether these are biases of such types, as :func:`find_tags` takes them."""
    return isinstance(o_bias, dict) and all(
        name in types and type(value) in (float, int) and abs(value) <= MOST_BIAS
        for name, value in o_bias.items()
    )


def illegal_steps(labels: Sequence[str]) -> Tensor:
    """The steps that BIO forbids, as a CRF takes them: ``(labels + 1, labels + 1)`` bool, the
    beginning last. At the end nothing is: a window may end within an entity."""
    steps, start, _ = legal_transitions(labels)
    illegal = torch.zeros(len(labels) + 1, len(labels) + 1, dtype=torch.bool)
    illegal[:-1, :-1] = torch.from_numpy(steps <= ILLEGAL)
    illegal[-1, :-1] = torch.from_numpy(start <= ILLEGAL)
    return illegal


def find_tags(
    probabilities: Sequence[NDArray[np.float32]],
    labels: Sequence[str],
    *,
    constrained: bool,
    o_bias: Mapping[str, float],
) -> list[list[str]]:
    """The tags of each text.

    Args:
        probabilities: ``(words, labels)`` of each text.
        labels: the columns' names, BIO.
        constrained: whether a sequence must be legal.
        o_bias: for each type, how much likelier than "no entity" it has to be, as a logarithm.
    """
    logarithms = [np.log(np.maximum(each, LEAST)) for each in probabilities]
    return decode(logarithms, labels, constrained=constrained, o_bias=o_bias)


@dataclass(frozen=True)
class Choice:
    """Biases that are best by some texts.

    Attributes:
        o_bias: of each type; all 0 where ``f1`` is not above what no bias reaches, or not known.
        f1: strict micro F1 of biases chosen fold by fold without the fold they are scored on: what
            such a choice is worth on texts that had no part in it. NaN for a single fold.
    """

    o_bias: dict[str, float]
    f1: float


def choose_biases(
    probabilities: Sequence[NDArray[np.float32]],
    tags: Sequence[Sequence[str]],
    folds: NDArray[np.int64],
    labels: Sequence[str],
    *,
    constrained: bool,
) -> Choice:
    """For each type the bias with the best strict F1 of that type, all types having the same; of
    equal ones the smallest. Few texts tell little: where such a choice does not help on the fold
    that it leaves out, or there is one fold only to judge by, there is no bias.

    Args:
        probabilities: ``(words, labels)`` of each text.
        tags: the right ones.
        folds: ``(texts,)``.
        labels: the columns' names.
        constrained: as for :func:`find_tags`.
    """
    types = types_of(labels)
    gold = [_spans(each) for each in tags]
    tried = [
        _counts(gold, _found(probabilities, labels, dict.fromkeys(types, bias), constrained), types)
        for bias in BIASES
    ]
    counts = np.stack(tried)  # (biases, texts, types, 2); no bias first

    def best(texts: NDArray[np.bool_]) -> dict[str, float]:
        hits, total = np.moveaxis(counts[:, texts].sum(axis=1), -1, 0)
        f1 = 2 * hits / np.maximum(total, 1)
        return {name: BIASES[int(f1[:, n].argmax())] for n, name in enumerate(types)}

    groups = np.unique(folds)
    if len(groups) < 2:
        return Choice(dict.fromkeys(types, 0.0), np.nan)
    worth = np.zeros(2, dtype=np.int64)
    for fold in groups:
        rows = np.flatnonzero(folds == fold).tolist()
        some = [probabilities[row] for row in rows]
        named = _found(some, labels, best(folds != fold), constrained)
        worth += _counts([gold[row] for row in rows], named, types).sum(axis=(0, 1))
    f1, plain = (2 * hits / max(total, 1) for hits, total in (worth, counts[0].sum(axis=(0, 1))))
    chosen = best(folds >= 0) if f1 > plain else dict.fromkeys(types, 0.0)
    return Choice(chosen, float(f1))


def _found(
    probabilities: Sequence[NDArray[np.float32]],
    labels: Sequence[str],
    o_bias: Mapping[str, float],
    constrained: bool,
) -> list[list[Span]]:
    tags = find_tags(probabilities, labels, constrained=constrained, o_bias=o_bias)
    return [_spans(each) for each in tags]


def _spans(tags: Sequence[str]) -> list[Span]:
    return read_spans(tags, strict=True)


def _counts(
    gold: Sequence[Sequence[Span]], named: Sequence[Sequence[Span]], types: Sequence[str]
) -> NDArray[np.int64]:
    """Entities that are right, and gold and named ones together: ``(texts, types, 2)``."""
    place = {name: number for number, name in enumerate(types)}
    counts = np.zeros((len(gold), len(types), 2), dtype=np.int64)
    for row, (wanted, found) in enumerate(zip(gold, named, strict=True)):
        for span in set(wanted) & set(found):
            counts[row, place[span.type], 0] += 1
        for span in (*wanted, *found):
            counts[row, place[span.type], 1] += 1
    return counts
