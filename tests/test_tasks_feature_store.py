"""What took long is computed once."""

from __future__ import annotations

import pytest

from kernel_lib.tasks.feature_store import FeatureStore


def test_the_same_is_made_once_and_the_longest_unasked_goes_first() -> None:
    store, made = FeatureStore(most=2), []

    def make(name: str) -> list[str]:
        return store.get([name, (1, 2)], lambda: made.append(name) or [name])

    first = make("a")
    assert make("a") is first and make("b") == ["b"] and make("a") is first
    make("c")
    assert make("a") is first and made == ["a", "b", "c"]
    make("b")
    assert made == ["a", "b", "c", "b"]


def test_what_raised_is_not_kept() -> None:
    store = FeatureStore()
    with pytest.raises(ZeroDivisionError):
        store.get(["a"], lambda: 1 // 0)
    assert store.get(["a"], lambda: 2) == 2
