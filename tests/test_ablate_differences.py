"""Differences, their errors and verdicts, against computations of this file's own."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from kernel_lib.bench.ablate_differences import compare_all, make_pairs, rows_error
from kernel_lib.bench.ablate_errors import (
    COMMON,
    HELPS,
    OF_BASE,
    OPTIMISTIC,
    OWN,
    UNDECIDED,
    UNKNOWN,
)
from kernel_lib.bench.ablate_runs import Trained
from kernel_lib.errors import ArtifactError


def trained(
    name: str,
    errors: list[float] | np.ndarray,
    *,
    seed: int = 42,
    fold: int = 0,
    seconds: float = 10.0,
    peak: int | None = 1000,
) -> Trained:
    """A run with one target, true 3 everywhere, wrong by so much in each row."""
    wrong = np.asarray(errors, dtype=np.float64)[:, None]
    true = np.full_like(wrong, 3.0)
    return Trained(
        name=name,
        recipe=name,
        seed=seed,
        fold=fold,
        score=float(np.sqrt(np.mean(wrong**2))),
        seconds=seconds,
        peak_bytes=peak,
        ids=tuple(f"{fold}-{row:04d}" for row in range(len(wrong))),
        true=true,
        predicted=true + wrong,
        record={},
    )


def drawn_error(pairs: list[tuple[np.ndarray, np.ndarray]], *, resamples: int = 2000) -> float:
    """The bootstrap written out: a resample at a time, all pairs of a fold together."""
    random = np.random.default_rng(99)
    rows = len(pairs[0][0])
    found = []
    for _ in range(resamples):
        draw = random.integers(0, rows, rows)
        scores = [
            math.sqrt(np.mean(ours[draw] ** 2)) - math.sqrt(np.mean(theirs[draw] ** 2))
            for ours, theirs in pairs
        ]
        found.append(np.mean(scores))
    return float(np.std(found, ddof=1))


def test_the_error_of_the_rows_is_that_of_a_paired_bootstrap() -> None:
    random = np.random.default_rng(3)
    hard = random.normal(0, 0.5, 150)  # what is hard for one is hard for the other
    seeds = [(hard + random.normal(0, 0.1, 150), hard + random.normal(0, 0.1, 150)) for _ in "ab"]
    technique = [trained("fgm", ours, seed=s) for s, (ours, _) in enumerate(seeds)]
    base = [trained("base", theirs, seed=s) for s, (_, theirs) in enumerate(seeds)]
    error = rows_error(make_pairs(technique, base), resamples=4000)
    assert error == pytest.approx(drawn_error(seeds), rel=0.06)
    drawn = [random.integers(0, 150, 150) for _ in range(1000)]
    unpaired = np.std([math.sqrt(np.mean(seeds[0][0][draw] ** 2)) for draw in drawn])
    assert error < 0.5 * unpaired


def test_two_rows_have_an_error_that_can_be_written_down() -> None:
    """Both rows the first: 0.6 - 1.0; both the second: 0; one of each: between."""
    pairs = make_pairs([trained("fgm", [0.6, 0.2])], [trained("base", [1.0, 0.2])])
    mixed = math.sqrt((0.36 + 0.04) / 2) - math.sqrt((1.0 + 0.04) / 2)
    values, shares = np.array([-0.4, 0.0, mixed]), np.array([0.25, 0.25, 0.5])
    exact = math.sqrt(shares @ (values - shares @ values) ** 2)
    assert rows_error(pairs, resamples=20_000) == pytest.approx(exact, rel=0.02)


def test_a_difference_that_every_row_shares_has_no_error_of_rows() -> None:
    pairs = make_pairs([trained("fgm", [0.3] * 9)], [trained("base", [0.4] * 9)])
    assert rows_error(pairs) == pytest.approx(0, abs=1e-12)


def test_folds_share_no_row_so_their_variances_add() -> None:
    random = np.random.default_rng(5)
    ours = [trained("fgm", random.normal(0, 0.4, 60), fold=fold) for fold in (0, 1)]
    base = [trained("base", random.normal(0, 0.5, 60), fold=fold) for fold in (0, 1)]
    pairs = make_pairs(ours, base)
    one, two = (rows_error([pair]) for pair in pairs)
    assert rows_error(pairs) == pytest.approx(math.hypot(one / 2, two / 2))


def test_pairs_are_of_the_same_seed_and_fold_and_share_the_base() -> None:
    base = [trained("base", [0.5, 0.4], seed=s, fold=f) for s in (1, 42) for f in (0, 1)]
    ours = [trained("fgm", [0.4, 0.4], seed=s, fold=f) for s, f in ((42, 1), (42, 0), (7, 0))]
    pairs = make_pairs(ours, base)
    assert [(p.base.seed, p.base.fold) for p in pairs] == [(42, 0), (42, 1)]
    assert all((p.technique.seed, p.technique.fold) == (p.base.seed, p.base.fold) for p in pairs)
    assert all(any(p.base is run for run in base) for p in pairs)


def test_runs_on_other_rows_are_refused() -> None:
    other = dataclasses.replace(trained("fgm", [0.4, 0.4]), ids=("0-0000", "0-0009"))
    with pytest.raises(ArtifactError, match="not scored on the same rows"):
        make_pairs([other], [trained("base", [0.5, 0.5])])


def test_a_comparison_from_end_to_end() -> None:
    """Every row wrong by the same: no error of the rows, so all of it is the training's."""
    base = [trained("base", [e] * 8, seed=s) for s, e in ((1, 0.50), (2, 0.50))]
    runs = {
        "good": [trained("good", [e] * 8, seed=s) for s, e in ((1, 0.40), (2, 0.42))],
        "vain": [
            trained("vain", [e] * 8, seed=s, seconds=25, peak=1500)
            for s, e in ((1, 0.49), (2, 0.51))
        ],
        "best": [trained("best", [0.1] * 8, seed=1)],
        "none": [trained("none", [0.1] * 8, seed=3)],
    }
    found = compare_all(runs, base, optimistic=["best"])
    assert list(found) == ["good", "vain", "best"]  # nothing to hold "none" against
    good, vain, best = found.values()
    assert good.difference == pytest.approx(-0.09)
    assert good.error == pytest.approx(math.sqrt(0.0002 / 2))  # the usual one
    assert good.degrees == pytest.approx(8 / 5)  # of two in all, with the base's runs in common
    assert good.quantile == pytest.approx(stats.t.ppf(0.975, 1.6))
    assert (good.verdict, good.noise_from) == (HELPS, COMMON)
    assert vain.difference == pytest.approx(0, abs=1e-12)
    assert (vain.verdict, vain.time, vain.memory) == (UNDECIDED, 2.5, 1.5)
    assert best.verdict == OPTIMISTIC
    assert best.pairs == ((1, 0, pytest.approx(-0.4)),)


