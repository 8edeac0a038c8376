"""Errors grouped, and types confused, by hand and on random sentences."""

from __future__ import annotations

import random

import numpy as np
import pytest

from kernel_lib.metrics.entity_errors import entity_errors, pair_entities, type_confusion
from kernel_lib.metrics.tags import Span, read_spans
from tests.test_metrics_tags import random_tags

P, L = "P", "L"
GROUPS = [
    # gold, predicted, kinds with the numbers of gold and prediction
    ([(P, 0, 2)], [(P, 0, 2)], []),
    ([(P, 0, 2)], [], [("missed", 0, None)]),
    ([], [(P, 0, 2)], [("spurious", None, 0)]),
    ([(P, 0, 2)], [(P, 2, 4)], [("missed", 0, None), ("spurious", None, 0)]),
    ([(P, 0, 2)], [(P, 1, 2)], [("boundary", 0, 0)]),
    ([(P, 0, 2)], [(L, 0, 2)], [("type", 0, 0)]),
    ([(P, 0, 2)], [(L, 1, 3)], [("boundary and type", 0, 0)]),
    # Two run into one: the longer overlap, and of equal ones the first, has it.
    ([(P, 0, 2), (P, 2, 5)], [(P, 0, 5)], [("missed", 0, None), ("boundary", 1, 0)]),
    ([(P, 0, 2), (P, 2, 4)], [(P, 0, 4)], [("boundary", 0, 0), ("missed", 1, None)]),
    # One falls in two.
    ([(P, 0, 4)], [(P, 0, 1), (P, 2, 4)], [("spurious", None, 0), ("boundary", 0, 1)]),
    # The same type comes before the longer overlap, the same boundaries before the type.
    ([(P, 0, 1), (L, 1, 4)], [(P, 0, 4)], [("boundary", 0, 0), ("missed", 1, None)]),
    ([(P, 1, 2)], [(P, 1, 3), (L, 1, 2)], [("type", 0, 1), ("spurious", None, 0)]),
]


@pytest.mark.parametrize(("gold", "predicted", "expected"), GROUPS)
def test_errors_by_hand(
    gold: list[tuple], predicted: list[tuple], expected: list[tuple[str, int | None, int | None]]
) -> None:
    wanted, found = ([Span(*span) for span in spans] for spans in (gold, predicted))
    mistakes = {(each.kind, each.gold, each.predicted) for each in entity_errors(wanted, found)}
    assert mistakes == {
        (kind, None if i is None else wanted[i], None if j is None else found[j])
        for kind, i, j in expected
    }


def test_errors_stand_in_the_order_of_the_sentence_whatever_the_order_given() -> None:
    gold = [Span(P, 0, 1), Span(L, 3, 5), Span(P, 7, 9)]
    predicted = [Span(L, 1, 2), Span(L, 3, 4), Span(L, 7, 9), Span(P, 11, 12)]
    kinds = ["missed", "spurious", "boundary", "type", "spurious"]
    assert [each.kind for each in entity_errors(gold, predicted)] == kinds
    assert entity_errors(gold[::-1], predicted[::-1]) == entity_errors(gold, predicted)


def corpus(sentences: int) -> list[tuple[list[Span], list[Span]]]:
    generator = random.Random(8)
    tags = [[random_tags(generator, "BIO") for _ in range(2)] for _ in range(sentences)]
    return [tuple(read_spans(each, strict=False) for each in both) for both in tags]


def test_each_entity_is_in_one_pair_and_no_two_left_over_overlap() -> None:
    for gold, predicted in corpus(500):
        pairs = pair_entities(gold, predicted)
        assert sorted(span for span, _ in pairs if span) == sorted(gold)
        assert sorted(span for _, span in pairs if span) == sorted(predicted)
        assert sum(a == b for a, b in pairs) == len(set(gold) & set(predicted))
        missed = [one for one, other in pairs if other is None]
        spurious = [other for one, other in pairs if one is None]
        assert not any(a.start < b.end and b.start < a.end for a in missed for b in spurious)


def test_the_confusion_by_hand() -> None:
    gold = [[Span(P, 0, 2), Span(L, 3, 4)], [Span(P, 0, 1), Span(P, 2, 3)]]
    predicted = [[Span(P, 0, 1), Span(P, 3, 4)], [Span(P, 0, 1), Span(L, 5, 6)]]
    found = type_confusion(gold, predicted)
    assert found.types == (L, P)
    assert found.counts.tolist() == [[0, 1, 0], [0, 2, 1], [1, 0, 0]]
    assert found.boundary.tolist() == [0, 1]
    only = type_confusion(gold, predicted, types=[P])
    assert only.counts.tolist() == [[2, 1], [1, 0]]
    assert type_confusion([], []).counts.tolist() == [[0]]


def test_the_confusion_adds_up() -> None:
    sentences = corpus(300)
    gold, predicted = zip(*sentences, strict=True)
    found = type_confusion(gold, predicted, types="TLPX")
    for type, row, column in zip(found.types, found.counts, found.counts.T, strict=False):
        assert row.sum() == sum(span.type == type for spans in gold for span in spans)
        assert column.sum() == sum(span.type == type for spans in predicted for span in spans)
    right = sum(len(set(one) & set(other)) for one, other in sentences)
    assert np.trace(found.counts) - found.boundary.sum() == right
    kinds = [each.kind for both in sentences for each in entity_errors(*both)]
    assert found.boundary.sum() == kinds.count("boundary")
    assert found.counts[:, -1].sum() == kinds.count("missed")
    assert found.counts[-1].sum() == kinds.count("spurious")
