"""Tags from probabilities; biases as a plain search chooses them, without the fold left out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from kernel_lib.metrics.entities import entity_scores
from kernel_lib.tasks.entity_decoding import (
    BIASES,
    are_biases,
    are_labels,
    choose_biases,
    find_tags,
    illegal_steps,
    types_of,
)

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


def test_the_likeliest_legal_tags_or_each_words_own() -> None:
    found = np.array(
        [[0.4, 0.1, 0.5, 0, 0], [0.0, 0.1, 0.2, 0.3, 0.4], [1, 0, 0, 0, 0]], dtype=np.float32
    )
    texts = [found, found[:0], found[2:]]
    free = find_tags(texts, LABELS, constrained=False, o_bias={})
    assert free == [["I-LOC", "I-PER", "O"], [], ["O"]]
    legal = find_tags(texts, LABELS, constrained=True, o_bias={})
    assert legal == [["O", "B-PER", "O"], [], ["O"]]
    # Of all 125 sequences none that is legal has a higher product.
    steps = illegal_steps(LABELS).numpy()
    best = max(
        itertools.product(range(5), repeat=3),
        key=lambda path: (
            not any(steps[a, b] for a, b in itertools.pairwise((-1, *path))),
            np.prod([found[word, label] for word, label in enumerate(path)]),
        ),
    )
    assert [LABELS[label] for label in best] == legal[0]


@pytest.mark.parametrize("constrained", [True, False])
def test_a_bias_moves_its_own_type_only(constrained: bool) -> None:
    found = np.array([[0.5, 0.3, 0, 0.2, 0], [0.5, 0.2, 0, 0.3, 0]], dtype=np.float32)

    def tags(**o_bias: float) -> list[str]:
        (one,) = find_tags([found], LABELS, constrained=constrained, o_bias=o_bias)
        return one

    assert tags() == ["O", "O"] == tags(PER=-0.5, LOC=-0.5)  # .3 e^.5 is below .5
    assert tags(PER=-0.6) == ["O", "B-PER"] and tags(LOC=-0.6) == ["B-LOC", "O"]
    assert tags(PER=-2.0) == ["B-PER", "B-PER"]
    assert tags(PER=-2.0, LOC=-2.0) == ["B-LOC", "B-PER"]


def corpus(seed: int, texts: int = 40) -> tuple[list, list, Any]:
    """Random texts, and probabilities that lean to the truth and away from entities."""
    random = np.random.default_rng(seed)
    tags, probabilities = [], []
    for _ in range(texts):
        labels, gold = np.zeros(random.integers(0, 12), dtype=int), []
        for word in range(len(labels)):
            continues = word > 0 and labels[word - 1] > 0 and random.random() < 0.5
            opens = int(random.choice([0, 0, 0, 1, 3]))
            labels[word] = (labels[word - 1] + 1) // 2 * 2 if continues else opens
            gold.append(LABELS[labels[word]])
        logits = random.normal(size=(len(labels), 5)) + 3.0 * np.eye(5)[labels]
        logits[:, 0] += 3.0
        logits[:, 3:] += 1.5
        tags.append(gold)
        exponents = np.exp(logits)
        probabilities.append((exponents / exponents.sum(1, keepdims=True)).astype(np.float32))
    return probabilities, tags, random.integers(0, 3, texts)


def plain_choice(probabilities: list, tags: list, constrained: bool) -> dict[str, float]:
    """For each type all biases are tried, on the type alone, by the metrics' own scores."""
    choice = {}
    for name in ("LOC", "PER"):
        best = (-1.0, 0.0, 0.0)
        for bias in BIASES:
            both = {"LOC": bias, "PER": bias}
            found = find_tags(probabilities, LABELS, constrained=constrained, o_bias=both)
            f1 = entity_scores(tags, found, types=[name]).strict.micro.f1
            best = max(best, (f1, -abs(bias), -bias))
        choice[name] = -best[2]
    return choice


