"""How predictions of several runs become one: a weight for each run and target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Weights:
    """A way to combine predictions: ``intercept + sum of weight x prediction``, or by ranks.

    Attributes:
        values: of each run in each target, ``(members, targets)``.
        intercepts: ``(targets,)``.
        by_rank: combine by :func:`rank_mean`; ``values`` are then all alike.
        alpha: that ridge chose; None for another method.
    """

    values: FloatArray
    intercepts: FloatArray
    by_rank: bool = False
    alpha: float | None = None

    def combine(self, predictions: NDArray[np.floating]) -> FloatArray:
        """One prediction a row, not clipped.

        Args:
            predictions: ``(members, rows, targets)``.

        Returns:
            ``(rows, targets)``.
        """
        given = np.asarray(predictions, dtype=np.float64)
        if self.by_rank:
            return rank_mean(given)
        return np.einsum("mrt,mt->rt", given, self.values) + self.intercepts

    def of_those_there(self, there: NDArray[np.bool_]) -> Weights:
        """The weights while only some of the runs have predicted.

        Positive weights without intercepts are scaled up, target by target, to the sum that all of
        them have; where the runs there have no weight in a target at all, their mean is taken.
        Negative weights and intercepts hold for all runs together only: until then, the mean.

        Args:
            there: of each run whether it has predicted, ``(members,)``; at least one has.

        Returns:
            Weights for those runs, in their order.
        """
        if there.all() or self.by_rank:
            return Weights(self.values[there], self.intercepts, self.by_rank, self.alpha)
        equal = np.full_like(self.values[there], 1 / there.sum())
        no_intercepts = np.zeros_like(self.intercepts)
        if (self.values < 0).any() or self.intercepts.any():
            return Weights(equal, no_intercepts)
        wanted, held = self.values.sum(axis=0), self.values[there].sum(axis=0)
        scale = np.divide(wanted, held, out=np.zeros_like(held), where=held > 0)
        values = np.where(held > 0, self.values[there] * scale, equal)
        return Weights(values, no_intercepts)


def rank_mean(predictions: NDArray[np.floating]) -> FloatArray:
    """The mean of the runs' ranks, mapped back to the scale.

    In each target every run ranks the rows (ties share their mean rank), the ranks are averaged,
    and the row whose mean rank comes k-th of n gets the k-th smallest of the n plain means; rows
    that tie get the value between. So the values are those of the mean, in the order of the ranks:
    a run counts by its order alone, whatever its spread. A row's value depends on the other rows.

    Args:
        predictions: ``(members, rows, targets)``.

    Returns:
        ``(rows, targets)``.

    Example:
        Two runs, one target: 1, 2, 9 and 2, 1, 3. Mean ranks 1.5, 1.5, 3; means 1.5, 1.5, 6.
    """
    given = np.asarray(predictions, np.float64)
    means: FloatArray = given.mean(axis=0)
    rows = len(means)
    combined = np.empty_like(means)
    for target in range(means.shape[1]):
        ranks = np.stack([_ranks(one[:, target]) for one in given]).mean(axis=0)
        places = _ranks(ranks)  # sums of halves are exact: equal ones tie
        combined[:, target] = np.interp(places, np.arange(1, rows + 1), np.sort(means[:, target]))
    return combined


def _ranks(values: NDArray[np.floating]) -> FloatArray:
    """1 for the smallest; equal values share the mean of their ranks."""
    return np.asarray(pd.Series(values).rank(method="average"), np.float64)
