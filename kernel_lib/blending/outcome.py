"""A blend found and examined: what it gains, over what, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel_lib.blending.methods import Method
from kernel_lib.blending.rows import OofRows, scored_folds
from kernel_lib.blending.search import Found, Search, Splitting
from kernel_lib.metrics.regression import (
    mcrmse,
    mcrmse_difference_standard_error,
    mcrmse_standard_error,
    rmse_by_column,
)
from kernel_lib.results.blend_file import Blend, Part
from kernel_lib.runtime.device import versions

MAX_LEVELS = 12  # more different true values are no scale of levels to round to


@dataclass(frozen=True)
class Difference:
    """Two scores on the same rows.

    Attributes:
        value: the first less the second; below 0 the first is better.
        error: its standard error, by paired bootstrap.
    """

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:+.4f} ± {self.error:.4f}"


@dataclass(frozen=True)
class Outcome:
    """A blend and what is known of it.

    Attributes:
        rows: that it was made from.
        found: by the search.
        singles: MCRMSE of each run alone.
        standard_error: of the blend's nested score.
        searched: MCRMSE when everything, methods and runs too, is chosen anew without the rows
            that are scored.
        to_single: from the best run's score to the blend's nested one.
        to_mean: from the score of the mean of all runs to the blend's nested one.
        clipping: what clipping to the scale has changed in the nested score.
        rounding: what rounding to the scale's levels would; None: it has no few levels.
        by_target: nested RMSE of each target.
        splitting: of the rows.
    """

    rows: OofRows
    found: Found
    singles: list[float]
    standard_error: float
    searched: float
    to_single: Difference
    to_mean: Difference
    clipping: float
    rounding: float | None
    by_target: list[float]
    splitting: Splitting

    @property
    def best_single(self) -> int:
        """The number of the run that scores best alone."""
        return int(np.argmin(self.singles))

    @property
    def names(self) -> list[str]:
        """Of the runs."""
        return [member.name for member in self.rows.members]


def examine(
    rows: OofRows, methods: Sequence[Method], splitting: Splitting, *, keep_all: bool = False
) -> Outcome:
    """Searches for the best blend, and measures what was found.

    Args:
        rows: of the runs to blend.
        methods: to choose from.
        splitting: of the rows.
        keep_all: drop no run.

    Raises:
        SettingsError: there are too many parts for so few rows.
    """
    splitting.check(len(rows.ids))
    low, high = rows.scale.lowest, rows.scale.highest
    search = Search(rows.true, rows.predictions, bounds=(low, high), splitting=splitting)
    found = search.find(methods, keep_all=keep_all)
    nested, score = found.trial.predictions, found.trial.nested
    clipped = np.clip(rows.predictions, low, high)
    singles = [mcrmse(rows.true, each) for each in clipped]

    def to(one: NDArray[Any]) -> Difference:
        error = mcrmse_difference_standard_error(rows.true, nested, one)
        return Difference(score - mcrmse(rows.true, one), error)

    free = Search(rows.true, rows.predictions, bounds=(-np.inf, np.inf), splitting=splitting)
    levels = np.unique(rows.true)
    rounding = None
    if len(levels) <= MAX_LEVELS:
        rounding = search.score(_nearest(levels, nested)) - score
    return Outcome(
        rows,
        found,
        singles,
        standard_error=mcrmse_standard_error(rows.true, nested[0]),
        searched=search.score(search.whole_search(methods, keep_all=keep_all)),
        to_single=to(clipped[int(np.argmin(singles))]),
        to_mean=to(clipped.mean(axis=0)),
        clipping=score - search.score(free.unseen(found.method, found.kept)),
        rounding=rounding,
        by_target=np.mean([rmse_by_column(rows.true, e) for e in nested], axis=0).tolist(),
        splitting=splitting,
    )


def to_blend(outcome: Outcome) -> Blend:
    """What ``blend.json`` keeps of it."""
    found, rows = outcome.found, outcome.rows
    parts = [Part(member.sessions[0].id, member.name) for member in rows.members]
    split = outcome.splitting
    facts: dict[str, Any] = {
        "rows": len(rows.ids),
        "scores": {
            "name": "mcrmse",
            "in_sample": found.trial.in_sample,
            "nested": found.trial.nested,
            "standard_error": outcome.standard_error,
            "whole_search": outcome.searched,
            "by_target": dict(zip(rows.scale.targets, outcome.by_target, strict=True)),
        },
        "best_single": {
            "name": outcome.names[outcome.best_single],
            "score": outcome.singles[outcome.best_single],
            "difference": outcome.to_single.value,
            "standard_error": outcome.to_single.error,
        },
        "nested": {"parts": split.parts, "repeats": split.repeats, "seed": split.seed},
        "methods": [
            {"method": str(trial.method), "in_sample": trial.in_sample, "nested": trial.nested}
            for trial in found.trials
        ],
        "members": [
            {
                "name": member.name,
                "folds": list(scored_folds(member)),
                "score": outcome.singles[number],
                "loss_without": found.losses.get(number),
            }
            for number, member in enumerate(rows.members)
        ],
        "dropped": [
            {
                "name": outcome.names[each.member],
                "method": str(each.method),
                "nested_with": each.before,
                "nested_without": each.after,
            }
            for each in found.dropped
        ],
        "versions": versions(),
    }
    return Blend(
        str(found.method),
        rows.scale.targets,
        tuple(parts[number] for number in found.kept),
        tuple(parts[each.member] for each in found.dropped),
        found.weights,
        facts,
    )


def _nearest(levels: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value moved to the nearest level; halfway between two, to the higher one."""
    middles = (levels[1:] + levels[:-1]) / 2
    return levels[np.searchsorted(middles, values, side="right")]
