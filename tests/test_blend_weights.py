"""Predictions of several runs combined, by weight or by rank, all of them or those there are."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.results.blend_weights import Weights, rank_mean

NONE = np.zeros(2)


def weights(values, intercepts=NONE, **more) -> Weights:
    return Weights(np.array(values, dtype=float), np.array(intercepts, dtype=float), **more)


def there(*flags: int) -> np.ndarray:
    return np.array(flags, dtype=bool)


def test_by_hand() -> None:
    """Two runs, one row, two targets."""
    predictions = np.array([[[2.0, 3.0]], [[4.0, 5.0]]], dtype=np.float32)
    found = weights([[0.5, 1.0], [0.25, -0.5]], [0.1, 0.2]).combine(predictions)
    assert found == pytest.approx(np.array([[1.0 + 1.0 + 0.1, 3.0 - 2.5 + 0.2]]))


def test_it_is_a_sum_over_runs_row_by_row() -> None:
    random = np.random.default_rng(0)
    predictions, values = random.normal(size=(3, 7, 2)), random.normal(size=(3, 2))
    found = weights(values, [0.5, -1]).combine(predictions)
    for row in range(7):
        for target in range(2):
            total = [0.5, -1][target]
            for run in range(3):
                total += values[run, target] * predictions[run, row, target]
            assert found[row, target] == pytest.approx(total)


def test_rank_mean_by_hand() -> None:
    """Ranks 1 2 3 4 and 2 1 4 3 and 1 3 2 4, their means 4/3, 2, 3, 11/3; the values of the mean,
    sorted, are 1, 2, 4 and 9."""
    runs = np.array([[1.0, 2, 3, 4], [1, 0, 19, 2], [1, 4, 5, 6]])
    means = runs.mean(axis=0)  # 1, 2, 9, 4: by the mean the third row is highest
    assert means.tolist() == [1, 2, 9, 4]
    assert rank_mean(runs[:, :, None])[:, 0].tolist() == [1, 2, 4, 9]


def test_rank_mean_of_rows_that_tie_lies_between() -> None:
    runs = np.array([[1.0, 2, 9], [2, 1, 3]])
    assert rank_mean(runs[:, :, None])[:, 0].tolist() == [1.5, 1.5, 6]
    runs = np.array([[1.0, 5, 9], [9, 5, 1]])
    assert rank_mean(runs[:, :, None])[:, 0].tolist() == [5, 5, 5]
    tied_in_a_run = np.array([[3.0, 3, 1], [3.0, 5, 1]])
    assert rank_mean(tied_in_a_run[:, :, None])[:, 0].tolist() == [3, 4, 1]


def test_rank_mean_sees_the_order_alone_and_each_target_for_itself() -> None:
    random = np.random.default_rng(1)
    runs = random.normal(size=(3, 50, 2))
    stretched = runs * np.array([1, 10, 0.1])[:, None, None] + np.array([0, 3, 9])[:, None, None]
    plain, found = rank_mean(runs), rank_mean(stretched)
    assert (np.argsort(plain, axis=0) == np.argsort(found, axis=0)).all()
    assert np.array_equal(rank_mean(runs[:, :, 1:])[:, 0], plain[:, 1])
    assert np.array_equal(rank_mean(runs[[2, 0, 1]]).argsort(axis=0), plain.argsort(axis=0))


def test_rank_mean_of_one_run_is_that_run_and_of_one_row_the_mean() -> None:
    runs = np.random.default_rng(2).normal(size=(2, 9, 3))
    assert np.allclose(rank_mean(runs[:1]), runs[0], atol=1e-15)
    assert np.allclose(rank_mean(runs[:, :1]), runs[:, :1].mean(axis=0))
    by_rank = weights(np.full((2, 3), 0.5), np.zeros(3), by_rank=True)
    assert np.array_equal(by_rank.combine(runs), rank_mean(runs))


def test_positive_weights_of_those_there_keep_the_sum_of_all() -> None:
    whole = weights([[0.5, 0.2], [0.3, 0.0], [0.18, 0.6]])
    found = whole.of_those_there(there(1, 0, 1))
    assert found.values == pytest.approx(
        np.array([[0.5 * 0.98 / 0.68, 0.2], [0.18 * 0.98 / 0.68, 0.6]])
    )
    assert not found.intercepts.any()


def test_runs_without_weight_in_a_target_are_averaged_in_it() -> None:
    whole = weights([[0.5, 0.0], [0.3, 0.0], [0.2, 0.9]])
    found = whole.of_those_there(there(1, 1, 0))
    assert found.values == pytest.approx(np.array([[0.625, 0.5], [0.375, 0.5]]))


@pytest.mark.parametrize(
    "whole",
    [
        weights([[0.9, 0.7], [0.4, 0.2], [-0.3, 0.1]]),
        weights([[0.5, 0.7], [0.3, 0.2], [0.2, 0.1]], [0.0, 0.04]),
    ],
    ids=["negative", "intercept"],
)
def test_negative_weights_and_intercepts_wait_until_all_are_there(whole: Weights) -> None:
    found = whole.of_those_there(there(1, 0, 1))
    assert found.values.tolist() == [[0.5, 0.5], [0.5, 0.5]] and not found.intercepts.any()


def test_when_all_are_there_nothing_changes() -> None:
    for whole in (
        weights([[0.9, 0.7], [-0.4, 0.2]], [1, 2], alpha=30.0),
        weights([[1, 2], [3, 4]]),
    ):
        found = whole.of_those_there(there(1, 1))
        assert np.array_equal(found.values, whole.values)
        assert np.array_equal(found.intercepts, whole.intercepts) and found.alpha == whole.alpha


def test_ranks_of_those_there() -> None:
    runs = np.random.default_rng(3).normal(size=(3, 9, 2))
    found = weights(np.full((3, 2), 1 / 3), by_rank=True).of_those_there(there(1, 0, 1))
    assert np.array_equal(found.combine(runs[[0, 2]]), rank_mean(runs[[0, 2]]))
