"""Splitting rows into folds, so that every fold looks like the whole."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedKFold

from kernel_lib.errors import DataError, SettingsError

MAX_LEVELS = 10


def make_folds(
    frame: pd.DataFrame,
    *,
    scheme: str,
    n_folds: int,
    seed: int,
    target_columns: Sequence[str] = (),
    group_column: str = "",
) -> NDArray[np.int64]:
    """The fold that each row is validated in.

    Args:
        frame: the training rows.
        scheme: ``multilabel`` stratifies all targets at once (iterative stratification, Sechidis
            et al. 2011); ``stratified`` the mean of the targets, binned; ``grouped`` keeps the
            rows of a group together; ``plain`` only shuffles.
        n_folds: how many folds.
        seed: of the shuffling.
        target_columns: numeric columns, for the two stratified schemes.
        group_column: for ``grouped``.

    Returns:
        ``(rows,)`` integers from 0 to ``n_folds - 1``.

    Raises:
        DataError: fewer rows or groups than folds, or no such column.
    """
    if len(frame) < n_folds:
        raise DataError(f"{len(frame)} rows cannot be split into {n_folds} folds. Lower n_folds.")
    folds = np.full(len(frame), -1, dtype=np.int64)
    splits = _splits(frame, scheme, n_folds, seed, target_columns, group_column)
    for fold, (_, validation) in enumerate(splits):
        folds[validation] = fold
    return folds


def level_indicators(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which level each value has, as 0/1 columns; more than 10 levels become 10 quantile bins.

    Iterative stratification reads its targets as booleans: scores from 1 to 5 given as they are
    would all count as True, and nothing would be stratified.

    Args:
        values: ``(rows, columns)``.

    Returns:
        ``(rows, levels of all columns)`` of 0 and 1.
    """
    indicators = []
    for column in values.T:
        levels, codes = np.unique(column, return_inverse=True)
        if len(levels) > MAX_LEVELS:
            codes = quantile_bins(column, MAX_LEVELS)
        indicators.append(np.eye(codes.max() + 1, dtype=np.int64)[codes])
    return np.hstack(indicators)


def quantile_bins(values: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The quantile bin of each value: ``(rows,)`` integers from 0; equal values share a bin."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def _splits(
    frame: pd.DataFrame,
    scheme: str,
    n_folds: int,
    seed: int,
    target_columns: Sequence[str],
    group_column: str,
) -> Iterable[tuple[Any, Any]]:
    rows = np.zeros(len(frame))
    if scheme == "plain":
        return KFold(n_folds, shuffle=True, random_state=seed).split(rows)
    if scheme == "grouped":
        if group_column not in frame.columns:
            raise DataError(
                f"no column {group_column!r} to group by; there are "
                f"{', '.join(map(repr, frame.columns))}."
            )
        groups = frame[group_column]
        if groups.nunique() < n_folds:
            raise DataError(
                f"{groups.nunique()} groups in {group_column!r} cannot be split into "
                f"{n_folds} folds. Lower n_folds."
            )
        return GroupKFold(n_folds).split(rows, groups=groups)
    for column in target_columns:
        if column not in frame.columns:
            raise DataError(
                f"no column {column!r} to stratify by; there are "
                f"{', '.join(map(repr, frame.columns))}."
            )
    values = frame[list(target_columns)].to_numpy(np.float64)
    if scheme == "stratified":
        # A bin must hold a row for every fold.
        bins = quantile_bins(values.mean(axis=1), min(MAX_LEVELS, max(1, len(frame) // n_folds)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The least populated class")
            return list(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(rows, bins))
    # Not on Kaggle's image: travels as a wheel, so it is imported only where it is needed.
    try:
        from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
    except ModuleNotFoundError:
        raise SettingsError(
            'fold_scheme="multilabel" needs iterative-stratification, which Kaggle\'s image lacks: '
            "attach its wheel (iterative_stratification-*-none-any.whl) as an input, or set "
            'fold_scheme="stratified".'
        ) from None

    splitter = MultilabelStratifiedKFold(n_splits=n_folds, shuffle=True, random_state=seed)
    return splitter.split(rows, level_indicators(values))
