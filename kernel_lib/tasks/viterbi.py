"""The best sequence of labels that is legal, for many sentences at once."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.tag_faults import is_legal
from kernel_lib.metrics.tags import Scheme, split_tags

ILLEGAL = -1e4  # for log-probabilities as good as minus infinity, and float16 holds it
LEAST = -1e2  # a log-probability below counts as this: no illegal step is worth avoiding it
CHUNK = 2**20  # how many steps between two labels are looked at in one go

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


class Constraints(NamedTuple):
    """What is added to the scores: 0 where a step is legal, ``ILLEGAL`` where not.

    Attributes:
        transitions: ``(labels, labels)``, from the row's label to the column's.
        start: ``(labels,)``, for the first word's label.
        end: ``(labels,)``, for the last word's label; all 0 but in BIOES.
    """

    transitions: Floats
    start: Floats
    end: Floats


def legal_transitions(labels: Sequence[str], *, scheme: Scheme = "BIO") -> Constraints:
    """The constraints of a scheme on these labels.

    Returns:
        In the order in which :func:`viterbi_many` takes them: ``viterbi_many(scores,
        *legal_transitions(labels))``. A CRF adds its own to each.

    Raises:
        DataError: a label is no tag of the scheme, or comes twice.
        SettingsError: the scheme is unknown.
    """
    split_tags(labels, scheme)
    if len(set(labels)) < len(labels):
        twice = sorted({label for label in labels if list(labels).count(label) > 1})
        raise DataError(f"The labels hold {', '.join(twice)} more than once. Give each once.")

    def cost(before: str | None, tag: str | None) -> float:
        return 0.0 if is_legal(before, tag, scheme=scheme) else ILLEGAL

    return Constraints(
        transitions=np.array([[cost(before, label) for label in labels] for before in labels]),
        start=np.array([cost(None, label) for label in labels]),
        end=np.array([cost(label, None) for label in labels]),
    )


def decode(
    log_probabilities: Sequence[ArrayLike],
    labels: Sequence[str],
    *,
    scheme: Scheme = "BIO",
    constrained: bool = True,
    o_bias: Mapping[str, float] | None = None,
) -> list[list[str]]:
    """The tags of each sentence: the likeliest legal ones.

    With the labels of :func:`kernel_lib.metrics.tags.label_names` no tag is ever illegal.

    Args:
        log_probabilities: ``(words, labels)`` of each sentence; -inf is allowed.
        labels: the columns' names.
        scheme: theirs.
        constrained: False takes each word's likeliest label by itself, legal or not.
        o_bias: for each type, what is subtracted from the log-probability of all its labels (B-X
            and I-X): with b a word is X rather than O only where X is e^b times as likely. Above 0
            there are fewer entities of the type, below 0 more; the same b for all types is b added
            to O. Types left out have 0.

    Raises:
        DataError: scores of another shape, NaN or +inf among them; a label is none of the scheme's.
        SettingsError: ``o_bias`` names a type without a label, or is beyond 100.
    """
    constraints = legal_transitions(labels, scheme=scheme)
    bias = _bias(labels, scheme, o_bias or {})
    scores = [np.maximum(each, LEAST) - bias for each in _as_scores(log_probabilities, len(labels))]
    if constrained:
        paths = viterbi_many(scores, *constraints)
    else:
        paths = [each.argmax(axis=1) for each in scores]
    names = list(labels)
    return [[names[label] for label in path.tolist()] for path in paths]


def viterbi(
    scores: ArrayLike,
    transitions: ArrayLike,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> Labels:
    """The best path through one sentence, see :func:`viterbi_many`.

    Returns:
        ``(words,)``, a label for each word.
    """
    return viterbi_many([scores], transitions, start, end)[0]


def viterbi_many(
    scores: Sequence[ArrayLike],
    transitions: ArrayLike,
    start: ArrayLike | None = None,
    end: ArrayLike | None = None,
) -> list[Labels]:
    """The path through each sentence whose scores, transitions, start and end sum to the most.

    Of equal paths the one whose last label has the lowest number, then the last but one, and so
    on. A sentence's path does not depend on the others: alone it comes out the same bit for bit.

    Args:
        scores: ``(words, labels)`` of each sentence, which may have no word.
        transitions: ``(labels, labels)``, from the row's label to the column's.
        start: ``(labels,)``, added to the first word's scores.
        end: ``(labels,)``, added to the last word's.

    Returns:
        ``(words,)`` of each sentence, a label for each word.

    Raises:
        DataError: an array of another shape, or NaN or +inf in it.
    """
    steps = _finite("transitions", transitions)
    count = steps.shape[0] if steps.ndim else 0
    first, last = (
        np.zeros(count) if each is None else _finite(name, each)
        for name, each in (("start", start), ("end", end))
    )
    if steps.shape != (count, count) or not first.shape == last.shape == (count,) or not count:
        raise DataError(
            f"transitions have the shape {steps.shape}, start {first.shape}, end {last.shape}. "
            "Give (labels, labels) and twice (labels,)."
        )
    sentences = _as_scores(scores, count)
    lengths = np.array([len(each) for each in sentences], np.int64)
    if not lengths.sum():
        return [np.empty(0, np.int64) for _ in sentences]
    # From here on best[word] is the score of the best path up to it, for each label of the word.
    best = _forwards(np.concatenate(sentences), lengths, steps, first)
    return _backwards(best, lengths, steps, last)


def _forwards(
    scores: Floats, lengths: NDArray[np.int64], transitions: Floats, start: Floats
) -> Floats:
    """The scores of the best paths up to each word, ``(words, labels)`` as the scores are."""
    row, offsets = _packing(lengths)
    best = np.empty_like(scores)
    best[row] = scores
    best[: offsets[1]] += start
    into = np.ascontiguousarray(transitions.T)  # (to, from): the maximum runs along the last axis
    before = best[: offsets[1]]
    for begin, stop in itertools.pairwise(offsets[1:]):
        here = best[begin:stop]
        here += np.maximum.reduce(before[: stop - begin, None] + into, axis=2)
        before = here
    return best[row]


def _packing(lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[int]]:
    """A place for each word: the first words of all, longest sentence first, then the second ones.

    Every step then is one block of rows, and no row is padding.

    Returns:
        The row of each word, and where each step's rows begin, the number of words behind them.
    """
    order = np.argsort(-lengths, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    reach = len(lengths) - np.searchsorted(np.sort(lengths), np.arange(lengths.max()), "right")
    offsets = np.concatenate([[0], np.cumsum(reach)])
    step = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return offsets[step] + np.repeat(rank, lengths), offsets.tolist()


def _backwards(
    best: Floats, lengths: NDArray[np.int64], transitions: Floats, end: Floats
) -> list[Labels]:
    """The best paths, from the sentences' ends to their beginnings."""
    into = np.ascontiguousarray(transitions.T)
    # From each word and label the label before it; what a sentence's first word has is not used.
    came = np.zeros(best.shape, np.int64)
    chunk = max(1, CHUNK // into.size)
    for begin in range(1, len(best), chunk):
        before = best[begin - 1 : begin - 1 + chunk, None]
        came[begin : begin + chunk] = (before[: len(best) - begin] + into).argmax(axis=2)
    paths, stop = [], 0
    for length in lengths.tolist():
        stop += length
        path = [int((best[stop - 1] + end).argmax())] if length else []
        for choices in reversed(came[stop - length + 1 : stop].tolist()):
            path.append(choices[path[-1]])
        paths.append(np.array(path[::-1], np.int64))
    return paths


def _as_scores(scores: Sequence[ArrayLike], labels: int) -> list[Floats]:
    arrays = []
    for number, each in enumerate(scores):
        array = _finite(f"scores of sentence {number}", each)
        if array.ndim != 2 or array.shape[1] != labels:
            raise DataError(
                f"The scores of sentence {number} have the shape {array.shape}; with {labels} "
                f"labels give (words, {labels})."
            )
        arrays.append(array)
    return arrays


def _finite(name: str, values: ArrayLike) -> Floats:
    """As float64; -inf may be in it."""
    array = np.asarray(values, np.float64)
    if not (array < np.inf).all():
        place = tuple(int(i) for i in np.argwhere(~(array < np.inf))[0])
        raise DataError(f"The {name} hold {array[place]} at {place}. Give numbers or -inf.")
    return array


def _bias(labels: Sequence[str], scheme: Scheme, o_bias: Mapping[str, float]) -> Floats:
    types = [type for _, type in split_tags(labels, scheme)]
    for type, bias in o_bias.items():
        if type not in types or not type:
            known = ", ".join(sorted(set(types) - {""}))
            raise SettingsError(f"o_bias names {type!r}; the labels' types are {known}.")
        if not abs(bias) <= -LEAST:
            raise SettingsError(f"o_bias of {type!r} is {bias}; give {LEAST:g} to {-LEAST:g}.")
    return np.array([o_bias.get(type, 0.0) for type in types])
