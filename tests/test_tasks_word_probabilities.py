"""Each word's probabilities come from the window where it is farthest from a cut."""

from __future__ import annotations

import json

import numpy as np
import pytest

from kernel_lib.tasks.word_probabilities import SURE, by_word, from_json, to_json
from kernel_lib.text.batches import Example


def window(words: list[int], start: int, stop: int, row: int = 0, lead: int = 0) -> Example:
    numbers = np.array(words, dtype=np.int32)
    origin = {"stop": stop, "lead": lead}
    return Example("a", numbers, words=numbers, row=row, start=start, origin=origin)


def values(examples: list[Example]) -> np.ndarray:
    """Log-probabilities that say which window, counted from 1, and which place they are from."""
    made = []
    for number, example in enumerate(examples, start=1):
        share = (100 * number + np.arange(len(example.input_ids))) / 1000
        made.append(np.log(np.stack([share, 1 - share], axis=1)))
    return np.concatenate(made).astype(np.float32)


def origins(found: np.ndarray) -> list[tuple[int, int]]:
    """Of each word the window and the place; (10, 0) for a word that has none."""
    return [divmod(round(float(share) * 1000), 100) for share in found[:, 0]]


def test_a_word_is_taken_at_its_first_token_from_the_window_it_is_deepest_in() -> None:
    examples = [
        window([-1, 0, 0, 1, 2, 3, -1], 0, 4),
        window([-1, 2, 3, 4, 4, 5, -1], 2, 6),
        window([-1, 4, 4, 5, 6, -1], 4, 7),
    ]
    (found,) = by_word(examples, values(examples), outside=0)
    assert origins(found) == [(1, 1), (1, 3), (1, 4), (2, 2), (2, 3), (3, 3), (3, 4)]
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


def test_words_without_a_token_are_no_entity_and_shift_nothing() -> None:
    examples = [window([-1, 1, 3, 3, -1], 0, 6)]
    (found,) = by_word(examples, values(examples), outside=0)
    assert origins(found) == [(10, 0), (1, 1), (10, 0), (1, 2), (10, 0), (10, 0)]
    assert found[0].tolist() == [1.0, 0.0]
    (other,) = by_word(examples, values(examples), outside=1)
    assert other[0].tolist() == [0.0, 1.0]


def test_where_words_count_from_the_first_that_has_a_token_they_find_their_places() -> None:
    examples = [window([-1, 0, 1, 2, -1], 0, 5, lead=2), window([-1, 1, 2, 3, -1], 3, 6, lead=2)]
    (found,) = by_word(examples, values(examples), outside=0)
    assert origins(found) == [(10, 0), (10, 0), (1, 1), (1, 2), (2, 2), (2, 3)]


def test_windows_of_texts_may_come_in_any_order_of_texts() -> None:
    examples = [
        window([5], 0, 6, row=7),
        window([-1], 0, 0, row=2),
        window([0], 0, 1, row=0),
        window([-1], 0, 2, row=5),
    ]
    found = by_word(examples, values(examples), outside=0)
    assert [len(text) for text in found] == [1, 0, 2, 6]
    assert origins(found[0]) == [(3, 0)] and origins(found[3])[5] == (1, 0)
    assert all(text.shape[1] == 2 and text.dtype == np.float32 for text in found)


def test_many_windows_against_a_plain_search() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        count = int(random.integers(1, 40))
        size = int(random.integers(2, 9))
        overlap = int(random.integers(0, size))
        starts = [*range(0, max(count - size, 0), size - overlap), max(count - size, 0)]
        spans = [(start, min(start + size, count)) for start in starts]
        examples = [window(list(range(*span)), *span) for span in spans]
        shares = random.uniform(0.01, 0.99, sum(stop - start for start, stop in spans))
        found = np.log(np.stack([shares, 1 - shares], axis=1)).astype(np.float32)
        (whole,) = by_word(examples, found, outside=0)
        for word in range(count):
            depths, at = [], 0
            for start, stop in spans:
                if start <= word < stop:
                    left = word - start if start else count
                    right = stop - 1 - word if stop < count else count
                    depths.append((min(left, right), shares[at + word - start]))
                at += stop - start
            deepest = max(depth for depth, _ in depths)
            taken = [share for depth, share in depths if depth == deepest]
            assert any(whole[word, 0] == pytest.approx(share, rel=1e-5) for share in taken)


def test_the_text_for_a_file_holds_words_that_may_be_entities_only() -> None:
    probabilities = np.array(
        [[1.0, 0.0, 0.0], [0.12344, 0.87656, 0.0], [SURE + 1e-6, 0.0009, 0], [0.9985, 0.0015, 0.0]],
        dtype=np.float32,
    )
    text = to_json(probabilities, 0)
    assert json.loads(text) == [[1, 0.1234, 0.8766, 0.0], [3, 0.9985, 0.0015, 0.0]]
    back = from_json(text, words=4, labels=3, outside=0)
    np.testing.assert_allclose(back, probabilities, atol=1e-3)
    np.testing.assert_allclose(back[[1, 3]], probabilities[[1, 3]], atol=5.1e-5)
    assert back[2].tolist() == [1.0, 0.0, 0.0]
    assert to_json(probabilities[:0], 0) == "[]"
    assert from_json("[]", words=0, labels=3, outside=0).shape == (0, 3)
