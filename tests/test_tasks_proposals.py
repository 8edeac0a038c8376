"""Proposals are averaged as full distributions would be, and come from the right window."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.tasks import proposals
from kernel_lib.tasks.proposals import (
    CANDIDATES,
    KEPT,
    WIDTH,
    Proposal,
    average,
    by_character,
    find_in_passes,
    find_proposals,
    proposals_from_json,
    proposals_to_json,
)
from kernel_lib.text.batches import Example
from kernel_lib.text.windows import cut_windows

UNKNOWN = 7
CODE_POINTS = np.arange(100) * 10  # of each token id


def outputs_of(random: np.random.Generator, tokens: int, passes: int = 1) -> np.ndarray:
    """What a model might say, with token ids; some places have no candidate left."""
    blocks = []
    for _ in range(passes):
        shares = -np.sort(-random.dirichlet(np.ones(CANDIDATES + 1), tokens)[:, 1:], axis=1)
        ids = np.stack([random.permutation(12)[:CANDIDATES] + 20 for _ in range(tokens)])
        empty = random.random((tokens, CANDIDATES)) < 0.1
        block = np.empty((tokens, WIDTH))
        block[:, 0] = random.random(tokens)
        block[:, 1::2], block[:, 2::2] = np.where(empty, 0, ids), np.where(empty, 0, shares)
        blocks.append(block)
    return np.concatenate(blocks, axis=1).astype(np.float32)


def windows_of(row: int, length: int, ids: int = 30) -> list[Example]:
    return [
        Example(f"{row}@{start}", np.full(stop - start + 2, ids, np.int32), row=row, start=start)
        for start, stop in cut_windows(length, size=10, overlap=4)
    ]


@pytest.mark.parametrize("passes", [1, 3])
def test_a_character_is_told_by_the_window_where_it_is_farthest_from_a_cut(passes: int) -> None:
    lengths = [25, 0, 10, 11, 1]
    examples = [e for row, length in enumerate(lengths) for e in windows_of(row, length)]
    outputs = outputs_of(np.random.default_rng(0), sum(len(e.input_ids) for e in examples), passes)
    texts = by_character(examples, outputs, CODE_POINTS, unknown_id=UNKNOWN)
    assert [len(text) for text in texts] == lengths
    begin = 0
    rows: dict[tuple[int, int, int], np.ndarray] = {}  # by text, window and character
    for example in examples:
        for at in range(len(example.input_ids) - 2):
            rows[example.row, example.start, example.start + at] = outputs[begin + 1 + at]
        begin += len(example.input_ids)
    for text, length in enumerate(lengths):
        for at in range(length):

            def distance(start: int, at: int = at, length: int = length) -> int:
                stop = min(start + 10, length)
                left = at - start if start else length
                return min(left, stop - 1 - at if stop < length else length)

            inside = [start for row, start, place in rows if (row, place) == (text, at)]
            farthest = max(map(distance, inside))
            expected = [rows[text, s, at].copy() for s in inside if distance(s) == farthest]
            for row in expected:
                for first in range(0, passes * WIDTH, WIDTH):
                    row[first + 1 : first + WIDTH : 2] *= 10  # the code points
            assert any(np.array_equal(texts[text][at], row) for row in expected), (text, at)


def test_texts_come_in_the_order_of_their_rows_whatever_the_order_of_the_examples() -> None:
    examples = [e for row, length in ((4, 3), (2, 25), (9, 5)) for e in windows_of(row, length)]
    tokens = sum(len(example.input_ids) for example in examples)
    texts = by_character(
        examples, outputs_of(np.random.default_rng(0), tokens), CODE_POINTS, unknown_id=UNKNOWN
    )
    assert [len(text) for text in texts] == [25, 3, 5]


def test_what_cannot_be_read_is_kept_in_every_pass() -> None:
    example = Example("a", np.array([1, 30, UNKNOWN, 31, 2], np.int32))
    outputs = outputs_of(np.random.default_rng(0), 5, passes=2)
    (text,) = by_character([example], outputs, CODE_POINTS, unknown_id=UNKNOWN)
    assert text[1].tolist() == [*KEPT, *KEPT]
    assert text[0, 0] == outputs[1, 0] and text[2, WIDTH] == outputs[3, WIDTH]
    assert outputs[2, 0] != 1  # what was given is not changed


def brute_force(blocks: list[np.ndarray]) -> tuple[list[float], list[list[tuple[int, float]]]]:
    """Means over full distributions, where what a model does not name has probability 0."""
    keeps, others = [], []
    for rows in zip(*blocks, strict=True):
        keeps.append(float(np.mean([row[0] for row in rows])))
        named = [dict(zip(row[1::2], row[2::2], strict=True)) for row in rows]
        codes = list(dict.fromkeys(code for each in named for code in each if code))
        means = [(int(c), float(np.mean([each.get(c, 0.0) for each in named]))) for c in codes]
        others.append(sorted(means, key=lambda pair: -pair[1])[:CANDIDATES])
    return keeps, others


@pytest.mark.parametrize("models", [2, 3, 5])
@pytest.mark.parametrize("passes", [1, 2])
def test_the_average_is_that_of_full_distributions(
    models: int, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(models)
    given = [outputs_of(random, 50, passes) for _ in range(models)]
    whole = average(given)
    assert whole.shape == (50, passes * WIDTH) and whole.dtype == np.float32
    for first in range(0, passes * WIDTH, WIDTH):
        block = whole[:, first : first + WIDTH]
        keeps, others = brute_force([values[:, first : first + WIDTH] for values in given])
        assert np.allclose(block[:, 0], keeps, atol=1e-6)
        for row, expected in zip(block, others, strict=True):
            found = [(int(c), p) for c, p in zip(row[1::2], row[2::2], strict=True) if p > 0]
            assert [code for code, _ in found] == [code for code, _ in expected]
            assert [p for _, p in found] == pytest.approx([p for _, p in expected], abs=1e-6)
            assert (np.diff(row[2::2]) <= 0).all()
    monkeypatch.setattr(proposals, "AT_ONCE", 7)
    assert np.array_equal(average(given), whole)


def test_the_average_of_one_is_itself_and_nothing_is_changed_on_the_way() -> None:
    given = outputs_of(np.random.default_rng(0), 9)
    before = given.copy()
    assert np.array_equal(average([given]), given)
    average([given, given[::-1]])
    assert np.array_equal(given, before)
    assert average([given[:0], given[:0]]).shape == (0, WIDTH)


def test_averages_are_averaged_again_without_ghosts() -> None:
    """A mean over folds may hold places that are empty; a mean over runs does not fill them."""
    row = np.zeros((1, WIDTH), np.float32)
    row[0, :3] = 0.5, 65, 0.5
    once = average([row, row])
    assert find_proposals(average([once, once])) == [Proposal(0, 0.5, (("A", 0.5),))]


def test_only_doubts_are_proposals_and_only_what_has_a_probability() -> None:
    values = np.tile(KEPT, (4, 1))
    values[0, :5] = 0.979, ord("在"), 0.02, 0, 0
    values[1, :5] = 0.981, ord("在"), 0.019, 0, 0  # too sure
    values[3, :7] = 0.25, ord("𠮷"), 0.5, ord("的"), 0.25, ord("地"), 0.0
    assert find_proposals(values) == [
        Proposal(0, pytest.approx(0.979), (("在", pytest.approx(0.02)),)),
        Proposal(3, 0.25, (("𠮷", 0.5), ("的", 0.25))),
    ]
    both = find_in_passes(np.concatenate([values, np.tile(KEPT, (4, 1))], axis=1))
    assert both == [find_proposals(values), []]
    assert find_in_passes(values[:0]) == [[]]


def test_proposals_go_to_json_and_back() -> None:
    passes = [
        [Proposal(3, 0.25, (("𠮷", 0.5), ('"', 0.125))), Proposal(10, 0.0, (("\u2028", 1.0),))],
        [],
    ]
    assert proposals_from_json(proposals_to_json(passes)) == passes
    rough = [[Proposal(0, 1 / 3, (("在", 2 / 3),))]]
    assert proposals_from_json(proposals_to_json(rough)) == [
        [Proposal(0, 0.3333, (("在", 0.6667),))]
    ]
    assert proposals_from_json(proposals_to_json([[]])) == [[]]
