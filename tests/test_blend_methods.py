"""Each way to choose weights, against the same computed in another way."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kernel_lib.blending.methods import ALPHAS, METHODS, Method, fit, moments, only
from kernel_lib.metrics.regression import mcrmse
from kernel_lib.results.blend_weights import Weights


def essays(rows: int = 400, members: int = 3, targets: int = 2, seed: int = 0):
    """True values, and runs that err alike in part; the last one is poor and off by a constant."""
    random = np.random.default_rng(seed)
    true = 3 + random.normal(size=(rows, targets)) * 0.7
    shared = random.normal(size=(rows, targets)) * 0.3
    sizes = np.linspace(0.3, 0.9, members)
    runs = [3 + 0.8 * (true - 3 + shared + random.normal(size=true.shape) * s) for s in sizes]
    runs[-1] += 0.4
    return true, np.stack(runs)


def parts_of(true, runs, count: int = 4) -> list[np.ndarray]:
    labels = np.arange(len(true)) % count
    return [moments(true[labels == at], runs[:, labels == at]) for at in range(count)]


def learn(name: str, per_target: bool, true, runs) -> Weights:
    return fit(Method(name, per_target), parts_of(true, runs))


def stacked(true, runs, per_target: bool):
    """Least squares problems as design and goal, with the targets each of them is for."""
    targets = true.shape[1]
    groups = [[t] for t in range(targets)] if per_target else [list(range(targets))]
    for group in groups:
        design = np.concatenate([runs[:, :, t].T for t in group])
        yield group, design, np.concatenate([true[:, t] for t in group])


def test_moments_are_sums_of_products_and_add_up_over_rows() -> None:
    true, runs = essays(rows=7)
    table = moments(true, runs)
    for target in range(2):
        design = np.column_stack([*runs[:, :, target], np.ones(7), true[:, target]])
        assert table[target] == pytest.approx(design.T @ design)
    assert sum(parts_of(true, runs)) == pytest.approx(table)
    assert only(table, [2, 0]) == pytest.approx(moments(true, runs[[2, 0]]))


@pytest.mark.parametrize("name", ["mean", "rank_mean"])
def test_the_mean_has_equal_weights(name: str) -> None:
    found = learn(name, False, *essays())
    assert (found.values == 1 / 3).all() and not found.intercepts.any()
    assert found.by_rank == (name == "rank_mean")


# Ridge.


def ridge_by_equations(true, runs, alpha: float, per_target: bool) -> tuple[np.ndarray, np.ndarray]:
    """The normal equations in full: weights of the group, then an intercept for each target."""
    members, rows, targets = runs.shape
    values, intercepts = np.zeros((members, targets)), np.zeros(targets)
    for group, design, goal in stacked(true, runs, per_target):
        ones = np.kron(np.eye(len(group)), np.ones((rows, 1)))
        whole = np.hstack([design, ones])
        penalty = np.diag([alpha] * members + [0.0] * len(group))
        prior = np.array([1 / members] * members + [0.0] * len(group))
        solved = np.linalg.solve(whole.T @ whole + penalty, whole.T @ goal + penalty @ prior)
        for at, target in enumerate(group):
            values[:, target], intercepts[target] = solved[:members], solved[members + at]
    return values, intercepts


@pytest.mark.parametrize("per_target", [False, True])
def test_ridge_solves_its_normal_equations(per_target: bool) -> None:
    true, runs = essays()
    found = learn("ridge", per_target, true, runs)
    values, intercepts = ridge_by_equations(true, runs, found.alpha, per_target)
    assert found.values == pytest.approx(values, abs=1e-9)
    assert found.intercepts == pytest.approx(intercepts, abs=1e-8)


@pytest.mark.parametrize("per_target", [False, True])
@pytest.mark.parametrize(("rows", "seed"), [(400, 0), (60, 3), (24, 5)])
def test_ridge_takes_the_alpha_that_does_best_on_parts_left_out(
    per_target: bool, rows: int, seed: int
) -> None:
    true, runs = essays(rows=rows, members=5, seed=seed)
    labels = np.arange(rows) % 4
    scores = []
    for alpha in ALPHAS:
        found = np.zeros_like(true)
        for part in range(4):
            inside, outside = labels != part, labels == part
            values, intercepts = ridge_by_equations(
                true[inside], runs[:, inside], alpha, per_target
            )
            found[outside] = np.einsum("mrt,mt->rt", runs[:, outside], values) + intercepts
        scores.append(mcrmse(true, found))
    assert learn("ridge", per_target, true, runs).alpha == ALPHAS[int(np.argmin(scores))]


def test_a_ridge_that_learns_nothing_is_the_mean() -> None:
    """The truth is the mean of the runs and noise, on another level: the largest alpha, weights
    near 1/m, and the intercept mends the level."""
    random = np.random.default_rng(4)
    runs = 5 + random.normal(size=(6, 40, 2))
    true = runs.mean(axis=0) - 5 + random.normal(size=(40, 2))
    found = learn("ridge", True, true, runs)
    assert found.alpha == max(ALPHAS)
    assert found.values == pytest.approx(np.full((6, 2), 1 / 6), abs=0.02)
    assert found.combine(runs).mean(axis=0) == pytest.approx(true.mean(axis=0))


# Non-negative least squares.


@pytest.mark.parametrize("per_target", [False, True])
def test_nnls_is_the_best_of_all_sets_of_runs_without_a_bound(per_target: bool) -> None:
    """The minimum is that of plain least squares on some of the runs: try all of these sets."""
    true, runs = essays(members=4)
    runs[3] = 6 - true + np.random.default_rng(9).normal(size=true.shape)  # the wrong way round
    found = learn("nnls", per_target, true, runs)
    for group, design, goal in stacked(true, runs, per_target):
        lowest, best = float(goal @ goal), np.zeros(4)
        for flags in itertools.product([False, True], repeat=4):
            weights = np.zeros(4)
            weights[list(flags)] = np.linalg.lstsq(design[:, list(flags)], goal)[0]
            squared = float(((goal - design @ weights) ** 2).sum())
            if (weights >= 0).all() and squared < lowest:
                lowest, best = squared, weights
        assert (best == 0).any() and (best > 0).any()
        for target in group:
            assert found.values[:, target] == pytest.approx(best, abs=1e-7)
    assert (found.values >= 0).all() and not found.intercepts.any()


def test_nnls_is_the_best_point_of_a_grid() -> None:
    true, runs = essays(rows=60, members=2, targets=1, seed=7)
    found = learn("nnls", False, true, runs).values[:, 0]
    grid = np.linspace(0, 1.2, 61)

    def squared(pair) -> float:
        return float(((true - np.tensordot(pair, runs, axes=1)) ** 2).sum())

    best = min(itertools.product(grid, grid), key=squared)
    assert found == pytest.approx(best, abs=0.021)
    assert squared(found) <= squared(best)


def test_the_sum_of_nnls_weights_is_free() -> None:
    true, runs = essays(members=2)
    found = learn("nnls", False, true, 2 * runs).values
    assert found == pytest.approx(learn("nnls", False, true, runs).values / 2)


def test_a_run_twice_is_no_trouble() -> None:
    true, runs = essays(members=2)
    for method in METHODS:
        once = fit(method, parts_of(true, runs)).combine(runs)
        twice = fit(method, parts_of(true, runs[[0, 0, 1]])).combine(runs[[0, 0, 1]])
        assert np.isfinite(twice).all()
        if method.name == "nnls":
            assert twice == pytest.approx(once, abs=1e-6)


# The hill climb.


def climb_slowly(true, runs, score) -> np.ndarray:
    """Caruana's loop, with predictions in hand."""
    taken: list[int] = []
    best, reached = None, np.inf
    for _ in range(100):
        tries = [score(true, runs[[*taken, one]].mean(axis=0)) for one in range(len(runs))]
        taken.append(int(np.argmin(tries)))
        if min(tries) < reached - 1e-12:
            best, reached = list(taken), min(tries)
    return np.bincount(best, minlength=len(runs)) / len(best)


