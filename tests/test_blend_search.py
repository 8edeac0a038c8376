"""The search for a blend: nothing that is scored is learned from, what does not help goes."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.blending.methods import METHODS, Method, fit, moments
from kernel_lib.blending.search import Search, Splitting, Trial, simplest_of_the_best
from kernel_lib.errors import SettingsError
from kernel_lib.metrics.regression import mcrmse
from kernel_lib.results.blend_weights import Weights
from tests.test_blend_methods import essays

BOUNDS = (1.0, 5.0)
FEW = Splitting(parts=3, repeats=2)
NNLS = Method("nnls")


def alike(rows: int, members: int, targets: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Runs that are as good as each other and err apart, so that each of them helps."""
    random = np.random.default_rng(8)
    true = 3 + random.normal(size=(rows, targets)) * 0.7
    return true, true + random.normal(size=(members, rows, targets)) * 0.4


def search(true, runs, splitting: Splitting = FEW) -> Search:
    return Search(true, runs, bounds=BOUNDS, splitting=splitting)


def test_rows_are_split_into_parts_of_like_size_each_time_in_another_way() -> None:
    labels = Splitting(parts=5, repeats=3, seed=1).labels(103)
    assert labels.shape == (3, 103)
    for each in labels:
        assert sorted(np.bincount(each)) == [20, 20, 21, 21, 21]
    assert not np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels, Splitting(parts=5, repeats=3, seed=1).labels(103))
    assert not np.array_equal(labels, Splitting(parts=5, repeats=3, seed=2).labels(103))


@pytest.mark.parametrize("rows", [5, 30, 31])
def test_the_most_parts_there_may_be_leave_enough_rows_to_search_again(rows: int) -> None:
    true, runs = alike(rows, 2)
    for parts in range(3, rows + 2):
        try:
            Splitting(parts, repeats=1).check(rows)
        except SettingsError as error:
            most = parts - 1
            assert f"Set parts to {most} or less." in str(error)
            break
    finest = search(true, runs, Splitting(most, repeats=1))
    assert np.isfinite(finest.whole_search([Method("mean")], keep_all=True)).all()
    with pytest.raises(SettingsError, match="too much for 3 rows"):
        Splitting(parts=3).check(3)


@pytest.mark.parametrize("wrong", [{"parts": 2}, {"repeats": 0}])
def test_too_few_parts_are_refused(wrong) -> None:
    with pytest.raises(SettingsError, match="at least 3 parts and 1 repeat"):
        Splitting(**wrong)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_is_predicted_was_not_learned_from(method: Method) -> None:
    """With other true values in a part, that part's predictions stay, bit for bit; others move."""
    true, runs = essays(rows=60)
    labels = FEW.labels(60)
    plain = search(true, runs).unseen(method, [0, 1, 2])
    for repeat in range(2):
        held_out = labels[repeat] == 1
        poisoned = np.where(held_out[:, None], 6 - true, true)
        found = search(poisoned, runs).unseen(method, [0, 1, 2])
        assert np.array_equal(found[repeat, held_out], plain[repeat, held_out])
        moved = not np.array_equal(found[repeat, ~held_out], plain[repeat, ~held_out])
        assert moved == (method.freedom > 1)


def test_the_whole_search_does_not_see_what_it_predicts() -> None:
    true, runs = essays(rows=60)
    held_out = FEW.labels(60)[0] == 2
    poisoned = np.where(held_out[:, None], 6 - true, true)
    methods = (Method("mean"), Method("ridge"), Method("nnls", per_target=True))
    plain, found = (search(t, runs).whole_search(methods) for t in (true, poisoned))
    assert np.array_equal(found[0, held_out], plain[0, held_out])
    assert not np.array_equal(found[0, ~held_out], plain[0, ~held_out])


def test_nested_predictions_are_those_of_weights_learned_part_by_part() -> None:
    true, runs = essays(rows=90, members=4)
    kept, labels = [3, 1], FEW.labels(90)
    found = search(true, runs).unseen(NNLS, kept)
    for repeat, part in ((0, 0), (1, 2)):
        inside, rows = labels[repeat] != part, labels[repeat] == part
        weights = fit(NNLS, [moments(true[inside], runs[kept][:, inside])])
        expected = np.clip(weights.combine(runs[kept][:, rows]), *BOUNDS)
        assert found[repeat, rows] == pytest.approx(expected, abs=1e-9)
    assert search(true, runs).nested(NNLS, kept) == pytest.approx(
        np.mean([mcrmse(true, each) for each in found])
    )


def test_many_weights_for_few_rows_look_better_than_they_are() -> None:
    true, runs = alike(rows=60, members=12, targets=6)
    found = {str(t.method): t for t in search(true, runs).trials(METHODS, range(12))}
    nnls = found["nnls per target"]
    assert nnls.in_sample < found["mean"].in_sample < nnls.nested
    assert found["mean"].in_sample == pytest.approx(found["mean"].nested)


def test_every_method_is_compared_with_the_best_on_the_same_rows() -> None:
    true, runs = essays(rows=80, members=3)
    trials = search(true, runs).trials(METHODS, range(3))
    best = min(trials, key=lambda trial: trial.nested)
    assert best.behind == best.error == 0
    for trial in trials:
        assert trial.behind == pytest.approx(trial.nested - best.nested)
        assert (trial.error > 0) == (trial is not best)