@pytest.mark.parametrize("constrained", [True, False])
def test_biases_are_those_of_a_plain_search(constrained: bool) -> None:
    probabilities, tags, folds = corpus(3, texts=80)
    choice = choose_biases(probabilities, tags, folds, LABELS, constrained=constrained)
    expected = plain_choice(probabilities, tags, constrained)
    assert choice.o_bias == expected and set(expected.values()) != {0.0}
    assert expected["LOC"] != expected["PER"]
    named: list[list[str]] = [[] for _ in tags]
    for fold in range(3):
        others = [n for n in range(len(tags)) if folds[n] != fold]
        bias = plain_choice(
            [probabilities[n] for n in others], [tags[n] for n in others], constrained
        )
        for n in np.flatnonzero(folds == fold):
            (named[n],) = find_tags(
                [probabilities[n]], LABELS, constrained=constrained, o_bias=bias
            )
    f1 = entity_scores(tags, named).strict.micro.f1
    assert choice.f1 == pytest.approx(f1, abs=1e-12)
    plain = find_tags(probabilities, LABELS, constrained=constrained, o_bias={})
    assert f1 > entity_scores(tags, plain).strict.micro.f1


def test_the_fold_that_is_scored_has_no_part_in_its_choice() -> None:
    """Of two folds each has its entities below a bias that only the other one asks for."""

    def text(share: float) -> np.ndarray:
        return np.array([[1 - share, share, 0, 0, 0]], dtype=np.float32)

    # Fold 0: a bias of -1.5 finds its entities. Fold 1: the same words are none.
    probabilities = [text(0.25), text(0.25)]
    tags = [["B-LOC"], ["O"]]
    choice = choose_biases(probabilities, tags, np.array([0, 1]), LABELS, constrained=True)
    assert choice.f1 == 0.0  # with its own fold it would be 2/3
    assert choice.o_bias == {"LOC": 0.0, "PER": 0.0}  # so that nothing is chosen


def test_a_single_fold_chooses_nothing_since_nothing_could_check_it() -> None:
    sure, doubtful = ([[1 - share, share, 0, 0, 0]] for share in (0.9, 0.25))
    probabilities = [np.array(each, dtype=np.float32) for each in (sure, doubtful)] * 2
    tags = [["B-LOC"], ["B-LOC"]] * 2  # a bias below 0 finds all of them
    choice = choose_biases(probabilities, tags, np.zeros(4, int), LABELS, constrained=True)
    assert choice.o_bias == {"LOC": 0.0, "PER": 0.0} and np.isnan(choice.f1)
    choice = choose_biases(probabilities, tags, np.array([0, 0, 1, 1]), LABELS, constrained=True)
    assert choice.o_bias == {"LOC": -1.5, "PER": 0.0} and choice.f1 == 1.0


def test_nothing_to_name_is_no_reason_for_a_bias() -> None:
    sure = np.array([[1.0, 0, 0, 0, 0]], dtype=np.float32)
    choice = choose_biases([sure] * 4, [["O"]] * 4, np.arange(4), LABELS, constrained=True)
    assert choice.o_bias == {"LOC": 0.0, "PER": 0.0} and choice.f1 == 0.0


def test_no_step_into_an_inside_is_legal_but_from_its_own_type() -> None:
    illegal = illegal_steps(LABELS).numpy()
    assert illegal.shape == (6, 6)
    for before, label in itertools.product([*LABELS, None], LABELS):
        row = 5 if before is None else LABELS.index(before)
        expected = label[0] == "I" and (before or "O")[2:] != label[2:]
        assert illegal[row, LABELS.index(label)] == expected, (before, label)
    assert not illegal[:, 5].any()  # a window may end anywhere


def test_what_a_record_may_hold() -> None:
    assert types_of(["B-a-b", "O", "I-a-b", "B-c"]) == ["a-b", "c"] and types_of([]) == []
    assert are_labels(LABELS) and are_labels(["O", "B-a-b", "I-a-b"])
    for damaged in (
        None,
        "O",
        [],
        ["O"],
        tuple(LABELS),
        LABELS[1:],
        LABELS[:-1],
        LABELS[::-1],
        [*LABELS, "O"],
        ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
        ["O", 1],
    ):
        assert not are_labels(damaged), damaged
    assert are_biases({}, ["X"]) and are_biases({"X": 1}, ["X", "Y"])
    for wrong in (
        None,
        [],
        {"Z": 1.0},
        {"": 1.0},
        {"X": "1"},
        {"X": True},
        {"X": None},
        {"X": float("nan")},
        {"X": float("inf")},
        {"X": 100.5},
        {"X": 10**400},
    ):
        assert not are_biases(wrong, ["X"]), wrong
