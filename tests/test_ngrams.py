"""Trigram probabilities: equal to the formula by hand, and sums of one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernel_lib.bench.ngrams import BEGIN, END, MARKS, UNKNOWN, Trigrams

TEXTS = ["甲乙丙", "甲乙丁", "丙乙丙", "甲乙丙丁"]


def probability(model: Trigrams, first: int, second: int, third: int) -> float:
    ids = [np.array([each]) for each in (first, second, third)]
    return math.exp(model.log_probability(*ids)[0])


def by_the_formula(texts: list[str], first: str, second: str, third: str, alphabet: int) -> float:
    """The module's three lines with dictionaries; marks are written as < and >."""
    trigrams: dict[str, int] = {}
    for text in texts:
        row = "<<" + text + ">>"
        for at in range(2, len(row)):
            trigrams[row[at - 2 : at + 1]] = trigrams.get(row[at - 2 : at + 1], 0) + 1
    kinds: dict[str, int] = {}
    for each in trigrams:
        kinds[each[1:]] = kinds.get(each[1:], 0) + 1

    def discount(counts: list[int]) -> float:
        once, twice = counts.count(1), counts.count(2)
        return once / (once + 2 * twice) if once and twice else 0.5

    before = {z: sum(pair[1] == z for pair in kinds) for z in {pair[1] for pair in kinds}}
    p = (before.get(third, 0) + 0.5) / (sum(before.values()) + 0.5 * alphabet)
    for table, context in ((kinds, second), (trigrams, first + second)):
        d = discount(list(table.values()))
        total = sum(count for key, count in table.items() if key[:-1] == context)
        if total:
            different = sum(key[:-1] == context for key in table)
            own = max(table.get(context + third, 0) - d, 0)
            p = own / total + d * different / total * p
    return p


@pytest.mark.parametrize(
    "trigram", ["甲乙丙", "甲乙丁", "丙乙丁", "丁丁丁", "<<甲", "<甲乙", "丙丁甲"]
)
def test_a_probability_is_that_of_the_formula(trigram: str) -> None:
    model = Trigrams(TEXTS)
    ids = [BEGIN if each == "<" else model.ids_of(each)[0] for each in trigram]
    expected = by_the_formula(TEXTS, *trigram, alphabet=len(model.characters))
    assert probability(model, *ids) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("context", ["甲乙", "乙丙", "丁丁"])
def test_all_that_can_follow_adds_up_to_one(context: str) -> None:
    model = Trigrams(TEXTS, alphabet="戊己")
    first, second = model.ids_of(context)
    total = sum(probability(model, first, second, each) for each in range(len(model.characters)))
    assert total == pytest.approx(1.0)


def test_what_was_seen_is_likelier_and_nothing_is_impossible() -> None:
    model = Trigrams(TEXTS, alphabet="戊")
    a, b, c, never = model.ids_of("甲乙丙戊")
    assert probability(model, a, b, c) > probability(model, a, b, never) > 0
    assert probability(model, never, never, UNKNOWN) > 0


def test_encoding_marks_both_ends_and_keeps_every_place() -> None:
    model = Trigrams(TEXTS)
    codes = model.encode(["甲龘", ""])
    first = model.ids_of("甲")[0]
    begin, end = [BEGIN] * 2, [END] * 2
    assert codes.tolist() == [*begin, first, UNKNOWN, *end, *begin, *end]
    assert first >= MARKS


def test_pairs_that_were_seen_are_known() -> None:
    model = Trigrams(TEXTS)
    a, b, c, d = model.ids_of("甲乙丙丁")
    found = model.follows(np.array([a, c, d, BEGIN]), np.array([b, d, d, a]))
    assert found.tolist() == [True, True, False, True]
