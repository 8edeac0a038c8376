"""What took long is computed once."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.tasks.feature_store import MOST_BYTES, FeatureStore, bytes_of
from kernel_lib.text.ngrams import NGrams, count_ngrams


def test_the_same_is_made_once_and_the_longest_unasked_goes_first() -> None:
    store, made = FeatureStore(most_bytes=2000), []

    def make(name: str) -> np.ndarray:
        return store.get([name, (1, 2)], lambda: made.append(name) or np.zeros(125))  # 1000 bytes

    first = make("a")
    assert make("a") is first and make("b").shape == (125,) and make("a") is first
    make("c")
    assert make("a") is first and made == ["a", "b", "c"]
    make("b")
    assert made == ["a", "b", "c", "b"]


def test_what_raised_is_not_kept() -> None:
    store = FeatureStore()
    with pytest.raises(ZeroDivisionError):
        store.get(["a"], lambda: 1 // 0)
    assert store.get(["a"], lambda: 2) == 2


def test_it_is_bound_by_bytes_however_many_results_there_are() -> None:
    store, made = FeatureStore(), []
    for name in [*range(40), *range(40)]:  # runs that take turns at inference
        store.get([name], lambda name=name: made.append(name) or np.zeros(10))
    assert made == list(range(40))
    assert MOST_BYTES == 4 * 2**30


def test_what_is_larger_than_all_it_may_keep_is_kept_alone() -> None:
    store = FeatureStore(most_bytes=10)
    store.get(["small"], lambda: np.zeros(1))
    large = store.get(["large"], lambda: np.zeros(100))
    assert store.get(["large"], lambda: None) is large
    assert store.get(["small"], lambda: "made anew") == "made anew"


def test_the_bytes_of_a_result_are_those_of_its_numbers_and_names() -> None:
    assert bytes_of(np.zeros((3, 4), dtype=np.float32)) == 48
    counts = count_ngrams(["abcdefghij", "abcdefghij"], NGrams("character", 10, 10))
    matrix = counts.matrix
    numbers = sum(part.nbytes for part in (matrix.data, matrix.indices, matrix.indptr))
    assert bytes_of(counts) == numbers + 8 + counts.names[0].__sizeof__()
