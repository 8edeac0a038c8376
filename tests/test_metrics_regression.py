"""The score against values worked by hand and against an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kernel_lib.metrics.regression import (
    mcrmse,
    mcrmse_difference_standard_error,
    mcrmse_standard_error,
    rmse_by_column,
)

TARGETS = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 3.0], [2.0, 2.0]])
PREDICTIONS = np.array([[1.0, 3.0], [3.0, 3.0], [1.0, 4.0], [2.0, 1.0]])


def test_hand_worked_values() -> None:
    # column 0: errors 0 0 4 0, mean square 4, root 2; column 1: four errors of 1, root 1.
    assert rmse_by_column(TARGETS, PREDICTIONS) == pytest.approx([2.0, 1.0])
    assert mcrmse(TARGETS, PREDICTIONS) == pytest.approx(1.5)


def test_it_is_not_the_mean_absolute_error() -> None:
    """The root of each element, then the mean, is L1: 1.0 in both columns of this example."""
    assert np.abs(TARGETS - PREDICTIONS).mean() == 1.0
    assert mcrmse(TARGETS, PREDICTIONS) != pytest.approx(1.0)


def test_it_is_not_the_root_over_all_columns_at_once() -> None:
    over_all = math.sqrt(((TARGETS - PREDICTIONS) ** 2).mean())
    assert mcrmse(TARGETS, PREDICTIONS) < over_all


def test_the_pooled_score_is_not_the_mean_of_the_folds_scores() -> None:
    first, second = slice(0, 2), slice(2, 4)
    # fold 0: (0, 1) -> 0.5; fold 1: (sqrt 8, 1) -> 1.914; their mean 1.207, pooled 1.5.
    mean = (
        mcrmse(TARGETS[first], PREDICTIONS[first]) + mcrmse(TARGETS[second], PREDICTIONS[second])
    ) / 2
    assert mean == pytest.approx((0.5 + (math.sqrt(8) + 1) / 2) / 2)
    assert mcrmse(TARGETS, PREDICTIONS) - mean > 0.25


def test_half_precision_input_is_scored_in_double_precision() -> None:
    rows = 20_000
    targets = np.full((rows, 1), 3.0, dtype=np.float16)
    predictions = np.full((rows, 1), 2.9, dtype=np.float16)
    exact = 3.0 - float(np.float16(2.9))
    assert mcrmse(targets, predictions) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize(
    ("targets", "predictions"),
    [
        (np.zeros((3, 2)), np.zeros((2, 2))),
        (np.zeros((3, 2)), np.zeros((3, 1))),  # numpy would broadcast it
        (np.zeros((3, 2)), np.zeros(2)),  # and this
        (np.zeros(3), np.zeros(3)),
        (np.zeros((0, 2)), np.zeros((0, 2))),
    ],
)
def test_shapes_that_do_not_fit_are_an_error(targets, predictions) -> None:
    with pytest.raises(ValueError, match=r"rows, columns"):
        mcrmse(targets, predictions)


def test_the_standard_error_agrees_with_the_delta_method() -> None:
    """For one column the error of sqrt(m) is about sd(squares) / sqrt(rows) / (2 sqrt(m))."""
    random = np.random.default_rng(1)
    errors = random.normal(size=(400, 1))
    squares = errors[:, 0] ** 2
    expected = squares.std(ddof=1) / math.sqrt(400) / (2 * math.sqrt(squares.mean()))
    found = mcrmse_standard_error(np.zeros((400, 1)), errors, resamples=1000)
    assert found == pytest.approx(expected, rel=0.1)


def test_rows_are_drawn_whole_so_that_columns_that_err_together_do_not_average_out() -> None:
    random = np.random.default_rng(2)
    one = random.normal(size=(300, 1))
    together = np.repeat(one, 6, axis=1)
    apart = random.normal(size=(300, 6))
    zeros = np.zeros((300, 6))
    assert mcrmse_standard_error(zeros, together) == pytest.approx(
        mcrmse_standard_error(zeros[:, :1], one)
    )
    assert mcrmse_standard_error(zeros, apart) < 0.7 * mcrmse_standard_error(zeros, together)


def test_the_standard_error_shrinks_with_the_root_of_the_rows_and_repeats() -> None:
    random = np.random.default_rng(3)
    errors = random.normal(size=(1600, 2))
    zeros = np.zeros_like(errors)
    few = mcrmse_standard_error(zeros[:100], errors[:100])
    many = mcrmse_standard_error(zeros, errors)
    assert 2.5 < few / many < 6
    assert many == mcrmse_standard_error(zeros, errors)
    assert many != mcrmse_standard_error(zeros, errors, seed=1)


def test_equal_errors_have_no_standard_error() -> None:
    assert mcrmse_standard_error(np.zeros((9, 2)), np.ones((9, 2))) == pytest.approx(0, abs=1e-12)


def test_the_error_of_a_difference_agrees_with_the_delta_method() -> None:
    """For one column, sqrt(a) - sqrt(b) of two means over the same rows: the standard error of the
    mean of ``a_i / (2 sqrt(a)) - b_i / (2 sqrt(b))``."""
    random = np.random.default_rng(4)
    one = random.normal(size=(500, 1))
    two = one + 0.3 * random.normal(size=(500, 1))
    first, second = one[:, 0] ** 2, two[:, 0] ** 2
    influence = first / (2 * math.sqrt(first.mean())) - second / (2 * math.sqrt(second.mean()))
    expected = influence.std(ddof=1) / math.sqrt(500)
    zeros = np.zeros((500, 1))
    found = mcrmse_difference_standard_error(zeros, one, two, resamples=2000)
    assert found == pytest.approx(expected, rel=0.06)
    apart = math.hypot(*(mcrmse_standard_error(zeros, each) for each in (one, two)))
    assert found < 0.5 * apart  # what is hard for both cancels


def test_the_error_of_a_difference_draws_rows_as_that_of_a_score_does() -> None:
    """Against predictions without a fault, the difference is the score."""
    random = np.random.default_rng(5)
    targets, errors = random.normal(size=(200, 3)), random.normal(size=(200, 3))
    found = mcrmse_difference_standard_error(targets, targets + errors, targets, seed=3)
    assert found == pytest.approx(mcrmse_standard_error(targets, targets + errors, seed=3))
    assert mcrmse_difference_standard_error(targets, errors, errors) == 0


def test_scores_of_repeats_are_averaged_before_they_are_compared() -> None:
    random = np.random.default_rng(6)
    targets, other = random.normal(size=(200, 2)), random.normal(size=(200, 2))
    repeats = targets + random.normal(size=(3, 200, 2))
    found = mcrmse_difference_standard_error(targets, repeats, other, resamples=200, seed=1)
    draws = np.random.default_rng(1).integers(0, 200, size=(200, 200))
    differences = [
        np.mean([mcrmse(targets[draw], each[draw]) for each in repeats])
        - mcrmse(targets[draw], other[draw])
        for draw in draws
    ]
    assert found == pytest.approx(np.std(differences, ddof=1))
