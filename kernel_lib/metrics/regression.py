"""Scores for several regression targets at once.

MCRMSE is FB3's metric (Kaggle, Feedback Prize - English Language Learning, "Evaluation"): the mean
over the target columns of each column's root mean squared error. The MCRMSE of pooled out-of-fold
predictions is not the mean of the folds' MCRMSEs, because of the square root: pool first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


def rmse_by_column(targets: FloatArray, predictions: FloatArray) -> FloatArray:
    """Root mean squared error of each column.

    Args:
        targets: true values, ``(rows, columns)``.
        predictions: same shape.

    Returns:
        ``(columns,)``, float64.

    Raises:
        ValueError: the shapes differ, or there is no row.

    Example:
        Targets [[1, 2], [3, 4]] against [[1, 2], [3, 2]]: columns 0 and sqrt((0 + 4) / 2) = 1.414.
    """
    true = np.asarray(targets, dtype=np.float64)
    predicted = np.asarray(predictions, dtype=np.float64)
    if true.shape != predicted.shape or true.ndim != 2 or len(true) == 0:
        raise ValueError(
            f"targets {true.shape} and predictions {predicted.shape} must both be "
            "(rows, columns) with at least one row"
        )
    return np.sqrt(np.mean((true - predicted) ** 2, axis=0))


def mcrmse(targets: FloatArray, predictions: FloatArray) -> float:
    """Mean over columns of the column's root mean squared error; lower is better.

    Args and errors as in :func:`rmse_by_column`.
    """
    return float(rmse_by_column(targets, predictions).mean())


def mcrmse_standard_error(
    targets: FloatArray, predictions: FloatArray, *, resamples: int = 500, seed: int = 0
) -> float:
    """Bootstrap standard error of the MCRMSE over rows (Efron & Tibshirani 1993, chapter 6).

    A difference of two runs much below this is no evidence that one is better.

    Args:
        targets: ``(rows, columns)``.
        predictions: same shape.
        resamples: how many times the rows are drawn with replacement.
        seed: of the drawing.
    """
    squared = (np.asarray(targets, np.float64) - np.asarray(predictions, np.float64)) ** 2
    rows = len(squared)
    draws = np.random.default_rng(seed).integers(0, rows, size=(resamples, rows))
    scores = [np.sqrt(squared[draw].mean(axis=0)).mean() for draw in draws]
    return float(np.std(scores, ddof=1))


def mcrmse_difference_standard_error(
    targets: FloatArray,
    first: FloatArray,
    second: FloatArray,
    *,
    resamples: int = 500,
    seed: int = 0,
) -> float:
    """Paired bootstrap standard error of ``mcrmse(first) - mcrmse(second)`` on the same rows.

    Both are scored on the same drawn rows (Efron & Tibshirani 1993, chapter 6), so that what is
    hard for both cancels: two models of one kind differ with far less noise than either score has.

    Args:
        targets: ``(rows, columns)``.
        first, second: the same shape each, or ``(repeats, rows, columns)``, whose scores are
            averaged over the repeats.
        resamples: how many times the rows are drawn with replacement.
        seed: of the drawing.
    """
    true = np.asarray(targets, np.float64)
    squared = [(true - np.asarray(each, np.float64)) ** 2 for each in (first, second)]
    rows = len(true)
    draws = np.random.default_rng(seed).integers(0, rows, size=(resamples, rows))
    shares = np.stack([np.bincount(draw, minlength=rows) for draw in draws]) / rows
    # (resamples, rows) @ (repeats, rows, columns): the mean square of each drawn sample
    one, two = (np.sqrt(np.maximum(shares @ each, 0)) for each in squared)
    differences = (one - two).reshape(-1, resamples, true.shape[1]).mean(axis=(0, 2))
    return float(np.std(differences, ddof=1))