def test_a_single_pair_decides_nothing_unless_the_base_has_a_second_seed() -> None:
    base = [trained("base", [0.50] * 8, seed=1)]
    runs = {"fgm": [trained("fgm", [0.40] * 8, seed=1, peak=None)]}
    alone = compare_all(runs, base)["fgm"]
    assert (alone.verdict, alone.noise_from, alone.memory) == (UNDECIDED, UNKNOWN, None)
    twice = compare_all(runs, [*base, trained("base", [0.51] * 8, seed=2)])["fgm"]
    assert (twice.verdict, twice.noise_from) == (UNDECIDED, OF_BASE)  # 10 standard errors
    assert twice.error == pytest.approx(0.01)  # the root of twice 0.01^2 / 2
    assert (twice.degrees, twice.quantile) == (1, pytest.approx(12.706, abs=1e-3))
    more = [*base, *(trained("base", [e] * 8, seed=s) for s, e in ((2, 0.51), (3, 0.50)))]
    thrice = compare_all(runs, more)["fgm"]
    assert (thrice.verdict, thrice.degrees) == (HELPS, 2)
    assert thrice.quantile == pytest.approx(4.303, abs=1e-3)
    plain = [*base, trained("base", [0.51] * 8, seed=2)]
    rival = [trained("more", [0.45] * 8, seed=1)]
    assert compare_all(runs, rival, plain=plain)["fgm"].error == pytest.approx(0.01)


def test_the_noise_of_a_single_technique_is_its_own_and_no_ones_else() -> None:
    base = [trained("base", [e] * 8, seed=s) for s, e in ((1, 0.50), (2, 0.52))]
    runs = {
        "fgm": [trained("fgm", [e] * 8, seed=s) for s, e in ((1, 0.40), (2, 0.40))],
        "ema": [trained("ema", [0.45] * 8, seed=1)],
    }
    fgm, ema = compare_all(runs, base).values()
    assert (fgm.noise_from, ema.noise_from) == (OWN, OF_BASE)
    assert fgm.error == pytest.approx(0.01)  # differences -0.10, -0.12: the root of 0.0002 / 2
    assert ema.error == pytest.approx(0.02)
