"""Counts of a text's n-grams, of characters or of words, and their TF-IDF weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

_WORD = re.compile(r"\w+|[^\w\s]")
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class NGrams:
    """Which n-grams are counted; upper and lower case stay apart.

    Attributes:
        unit: ``character``: any characters side by side, each run of white space being one blank;
            ``word``: words and punctuation marks, joined by a blank.
        shortest, longest: units in an n-gram.
    """

    unit: str
    shortest: int
    longest: int

    def of(self, text: str) -> Iterator[str]:
        """The n-grams of a text, each as often as it is there, the shortest first."""
        sizes = range(self.shortest, self.longest + 1)
        if self.unit == "character":
            text = _BLANKS.sub(" ", text)
            return chain.from_iterable(
                (text[at : at + size] for at in range(len(text) - size + 1)) for size in sizes
            )
        words = _WORD.findall(text)
        return chain.from_iterable(
            (" ".join(words[at : at + size]) for at in range(len(words) - size + 1))
            for size in sizes
        )


@dataclass(frozen=True)
class NGramCounts:
    """How often each n-gram is in each text.

    Attributes:
        names: the n-grams, one a column.
        matrix: ``(texts, columns)``, float64, nothing stored where there is none.
    """

    names: list[str]
    matrix: csr_matrix

    def common(self, rows: NDArray[np.int64], least_texts: int) -> list[str]:
        """The n-grams that are in so many of some texts or more, sorted."""
        holding = _texts_holding(self.matrix[rows])
        return sorted(self.names[at] for at in np.flatnonzero(holding >= least_texts))

    def columns(self, names: Sequence[str]) -> csr_matrix:
        """The counts of some n-grams, ``(texts, names)``; 0 where no text has one."""
        places = {name: at for at, name in enumerate(names)}
        target = np.array([places.get(name, -1) for name in self.names], dtype=np.int64)
        old = self.matrix
        kept = target[old.indices] >= 0
        kept_before = np.concatenate([[0], np.cumsum(kept)])
        found = csr_matrix(
            (old.data[kept], target[old.indices[kept]], kept_before[old.indptr]),
            shape=(old.shape[0], len(names)),
        )
        found.sort_indices()
        return found


def count_ngrams(texts: Iterable[str], ngrams: NGrams) -> NGramCounts:
    """Counts the n-grams of some texts."""
    places: dict[str, int] = {}
    found: list[NDArray[np.int32]] = []
    numbers: list[NDArray[np.int32]] = []
    for text in texts:
        ids = np.fromiter(
            (places.setdefault(one, len(places)) for one in ngrams.of(text)), np.int32
        )
        columns, counts = np.unique(ids, return_counts=True)
        found.append(columns)
        numbers.append(counts.astype(np.int32))
    ends = np.cumsum([0, *map(len, found)])
    empty = np.empty(0, dtype=np.int32)
    data = np.concatenate([empty, *numbers]).astype(np.float64)
    shape = len(found), len(places)
    return NGramCounts(
        list(places), csr_matrix((data, np.concatenate([empty, *found]), ends), shape)
    )


def inverse_frequencies(counts: csr_matrix) -> NDArray[np.float64]:
    """``ln((1 + texts) / (1 + texts that hold it)) + 1`` of each n-gram, ``(columns,)``: the
    smoothed form of scikit-learn's ``TfidfTransformer``."""
    inverse: NDArray[np.float64] = np.log((1 + counts.shape[0]) / (1 + _texts_holding(counts))) + 1
    return inverse


def tfidf(counts: csr_matrix, inverse: NDArray[np.float64]) -> csr_matrix:
    """Rows of length 1 of ``(1 + ln count) * inverse``; a text without known n-grams stays 0.

    Args:
        counts: ``(texts, columns)``.
        inverse: ``(columns,)``, from :func:`inverse_frequencies`.
    """
    weights = (1 + np.log(counts.data)) * inverse[counts.indices]
    for start, end in pairwise(counts.indptr):
        weights[start:end] /= np.linalg.norm(weights[start:end]) or 1.0
    return csr_matrix((weights, counts.indices, counts.indptr), counts.shape)


def _texts_holding(counts: csr_matrix) -> NDArray[np.int64]:
    return np.bincount(counts.indices, minlength=counts.shape[1])
