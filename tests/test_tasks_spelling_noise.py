"""Noise hides and confuses right characters only, anew in each epoch and the same for a seed."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.tasks.spelling_noise import Noise
from kernel_lib.text.batches import IGNORE, Example

MASK, CLS, SEP = 3, 1, 2
CONFUSABLE = {10: np.array([11, 12], np.int32), 11: np.array([10], np.int32)}


def noise(mask_rate: float = 0.0, noise_rate: float = 0.0) -> Noise:
    return Noise(mask_rate=mask_rate, noise_rate=noise_rate, mask_id=MASK, confusable=CONFUSABLE)


def sentence(length: int = 4000) -> Example:
    """Characters 10, 11 and 20, of which every eighth is wrong and every ninth is not to be learnt;
    20 is confused with nothing."""
    target = np.resize(np.array([10, 20, 11, 10, 20], np.int32), length)
    ids = target.copy()
    ids[::8] = 13
    target[::9] = IGNORE
    whole = [
        np.concatenate([[before], row, [after]]).astype(np.int32)
        for before, row, after in ((CLS, ids, SEP), (IGNORE, target, IGNORE))
    ]
    return Example("a", whole[0], whole[1])


def right(example: Example) -> np.ndarray:
    return (example.input_ids == example.target) & (example.target != IGNORE)


@pytest.mark.parametrize(("mask_rate", "noise_rate"), [(0.2, 0.0), (0.0, 0.3), (0.4, 0.6)])
def test_only_right_characters_are_changed_and_about_so_many(
    mask_rate: float, noise_rate: float
) -> None:
    example = sentence()
    ids, target = example.input_ids.copy(), example.target.copy()
    seen = noise(mask_rate, noise_rate).apply(example, (1, 2, 3))
    assert np.array_equal(example.input_ids, ids)  # what it was given stays as it is
    assert np.array_equal(seen.target, target) and seen.target is example.target
    assert seen.input_ids.dtype == np.int32
    changed = seen.input_ids != ids
    assert not changed[~right(example)].any()  # errors, special tokens, what is not to be learnt
    masked = seen.input_ids == MASK
    candidates = right(example)
    assert masked[candidates].mean() == pytest.approx(mask_rate, abs=0.03)
    confused = changed & ~masked
    assert not confused[ids == 20].any()
    can_be = candidates & np.isin(ids, list(CONFUSABLE))
    assert confused[can_be].mean() == pytest.approx(noise_rate, abs=0.03)
    for one, others in CONFUSABLE.items():
        found = set(seen.input_ids[confused & (ids == one)].tolist())
        assert found == (set(others.tolist()) if noise_rate else set())


def test_a_seed_gives_the_same_noise_and_another_epoch_or_row_another() -> None:
    example, some = sentence(200), noise(0.2, 0.2)
    first = some.apply(example, (42, 0, 0, 7)).input_ids
    assert np.array_equal(some.apply(example, (42, 0, 0, 7)).input_ids, first)
    for seed in ((42, 0, 1, 7), (42, 1, 0, 7), (43, 0, 0, 7), (42, 0, 0, 8)):
        assert not np.array_equal(some.apply(example, seed).input_ids, first)


def test_without_rates_or_targets_an_example_is_left_alone() -> None:
    example = sentence(50)
    assert noise().apply(example, (0,)) is example
    unseen = Example("a", example.input_ids)
    assert noise(0.5, 0.5).apply(unseen, (0,)) is unseen


def test_a_text_without_characters_is_none_the_worse() -> None:
    empty = Example("a", np.array([CLS, SEP], np.int32), np.array([IGNORE, IGNORE], np.int32))
    assert noise(0.5, 0.5).apply(empty, (0,)).input_ids.tolist() == [CLS, SEP]