def test_the_hill_climb_equals_the_slow_loop() -> None:
    true, runs = essays(rows=150, members=5, targets=3)
    found = learn("hill_climb", False, true, runs).values
    expected = climb_slowly(true, runs, mcrmse)
    assert (found == found[:, :1]).all() and (expected > 0).sum() > 1
    assert mcrmse(true, np.tensordot(found[:, 0], runs, axes=1)) == pytest.approx(
        mcrmse(true, np.tensordot(expected, runs, axes=1)), abs=1e-12
    )
    assert found[:, 0] == pytest.approx(expected)


def test_the_hill_climb_of_each_target_equals_the_slow_loop() -> None:
    true, runs = essays(rows=150, members=4, targets=3, seed=1)
    found = learn("hill_climb", True, true, runs).values
    for target in range(3):
        column = slice(target, target + 1)
        expected = climb_slowly(true[:, column], runs[:, :, column], mcrmse)
        assert found[:, target] == pytest.approx(expected)
    assert found.sum(axis=0) == pytest.approx(np.ones(3))


def test_a_run_that_beats_every_mean_stays_alone() -> None:
    true, runs = essays(members=3)
    runs[0] = true + 0.01
    assert learn("hill_climb", False, true, runs).values[:, 0].tolist() == [1, 0, 0]


# All of them.


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_global_weights_are_those_of_all_targets(method: Method) -> None:
    values = fit(method, parts_of(*essays(members=4))).values
    assert values.shape == (4, 2)
    assert np.array_equal(values[:, 0], values[:, 1]) == (not method.per_target)


@pytest.mark.parametrize(
    "method", [m for m in METHODS if m.name not in ("mean", "rank_mean")], ids=str
)
def test_in_sample_no_method_is_worse_than_the_mean(method: Method) -> None:
    true, runs = essays(members=4)
    found = fit(method, parts_of(true, runs)).combine(runs)
    assert mcrmse(true, found) < mcrmse(true, runs.mean(axis=0))


def test_what_chooses_less_comes_first() -> None:
    assert [method.freedom for method in METHODS] == [0, 1, 2, 3, 2, 3, 2, 3]
