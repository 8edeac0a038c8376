"""Standard errors, their intervals and the verdicts, against computations of this file's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from kernel_lib.bench.ablate_errors import (
    COMMON,
    HELPS,
    HURTS,
    NORMAL,
    NOTHING,
    OF_BASE,
    OF_FOLDS,
    OWN,
    UNDECIDED,
    UNKNOWN,
    Noise,
    quantile,
    spread_within_folds,
    standard_error,
    usual_noise,
    verdict,
)

NOTHING_KNOWN = (0.0, 0)
EXACT = Noise(0.0, 10**9, OWN)


def usual(variance: float) -> Noise:
    return Noise(variance, 5, COMMON)


def test_the_spread_within_folds_leaves_out_what_folds_differ_by() -> None:
    values = {(1, 0): 0.50, (2, 0): 0.52, (1, 1): 0.60, (2, 1): 0.66, (1, 2): 0.9}
    squares, degrees = spread_within_folds(values)
    assert squares == pytest.approx(0.02**2 / 2 + 0.06**2 / 2)  # of two values: half their distance
    assert degrees == 2


def test_the_usual_variance_is_right_on_average_and_one_diverging_technique_does_not_move_it() -> (
    None
):
    random = np.random.default_rng(1)
    for seeds in (2, 3, 5):
        drawn = random.normal(0, 0.01, (3001, seeds))
        spreads = [(float(s), seeds - 1) for s in drawn.var(axis=1) * seeds]
        assert usual_noise(spreads).variance == pytest.approx(1e-4, rel=0.1)
        found = usual_noise([*spreads, (1e9, seeds - 1)])
        assert found.variance == pytest.approx(1e-4, rel=0.1)
        assert found.degrees == pytest.approx(3 * (seeds - 1), rel=0.01)  # however many


def test_of_a_few_techniques_it_is_the_mean_and_of_one_there_is_none() -> None:
    found = usual_noise([(0.3, 2), (0.5, 1), NOTHING_KNOWN, (0.1, 1)])
    assert found == Noise(pytest.approx(0.9 / 4), pytest.approx(16 / 6), COMMON)
    assert usual_noise([(0.3, 2), NOTHING_KNOWN]) is None
    assert usual_noise([NOTHING_KNOWN]) is None


@pytest.mark.parametrize(("techniques", "seeds"), [(2, 2), (5, 3), (6, 3), (30, 4)])
def test_the_usual_noise_varies_as_its_degrees_of_freedom_say(techniques: int, seeds: int) -> None:
    """Of k degrees of freedom the variance of a variance is 2 / k of its square."""
    random = np.random.default_rng(4)
    base = random.normal(size=(4000, 1, seeds))
    spread = (random.normal(size=(4000, techniques, seeds)) - base).var(axis=2) * seeds
    found = [usual_noise([(float(s), seeds - 1) for s in each]) for each in spread]
    variances = np.array([each.variance for each in found])
    varies = 2 * variances.mean() ** 2 / variances.var()
    assert varies == pytest.approx(found[0].degrees, rel=0.2)


def test_the_standard_error_adds_rows_and_training() -> None:
    two = [-0.004, 0.004]  # their variance: 0.000032
    base = (0.000016, 2)
    for known, own, common, error, source in (
        (two, (0.000032, 1), usual(0.00001), 0.005, OWN),  # 9 + 16 = 25
        (two, (0.000032, 1), None, 0.005, OWN),
        (two, (0.000032, 1), usual(0.00008), 0.007, COMMON),  # 9 + 40 = 49
        ([0.1], NOTHING_KNOWN, usual(0.000016), 0.005, COMMON),  # others have two seeds
        ([0.1], NOTHING_KNOWN, None, 0.005, OF_BASE),  # twice a variance of 0.000008
    ):
        found, noise = standard_error(0.003, known, own, common, base)
        assert (found, noise.source) == (pytest.approx(error), source)
        assert noise.degrees == {OWN: 1, COMMON: 5, OF_BASE: 2}[source]
    for rows, error in ((0.001, 0.003), (0.009, 0.009)):
        found, noise = standard_error(rows, [0.0, 0.006], NOTHING_KNOWN, None, NOTHING_KNOWN)
        assert (found, noise.source, noise.degrees) == (pytest.approx(error), OF_FOLDS, 1)
    found, noise = standard_error(0.003, [0.1], NOTHING_KNOWN, None, NOTHING_KNOWN)
    assert (found, noise.source) == (0.003, UNKNOWN)


def test_the_interval_is_as_wide_as_the_noise_is_badly_known() -> None:
    one, two = (stats.t.ppf(0.975, degrees) for degrees in (1, 2))
    assert quantile(0.0, 0.01, Noise(1.0, 1, OWN)) == pytest.approx(one)
    assert quantile(0.01, 0.01, Noise(0.0, 1, OWN)) == pytest.approx(NORMAL)
    half = quantile(0.01, 0.01 * math.sqrt(2), Noise(0.0001, 2, OF_BASE))
    assert half == pytest.approx((NORMAL + two) / 2)
    assert quantile(0.01, 0.01, Noise(0.0, 0, UNKNOWN)) == NORMAL
    # From folds: no narrower than the rows alone, nor than the spread alone.
    assert 0.004 * quantile(0.001, 0.004, Noise(0.004**2, 1, OF_FOLDS)) == pytest.approx(
        0.004 * one
    )
    assert 0.009 * quantile(0.009, 0.009, Noise(0.0, 1, OF_FOLDS)) == pytest.approx(0.009 * NORMAL)


@pytest.mark.parametrize("rows", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("seeds", [2, 3])
def test_without_any_effect_one_verdict_in_twenty_is_wrong_at_most(rows: float, seeds: int) -> None:
    """Two standard errors would be 27 % of verdicts with two seeds of the base, 16 % with three."""
    random = np.random.default_rng(7)
    wrong, trials = 0, 3000
    for _ in range(trials):
        base = random.normal(size=seeds)
        difference = random.normal() - base[0] + rows * random.normal()
        of_base = spread_within_folds({(seed, 0): value for seed, value in enumerate(base)})
        error, noise = standard_error(rows, [difference], NOTHING_KNOWN, None, of_base)
        width = quantile(rows, error, noise)
        wrong += verdict(difference, error, width, noise) in (HELPS, HURTS)
    assert 0.01 < wrong / trials < 0.06


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [
        (-0.0099, 0.005, HELPS),
        (0.0099, 0.005, HURTS),
        (-0.0098, 0.005, UNDECIDED),  # the interval ends at 0
        (-0.001, 0.0004, HELPS),  # however small
        (0.0, 0.001, NOTHING),  # to 0.00196
        (0.0, 0.00103, UNDECIDED),  # to 0.00202
        (-0.0011, 0.0006, UNDECIDED),  # to -0.0023
        (0.0008, 0.0006, NOTHING),  # to 0.00198
    ],
)
def test_the_borders_of_the_verdicts(difference: float, error: float, expected: str) -> None:
    assert verdict(difference, error, 1.96, EXACT) == expected
    assert verdict(difference, error / 100, 196.0, EXACT) == expected
    assert verdict(difference, error, 1.96, Noise(0.0, 0, UNKNOWN)) == UNDECIDED
