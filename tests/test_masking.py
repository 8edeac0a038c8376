"""Which tokens are to be named, and what is read in their place."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.text.batches import IGNORE
from kernel_lib.text.masking import Masking, MaskShares, uniform_swap

CLS, SEP, UNK, MASK = 1, 2, 3, 4
WORDS = np.arange(5, 1005)
SHARES = MaskShares.of_bert(0.15)


def make(shares: MaskShares = SHARES, never=(CLS, SEP, UNK, MASK)) -> Masking:
    return Masking(shares, mask_id=MASK, swap=uniform_swap(WORDS), never=never)


def text(words: int = 200_000) -> np.ndarray:
    inner = np.random.default_rng(7).choice(WORDS, words)
    return np.array([CLS, *inner, SEP], dtype=np.int32)


def test_shares_are_those_of_the_paper() -> None:
    ids = text()
    example = make().example(ids, np.random.default_rng(0))
    named, read = example.target != IGNORE, example.input_ids
    count = len(ids) - 2
    found = {
        "named": named.sum(),
        "hidden": (named & (read == MASK)).sum(),
        "swapped": (named & (read != MASK) & (read != ids)).sum(),
        "seen": (named & (read == ids)).sum(),
    }
    wanted = {"named": 0.15, "hidden": 0.12, "swapped": 0.015 * 0.999, "seen": 0.015 * 1.001}
    for name, share in wanted.items():  # five standard deviations of a binomial count
        allowed = 5 * np.sqrt(count * share * (1 - share))
        assert abs(found[name] - count * share) < allowed, name


def test_targets_are_what_stood_there_and_all_else_is_read_as_it_is() -> None:
    ids = text(5_000)
    before = ids.copy()
    example = make().example(ids, np.random.default_rng(0))
    named = example.target != IGNORE
    assert np.array_equal(example.target[named], ids[named])
    assert np.array_equal(example.input_ids[~named], ids[~named])
    assert np.array_equal(ids, before)
    assert example.input_ids.dtype == example.target.dtype == np.int32


def test_special_tokens_are_neither_named_nor_put_in() -> None:
    inner = np.random.default_rng(7).choice([UNK, MASK, *WORDS[:3]], 5_000)
    ids = np.array([CLS, *inner, SEP], dtype=np.int32)
    example = make(MaskShares(0.0, 0.9, 0.1)).example(ids, np.random.default_rng(0))
    special = ids < WORDS[0]
    assert (example.target[special] == IGNORE).all()
    assert (example.target[~special] != IGNORE).all()
    assert np.array_equal(example.input_ids < WORDS[0], special)
    everything = make(MaskShares(1.0, 0.0, 0.0), never=()).example(ids, np.random.default_rng(0))
    assert everything.input_ids[[0, -1]].tolist() == [CLS, SEP]
    assert (everything.target != IGNORE).tolist() == [False, *[True] * 5_000, False]


def test_any_word_may_come_in_the_place_of_another() -> None:
    ids = np.array([CLS, *[WORDS[0]] * 20_000, SEP], dtype=np.int32)
    example = make(MaskShares(0.0, 1.0, 0.0)).example(ids, np.random.default_rng(0))
    counts = np.bincount(example.input_ids[1:-1], minlength=WORDS[-1] + 1)[WORDS]
    assert counts.sum() == 20_000 and counts.min() > 0 and counts.max() < 60


def test_masks_are_drawn_anew_and_the_same_for_the_same_seed() -> None:
    ids, masking = text(300), make()
    seeds = (1, 1, 2)
    one, same, other = (masking.example(ids, np.random.default_rng(seed)) for seed in seeds)
    assert np.array_equal(one.input_ids, same.input_ids)
    assert not np.array_equal(one.target, other.target)


@pytest.mark.parametrize("words", [0, 1])
def test_the_shortest_texts(words: int) -> None:
    example = make().example(text(words), np.random.default_rng(0))
    assert len(example.input_ids) == len(example.target) == words + 2