def trial(name: str, per_target: bool, nested: float, behind: float, error: float) -> Trial:
    return Trial(Method(name, per_target), 0.0, nested, np.zeros((1, 1, 1)), behind, error)


def test_of_methods_that_are_as_good_the_simplest_is_taken() -> None:
    best = trial("nnls", True, 0.450, 0, 0)
    near = trial("ridge", False, 0.452, 0.002, 0.003)
    nearer = trial("hill_climb", False, 0.451, 0.001, 0.003)
    mean = trial("mean", False, 0.453, 0.003, 0.003)
    far = trial("mean", False, 0.453, 0.003, 0.002)
    assert simplest_of_the_best([best, far]) == best.method
    assert simplest_of_the_best([best, far, near, nearer]) == nearer.method
    assert simplest_of_the_best([best, near, nearer, mean]) == mean.method


def test_a_run_that_does_not_help_is_dropped_the_least_useful_first() -> None:
    true, runs = alike(rows=300, members=2)
    noise = np.random.default_rng(5).normal(size=(2, *true.shape))
    runs = np.stack([runs[0], 3 + 2 * noise[0], runs[1], 3 + 3 * noise[1]])
    bench = search(true, runs)
    left, dropped, losses = bench.drop(Method("mean"), [0, 1, 2, 3])
    assert [each.member for each in dropped] == [3, 1] and left == [0, 2]
    kept = [0, 1, 2, 3]
    for each in dropped:
        assert each.before == pytest.approx(bench.nested(Method("mean"), kept))
        tries = {m: bench.nested(Method("mean"), [k for k in kept if k != m]) for m in kept}
        assert each.after == pytest.approx(min(tries.values())) and each.after <= each.before
        assert min(tries, key=tries.__getitem__) == each.member
        kept.remove(each.member)
    alone = {m: mcrmse(true, np.clip(runs[m], *BOUNDS)) for m in left}
    both = bench.nested(Method("mean"), left)
    assert losses == pytest.approx({0: alone[2] - both, 2: alone[0] - both})
    assert min(losses.values()) > 0


def test_of_equal_runs_one_stays() -> None:
    true, runs = alike(rows=90, members=2)
    found = search(true, runs[[0, 0, 1]]).find([Method("mean")])
    assert found.kept == [1, 2] and [each.member for each in found.dropped] == [0]
    left, _, _ = search(true, runs[[0, 0]]).drop(NNLS, [0, 1])
    assert len(left) == 1


def test_the_search_ends_with_a_method_that_was_chosen_for_the_runs_it_keeps() -> None:
    true, runs = alike(rows=300, members=3)
    runs = np.concatenate([runs, 3 + 2 * np.random.default_rng(5).normal(size=(1, *true.shape))])
    bench = search(true, runs)
    found = bench.find()
    assert 3 in [each.member for each in found.dropped]
    assert sorted([*found.kept, *(each.member for each in found.dropped)]) == [0, 1, 2, 3]
    assert found.method == simplest_of_the_best(bench.trials(METHODS, found.kept))
    assert found.trial.nested == pytest.approx(bench.nested(found.method, found.kept))
    assert np.array_equal(found.weights.values, bench.weights(found.method, found.kept).values)
    assert set(found.losses) == set(found.kept)


def test_a_run_that_ends_without_weight_is_dropped_though_parts_had_use_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    true, runs = alike(rows=90, members=3)
    learned = Search.weights

    def weights(bench: Search, method: Method, kept) -> Weights:
        found = learned(bench, method, kept)
        return Weights(found.values * (np.array(kept) != 1)[:, None], found.intercepts)

    monkeypatch.setattr(Search, "weights", weights)
    found = search(true, runs).find([NNLS])
    assert found.kept == [0, 2] and [each.member for each in found.dropped] == [1]
    assert found.dropped[0].after > found.dropped[0].before
    assert search(true, runs).find([NNLS], keep_all=True).kept == [0, 1, 2]


def test_runs_that_are_worse_than_nothing_leave_one_without_weight_and_no_crash() -> None:
    random = np.random.default_rng(3)
    true = random.normal(size=(90, 2))
    runs = -true + random.normal(size=(2, 90, 2)) * 0.1
    found = Search(true, runs, bounds=(-3.0, 3.0), splitting=FEW).find([NNLS])
    assert len(found.kept) == 1 and not found.weights.values.any()


def test_all_are_kept_where_that_is_asked_for() -> None:
    true, runs = alike(rows=90, members=2)
    runs = np.stack([runs[0], 9 - runs[1], runs[1]])
    found = search(true, runs).find([Method("mean")], keep_all=True)
    assert found.kept == [0, 1, 2] and not found.dropped
    assert found.losses[1] < 0 < found.losses[0]
    assert search(true, runs).find([Method("mean")]).kept == [0, 2]


def test_blends_are_clipped_to_the_scale_before_they_are_scored() -> None:
    true, runs = np.full((30, 1), 5.0), np.full((2, 30, 1), 7.0)
    assert search(true, runs).nested(Method("mean"), [0, 1]) == 0
    free = Search(true, runs, bounds=(-np.inf, np.inf), splitting=FEW)
    assert free.nested(Method("mean"), [0, 1]) == pytest.approx(2)
