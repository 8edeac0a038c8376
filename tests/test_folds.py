"""Every row in one fold, and every fold like the whole."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.text.folds import level_indicators, make_folds, quantile_bins

TARGETS = ("a", "b", "c")
N_FOLDS = 4


@pytest.fixture
def essays() -> pd.DataFrame:
    """240 rows, three related targets on the scale 1.0, 1.5 ... 5.0 with rare ends."""
    random = np.random.default_rng(0)
    general = random.normal(3.1, 0.6, size=(240, 1))
    values = np.clip(np.round((general + random.normal(0, 0.4, (240, 3))) * 2) / 2, 1, 5)
    frame = pd.DataFrame(values, columns=list(TARGETS))
    return frame.assign(writer=[f"w{number % 37}" for number in range(240)])


def folds_of(frame: pd.DataFrame, scheme: str, seed: int = 0, n_folds: int = N_FOLDS):
    return make_folds(
        frame,
        scheme=scheme,
        n_folds=n_folds,
        seed=seed,
        target_columns=TARGETS,
        group_column="writer",
    )


def deviations(frame: pd.DataFrame, folds: np.ndarray) -> np.ndarray:
    """For each target, level and fold: rows there, less the proportional share."""
    return np.array(
        [
            ((frame[target] == level) & (folds == fold)).sum()
            - (frame[target] == level).sum() / N_FOLDS
            for target in TARGETS
            for level in frame[target].unique()
            for fold in range(N_FOLDS)
        ]
    )


@pytest.mark.parametrize("scheme", ["multilabel", "stratified", "plain", "grouped"])
@pytest.mark.parametrize("n_folds", [2, 4, 7])
def test_every_row_is_in_one_fold_and_folds_are_of_like_size(essays, scheme, n_folds) -> None:
    folds = folds_of(essays, scheme, n_folds=n_folds)
    assert folds.shape == (240,) and folds.dtype == np.int64
    counts = np.bincount(folds, minlength=n_folds)
    assert len(counts) == n_folds and folds.min() == 0
    assert counts.min() > 0.8 * 240 / n_folds and counts.max() < 1.2 * 240 / n_folds


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_multilabel_folds_hold_a_proportional_share_of_every_level_of_every_target(
    essays, seed: int
) -> None:
    stratified = np.abs(deviations(essays, folds_of(essays, "multilabel", seed)))
    plain = np.abs(deviations(essays, folds_of(essays, "plain", seed)))
    # Greedy by nature: a few cells miss by more than one row, none by much.
    assert np.mean(stratified <= 1) > 0.9 > 0.7 > np.mean(plain <= 1)
    assert stratified.max() <= 3
    assert stratified.mean() < 0.5 * plain.mean()


def test_scores_given_raw_to_iterative_stratification_would_not_pass(essays) -> None:
    """All of them count as True, so nothing is stratified: the trap, and that we see it."""
    splitter = MultilabelStratifiedKFold(n_splits=N_FOLDS, shuffle=True, random_state=0)
    raw = np.full(len(essays), -1)
    for fold, (_, rows) in enumerate(splitter.split(essays, essays[list(TARGETS)].to_numpy())):
        raw[rows] = fold
    ours = np.abs(deviations(essays, folds_of(essays, "multilabel")))
    assert np.abs(deviations(essays, raw)).mean() > 2 * ours.mean()
    assert np.abs(deviations(essays, raw)).max() > 3


def test_each_level_is_an_indicator_of_its_own() -> None:
    values = np.array([[1.0, 5.0], [2.5, 5.0], [1.0, 3.0]])
    assert level_indicators(values).tolist() == [[1, 0, 0, 1], [0, 1, 0, 1], [1, 0, 1, 0]]


def test_many_levels_become_bins_of_like_size() -> None:
    values = np.random.default_rng(0).normal(size=(500, 1))
    indicators = level_indicators(values)
    assert indicators.shape == (500, 10)
    assert (indicators.sum(axis=1) == 1).all()
    assert indicators.sum(axis=0).tolist() == [50] * 10


def test_multilabel_folds_stratify_continuous_targets_too() -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(200, 3)), columns=list(TARGETS))
    folds = folds_of(frame, "multilabel")
    means = frame.groupby(folds)[list(TARGETS)].mean().to_numpy()
    plain = frame.groupby(folds_of(frame, "plain"))[list(TARGETS)].mean().to_numpy()
    assert means.std(axis=0).mean() < 0.6 * plain.std(axis=0).mean()


def test_equal_values_share_a_bin_and_bins_are_in_order() -> None:
    bins = quantile_bins(np.array([3.0, 1.0, 3.0, 2.0, 3.0, 9.0]), 3)
    assert bins[0] == bins[2] == bins[4]
    assert bins[1] <= bins[3] <= bins[0] <= bins[5]
    assert quantile_bins(np.full(8, 2.0), 4).tolist() == [quantile_bins(np.full(8, 2.0), 4)[0]] * 8


def test_stratified_folds_have_like_means(essays) -> None:
    mean = essays[list(TARGETS)].mean(axis=1)
    spread = {
        scheme: np.mean(
            [mean.groupby(folds_of(essays, scheme, seed)).mean().std() for seed in range(5)]
        )
        for scheme in ("stratified", "plain")
    }
    assert spread["stratified"] < 0.5 * spread["plain"]


def test_a_group_is_never_split(essays) -> None:
    folds = folds_of(essays, "grouped")
    assert (essays.groupby("writer")["a"].agg(lambda rows: len(set(folds[rows.index]))) == 1).all()
    assert len(set(folds)) == N_FOLDS


@pytest.mark.parametrize("scheme", ["multilabel", "stratified", "plain", "grouped"])
def test_the_same_seed_gives_the_same_folds(essays, scheme: str) -> None:
    assert (folds_of(essays, scheme, 7) == folds_of(essays, scheme, 7)).all()


@pytest.mark.parametrize("scheme", ["multilabel", "stratified", "plain"])
def test_another_seed_gives_other_folds(essays, scheme: str) -> None:
    assert (folds_of(essays, scheme, 7) != folds_of(essays, scheme, 8)).any()


def test_folds_do_not_depend_on_the_frames_index(essays) -> None:
    moved = essays.set_index(np.arange(240)[::-1] + 1000)
    for scheme in ("multilabel", "stratified", "plain", "grouped"):
        assert (folds_of(essays, scheme) == folds_of(moved, scheme)).all()


@pytest.mark.parametrize("scheme", ["multilabel", "stratified", "plain"])
@pytest.mark.parametrize("rows", [4, 5, 9])
def test_a_handful_of_rows_can_be_split(essays, scheme: str, rows: int) -> None:
    folds = folds_of(essays.head(rows), scheme)
    assert set(folds) == set(range(N_FOLDS))


@pytest.mark.parametrize("scheme", ["multilabel", "stratified"])
def test_targets_that_are_all_equal_can_be_split(essays, scheme: str) -> None:
    folds = folds_of(essays.assign(a=3.0, b=3.0, c=3.0), scheme)
    assert np.bincount(folds).tolist() == [60] * 4


def test_fewer_rows_than_folds_is_an_error_with_the_cure(essays) -> None:
    with pytest.raises(DataError, match=r"3 rows cannot be split into 4 folds\. Lower n_folds"):
        folds_of(essays.head(3), "multilabel")


def test_fewer_groups_than_folds_is_an_error_with_the_cure(essays) -> None:
    with pytest.raises(DataError, match="3 groups in 'writer' cannot be split into 4 folds"):
        folds_of(essays.assign(writer=[f"w{number % 3}" for number in range(240)]), "grouped")


@pytest.mark.parametrize("scheme", ["grouped", "multilabel", "stratified"])
def test_a_column_that_is_not_there_is_named_with_those_that_are(essays, scheme: str) -> None:
    with pytest.raises(DataError, match=r"'nowhere'.*'writer'"):
        make_folds(
            essays,
            scheme=scheme,
            n_folds=2,
            seed=0,
            target_columns=["nowhere"],
            group_column="nowhere",
        )


def test_without_the_wheel_the_default_scheme_says_what_to_attach(essays, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "iterstrat.ml_stratifiers", None)  # as if not installed
    with pytest.raises(SettingsError, match=r"attach its wheel .*fold_scheme=\"stratified\""):
        folds_of(essays, "multilabel")
