"""The best legal path: against all paths tried one by one, alone and among others, with biases."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.tag_faults import illegal_tags
from kernel_lib.metrics.tags import label_names
from kernel_lib.tasks.viterbi import (
    ILLEGAL,
    decode,
    legal_transitions,
    viterbi,
    viterbi_many,
)
from tests.test_metrics_tags import SCHEMES

Array = NDArray[np.float64]
BIO = ["O", "B-P", "I-P", "B-L", "I-L"]


def by_trying_all(scores: Array, transitions: Array, start: Array, end: Array) -> list[int]:
    """The best of all paths; of equal ones that with the lowest last label, then last but one..."""

    def total(path: tuple[int, ...]) -> float:
        steps = sum(transitions[a, b] for a, b in itertools.pairwise(path))
        words = sum(row[label] for row, label in zip(scores, path, strict=True))
        return words + steps + start[path[0]] + end[path[-1]]

    paths = itertools.product(range(scores.shape[1]), repeat=len(scores))
    return list(min(paths, key=lambda path: (-total(path), path[::-1])))


@pytest.mark.parametrize("whole", [True, False], ids=["many ties", "no ties"])
def test_the_best_of_all_paths_is_found(whole: bool) -> None:
    random = np.random.default_rng(1)
    for _ in range(150):
        labels, words = random.integers(1, 5), random.integers(1, 6)
        shapes = ((words, labels), (labels, labels), (labels,), (labels,))
        # Small whole numbers add up exactly, so that ties are ties.
        arrays = [
            random.integers(-1, 2, shape).astype(float) if whole else random.normal(size=shape)
            for shape in shapes
        ]
        scores, transitions, start, end = arrays
        found = viterbi(scores, transitions, start, end)
        assert found.dtype == np.int64
        assert found.tolist() == by_trying_all(scores, transitions, start, end)


def test_without_start_and_end_these_are_zero() -> None:
    random = np.random.default_rng(2)
    scores, transitions, zeros = random.normal(size=(5, 3)), random.normal(size=(3, 3)), np.zeros(3)
    assert viterbi(scores, transitions).tolist() == by_trying_all(scores, transitions, zeros, zeros)
    free = viterbi(scores, np.zeros((3, 3)))
    assert free.tolist() == scores.argmax(axis=1).tolist()


def test_a_sentence_alone_comes_out_as_among_others() -> None:
    random = np.random.default_rng(3)
    lengths = [0, 7, 1, 300, 0, 7, 2, 41, 0]
    scores = [random.normal(size=(length, 4)) for length in lengths]
    transitions, start, end = (
        random.normal(size=(4, 4)),
        random.normal(size=4),
        random.normal(size=4),
    )
    together = viterbi_many(scores, transitions, start, end)
    assert [len(path) for path in together] == lengths
    for each, path in zip(scores, together, strict=True):
        assert path.tolist() == viterbi(each, transitions, start, end).tolist()
    assert viterbi_many([], transitions) == []
    assert [path.tolist() for path in viterbi_many(scores[:1], transitions)] == [[]]


def test_many_labels_and_words_are_taken_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    scores, transitions = (
        [random.normal(size=(n, 6)) for n in (40, 9, 1)],
        random.normal(size=(6, 6)),
    )
    expected = viterbi_many(scores, transitions)
    for chunk in (1, 36 * 7, 36 * 48, 36 * 49):
        monkeypatch.setattr("kernel_lib.tasks.viterbi.CHUNK", chunk)
        for path, other in zip(viterbi_many(scores, transitions), expected, strict=True):
            assert path.tolist() == other.tolist()


def test_the_legal_steps_of_bio() -> None:
    found = legal_transitions(BIO)
    legal = np.array(
        [  # to O B-P I-P B-L I-L
            [1, 1, 0, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 1, 1, 0],
            [1, 1, 0, 1, 1],
            [1, 1, 0, 1, 1],
        ]
    )
    assert (found.transitions == np.where(legal, 0, ILLEGAL)).all()
    assert found.start.tolist() == [0, 0, ILLEGAL, 0, ILLEGAL]
    assert found.end.tolist() == [0] * 5
    assert np.isfinite(np.float16(ILLEGAL))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_tag_is_illegal_however_sure_the_model_is_of_it(scheme: str) -> None:
    labels, random = label_names("PL", scheme=scheme), np.random.default_rng(5)
    sentences = []
    for words in (1, 2, 3, 30, 200):
        probabilities = np.full((words, len(labels)), -np.inf)
        probabilities[np.arange(words), random.integers(len(labels), size=words)] = 0.0
        sentences.append(probabilities)
    for n in range(1, len(labels)):  # all of one label, nothing else thinkable
        sentences.append(np.where(np.arange(len(labels)) == n, 0.0, -np.inf) * np.ones((150, 1)))
    for bias in ({}, {"P": 100.0, "L": -100.0}):
        for tags in decode(sentences, labels, scheme=scheme, o_bias=bias):
            assert not illegal_tags(tags, scheme=scheme)


def test_a_legal_argmax_is_left_as_it_is() -> None:
    random = np.random.default_rng(6)
    for _ in range(200):
        scores = [random.normal(size=(4, 5)) * 3]
        free, bound = (decode(scores, BIO, constrained=each)[0] for each in (False, True))
        assert free == bound or illegal_tags(free)


def test_log_probabilities_decoded_by_hand() -> None:
    likely = np.log([[0.6, 0.3, 0.1], [0.3, 0.1, 0.6]])
    labels, more_b = ["O", "B-P", "I-P"], np.array([0, 0.01, 0])
    assert decode([likely], labels, constrained=False) == [["O", "I-P"]]
    # B-P I-P has .3 x .6, O O .6 x .3, O B-P .6 x .1.
    assert decode([likely + more_b], labels) == [["B-P", "I-P"]]
    assert decode([likely - more_b], labels) == [["O", "O"]]
    assert decode([likely, np.empty((0, 3))], labels)[1] == []
    assert decode([], labels) == []


def test_a_bias_asks_for_e_to_the_bias_as_much() -> None:
    one = np.log([[0.2, 0.5, 0.3 - 1e-9, 1e-9, 1e-9]])
    assert decode([one], BIO) == [["B-P"]]
    for odds, tag in ((2.4, "B-P"), (2.6, "O")):
        assert decode([one], BIO, o_bias={"P": np.log(odds)}) == [[tag]]
        assert decode([one], BIO, o_bias={"P": np.log(odds)}, constrained=False) == [[tag]]
    assert decode([one], BIO, o_bias={"L": 5.0}) == [["B-P"]]
    assert decode([one], BIO, o_bias={"L": -25.0}) == [["B-L"]]


def test_the_same_bias_for_all_types_is_that_bias_on_o() -> None:
    random = np.random.default_rng(7)
    scores = [random.normal(size=(20, 5)) for _ in range(20)]
    found = decode(scores, BIO, o_bias={"P": 0.7, "L": 0.7})
    more_o = np.array([0.7, 0, 0, 0, 0])
    assert found == decode([each + more_o for each in scores], BIO)
    entities = [
        sum(tag[0] == "B" for tags in decode(scores, BIO, o_bias={"P": b, "L": b}) for tag in tags)
        for b in (-2, 0, 2, 4)
    ]
    assert entities == sorted(entities, reverse=True) and len(set(entities)) == 4


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (
            [np.zeros((2, 5)), np.zeros((2, 4))],
            "scores of sentence 1 have the shape (2, 4); with 5",
        ),
        ([np.zeros(5)], "sentence 0 have the shape (5,)"),
        ([np.array([[0, 0, np.nan, 0, 0]])], "scores of sentence 0 hold nan at (0, 2)"),
        ([np.array([[0, np.inf, 0, 0, 0]])], "hold inf at (0, 1)"),
    ],
)
def test_scores_that_cannot_be_are_refused(scores: list[Array], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        decode(scores, BIO)
    with pytest.raises(DataError, match=re.escape(message)):
        viterbi_many(scores, np.zeros((5, 5)))


def test_settings_that_cannot_be_are_refused() -> None:
    one = [np.zeros((1, 5))]
    with pytest.raises(SettingsError, match="o_bias names 'X'; the labels' types are L, P"):
        decode(one, BIO, o_bias={"X": 1.0})
    for bias in (np.nan, 101.0, -np.inf):
        with pytest.raises(SettingsError, match=r"o_bias of 'P' is .*; give -100 to 100"):
            decode(one, BIO, o_bias={"P": bias})
    with pytest.raises(DataError, match="tag 2: 'E-P' is no tag of BIO"):
        legal_transitions(["O", "E-P"])
    with pytest.raises(DataError, match="labels hold B-P more than once"):
        legal_transitions(["O", "B-P", "B-P"])
    for shapes in (
        ((5, 4), (5,), (5,)),
        ((5, 5), (4,), (5,)),
        ((5, 5), (5,), (1,)),
        ((5,), (5,), (5,)),
    ):
        with pytest.raises(
            DataError, match=r"transitions have the shape .*Give \(labels, labels\)"
        ):
            viterbi_many(one, *map(np.zeros, shapes))
