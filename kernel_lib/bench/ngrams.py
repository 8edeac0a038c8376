"""Character trigrams with interpolated Kneser-Ney smoothing, counted and looked up with numpy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kernel_lib.errors import DataError

UNKNOWN, BEGIN, END = 0, 1, 2
MARKS = 3  # ids below this are no characters
CONTEXT = 2  # marks before and behind a text
Array = np.ndarray[Any, np.dtype[Any]]


class Trigrams:
    """Probabilities of a character after the two before it.

    With c the counts of trigrams, d a discount, N(x) the number of different characters seen in
    the place of a dot, and each order handing what it discounts to the next one:

        p(z | x y) = max(c(xyz) - d, 0) / c(xy) + d N(xy.) / c(xy) * p(z | y)
        p(z | y)   = max(N(.yz) - d, 0) / N(.y.) + d N(y.) / N(.y.) * p(z)
        p(z)       = (N(.z) + 1/2) / (N(..) + V/2)

    d is n1 / (n1 + 2 n2), from how many entries of the order occur once and twice (Kneser and
    Ney, 1995, in the interpolated form of Chen and Goodman, 1999).

    Args:
        texts: what to count.
        alphabet: characters that get an id though they may not occur.

    Raises:
        DataError: there is no text.
    """

    def __init__(self, texts: Sequence[str], *, alphabet: Iterable[str] = ()) -> None:
        if not texts:
            raise DataError("no text to count characters in; give more training sentences.")
        characters = sorted(set().union(*texts, alphabet))
        self.characters = ["\0"] * MARKS + characters
        self._ids = {character: at for at, character in enumerate(characters, start=MARKS)}
        self._size = size = len(self.characters)
        codes = self.encode(texts)
        inner = np.flatnonzero(codes != BEGIN)
        trigrams = self._key(codes[inner - 2], codes[inner - 1], codes[inner])
        self._trigrams, counts = _counted(trigrams)
        self._trigram_discount = _discount(counts)
        self._trigram_rest = np.maximum(counts - self._trigram_discount, 0.0)
        self._contexts, first = np.unique(self._trigrams // size, return_index=True)
        self._context_count = np.add.reduceat(counts, first)
        self._context_kinds = np.diff(np.append(first, len(counts)))
        self._bigrams, kinds = _counted(self._trigrams % (size * size))
        self._bigram_discount = _discount(kinds)
        self._bigram_rest = np.maximum(kinds - self._bigram_discount, 0.0)
        left, right = self._bigrams // size, self._bigrams % size
        self._left_count = np.bincount(left, weights=kinds, minlength=size)
        self._left_kinds = np.bincount(left, minlength=size)
        before = np.bincount(right, minlength=size) + 0.5
        self._unigram = before / before.sum()

    def encode(self, texts: Sequence[str]) -> Array:
        """All texts in a row, two marks before and behind each: int64 ids."""
        ids = self._ids
        rows: list[int] = []
        for text in texts:
            rows += [BEGIN] * CONTEXT
            rows += [ids.get(character, UNKNOWN) for character in text]
            rows += [END] * CONTEXT
        return np.array(rows, dtype=np.int64)

    def ids_of(self, text: str) -> list[int]:
        """The ids of characters, one each; those without one are left out."""
        return [self._ids[character] for character in text if character in self._ids]

    def follows(self, left: Array, right: Array) -> Array:
        """Whether a character was ever seen behind another."""
        _, found = _looked_up(self._bigrams, left * self._size + right)
        return found

    def log_probability(self, first: Array, second: Array, third: Array) -> Array:
        """Natural logarithm of p(third | first second), for arrays of ids of one shape."""
        at, found = _looked_up(self._bigrams, second * self._size + third)
        seen = self._left_count[second]
        some = np.maximum(seen, 1.0)
        handed = np.where(seen > 0, self._bigram_discount * self._left_kinds[second] / some, 1.0)
        lower = np.where(found, self._bigram_rest[at], 0.0) / some + handed * self._unigram[third]
        at, found = _looked_up(self._contexts, first * self._size + second)
        count = np.where(found, self._context_count[at], 1)
        handed = np.where(found, self._trigram_discount * self._context_kinds[at] / count, 1.0)
        at, seen_whole = _looked_up(self._trigrams, self._key(first, second, third))
        return np.log(np.where(seen_whole, self._trigram_rest[at], 0.0) / count + handed * lower)

    def _key(self, first: Array, second: Array, third: Array) -> Array:
        return (first * self._size + second) * self._size + third


def _counted(keys: Array) -> tuple[Array, Array]:
    return np.unique(keys, return_counts=True)


def _looked_up(table: Array, keys: Array) -> tuple[Array, Array]:
    """Where each key stands in a sorted table (0 where it does not), and whether it does."""
    at = np.searchsorted(table, keys)
    at[at == len(table)] = 0
    found = table[at] == keys
    return np.where(found, at, 0), found


def _discount(counts: Array) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once and twice else 0.5
