"""Which blend: every method scored on rows it has not seen, and runs that do not help dropped.

Weights that were chosen on the rows they are scored on look better than they are, by more the more
of them there are. So the rows are split into parts, the weights for each part are learned from the
others (nested cross-validation: the predictions are out of fold already), and every choice here,
of the method, of ridge's alpha, of what to drop, goes by such scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernel_lib.blending.methods import METHODS, Method, fit, moments, only
from kernel_lib.errors import SettingsError
from kernel_lib.metrics.regression import mcrmse, mcrmse_difference_standard_error
from kernel_lib.results.blend_weights import FloatArray, Weights

ROUNDING = 1e-9  # scores nearer than this are the same


@dataclass(frozen=True)
class Splitting:
    """How rows are split.

    Attributes:
        parts: of each splitting; at least 3, so that ridge has two to choose its alpha with.
        repeats: splittings, all different.
        seed: of the drawing.

    Raises:
        SettingsError: one of them is too small.
    """

    parts: int = 5
    repeats: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.parts < 3 or self.repeats < 1:
            raise SettingsError(
                f"parts={self.parts}, repeats={self.repeats}: at least 3 parts and 1 repeat."
            )
        if self.seed < 0:
            raise SettingsError(f"seed={self.seed} must be at least 0.")

    def check(self, rows: int) -> None:
        """Raises SettingsError unless what is left of so many rows without any part can be split
        into as many parts again, as :meth:`Search.whole_search` does."""
        if self._fits(rows, self.parts):
            return
        most = max((parts for parts in range(3, rows) if self._fits(rows, parts)), default=0)
        cure = f"Set parts to {most} or less." if most else "There are too few."
        raise SettingsError(f"parts={self.parts} is too much for {rows} rows. {cure}")

    @staticmethod
    def _fits(rows: int, parts: int) -> bool:
        return rows - -(-rows // parts) >= parts

    def labels(self, rows: int) -> NDArray[np.int64]:
        """The part of each row in each splitting, ``(repeats, rows)``; parts of like size."""
        even = np.arange(rows) % self.parts
        return np.stack(
            [np.random.default_rng((self.seed, at)).permutation(even) for at in range(self.repeats)]
        )


@dataclass(frozen=True)
class Trial:
    """What a method gave.

    Attributes:
        method: which.
        in_sample: MCRMSE on the rows that the weights were learned from.
        nested: MCRMSE on rows they were not, the mean of all splittings.
        predictions: those rows', clipped, ``(repeats, rows, targets)``.
        behind: how far its nested score is behind the best method's.
        error: standard error of that, by paired bootstrap.
    """

    method: Method
    in_sample: float
    nested: float
    predictions: FloatArray
    behind: float = 0.0
    error: float = 0.0


@dataclass(frozen=True)
class Dropped:
    """A run that does not help.

    Attributes:
        member: its number.
        method: of the blend it was dropped from.
        before, after: nested score with it and without.
    """

    member: int
    method: Method
    before: float
    after: float


@dataclass(frozen=True)
class Found:
    """The blend that a search ended with.

    Attributes:
        method: how.
        kept: numbers of the runs in it.
        dropped: the others, in the order they were dropped.
        weights: of the runs kept, learned from all rows.
        trials: every method with the runs kept.
        losses: what the nested score loses without each of the runs kept.
    """

    method: Method
    kept: list[int]
    dropped: list[Dropped]
    weights: Weights
    trials: list[Trial]
    losses: dict[int, float] = field(default_factory=dict)

    @property
    def trial(self) -> Trial:
        """The chosen method's."""
        return next(trial for trial in self.trials if trial.method == self.method)


class Search:
    """Scores blends of some runs on some rows.

    Args:
        true: ``(rows, targets)``.
        predictions: ``(members, rows, targets)``.
        bounds: the scale; every blend is clipped to it before it is scored.
        splitting: of the rows.
    """

    def __init__(
        self,
        true: NDArray[np.floating],
        predictions: NDArray[np.floating],
        *,
        bounds: tuple[float, float],
        splitting: Splitting,
    ) -> None:
        self._true = np.asarray(true, np.float64)
        self._predictions = np.asarray(predictions, np.float64)
        self._bounds, self._splitting = bounds, splitting
        self._labels = splitting.labels(len(self._true))
        self._moments = [
            [self._moments_of(at == part) for part in self._parts] for at in self._labels
        ]

    def weights(self, method: Method, kept: Sequence[int]) -> Weights:
        """Learned from all rows."""
        return fit(method, [only(table, kept) for table in self._moments[0]])

    def in_sample(self, method: Method, kept: Sequence[int]) -> float:
        """MCRMSE on the rows that the weights are learned from."""
        return mcrmse(self._true, self._combined(self.weights(method, kept), kept, slice(None)))

    def unseen(self, method: Method, kept: Sequence[int]) -> FloatArray:
        """Predictions of rows that the weights were not learned from, clipped.

        Returns:
            ``(repeats, rows, targets)``.
        """
        found = np.empty((len(self._labels), *self._true.shape))
        for repeat, labels in enumerate(self._labels):
            tables = [only(table, kept) for table in self._moments[repeat]]
            for part in self._parts:
                weights = fit(method, [table for at, table in enumerate(tables) if at != part])
                rows = labels == part
                found[repeat, rows] = self._combined(weights, kept, rows)
        return found

    def score(self, unseen: FloatArray) -> float:
        """Mean MCRMSE over the splittings."""
        return float(np.mean([mcrmse(self._true, each) for each in unseen]))

    def nested(self, method: Method, kept: Sequence[int]) -> float:
        """MCRMSE on rows that the weights were not learned from."""
        return self.score(self.unseen(method, kept))

    def trials(self, methods: Sequence[Method], kept: Sequence[int]) -> list[Trial]:
        """Every method with the same runs, and how far each is behind the best."""
        unseen = [self.unseen(method, kept) for method in methods]
        scores = [self.score(each) for each in unseen]
        best = int(np.argmin(scores))
        return [
            Trial(
                method,
                self.in_sample(method, kept),
                scores[at],
                unseen[at],
                behind=scores[at] - scores[best],
                error=mcrmse_difference_standard_error(self._true, unseen[at], unseen[best]),
            )
            for at, method in enumerate(methods)
        ]

    def drop(
        self, method: Method, kept: Sequence[int], *, keep_all: bool = False
    ) -> tuple[list[int], list[Dropped], dict[int, float]]:
        """Backward elimination: as long as the nested score without some run is not worse than
        with it, the run without which it is best goes.

        Args:
            method: of the blend.
            kept: the runs to begin with.
            keep_all: drop nothing.

        Returns:
            The runs left, those dropped, and what the score loses without each of those left.
        """
        left: list[int] = list(kept)
        dropped: list[Dropped] = []
        score = self.nested(method, left)
        while len(left) > 1:
            without = {one: self.nested(method, [m for m in left if m != one]) for one in left}
            least = min(left, key=lambda one: without[one])
            if keep_all or without[least] > score + ROUNDING:
                return left, dropped, {one: value - score for one, value in without.items()}
            dropped.append(Dropped(least, method, score, without[least]))
            left.remove(least)
            score = without[least]
        return left, dropped, {}

    def find(self, methods: Sequence[Method] = METHODS, *, keep_all: bool = False) -> Found:
        """Chooses a method, drops with it what does not help and what ends with no weight at all,
        and again until nothing is dropped.

        Args:
            methods: to choose from.
            keep_all: drop nothing.
        """
        kept = list(range(len(self._predictions)))
        dropped: list[Dropped] = []
        while True:
            trials = self.trials(methods, kept)
            method = simplest_of_the_best(trials)
            left, useless, losses = self.drop(method, kept, keep_all=keep_all)
            weights = self.weights(method, kept)
            if losses and not useless and not keep_all:
                # What would be predicted with for nothing: it has a weight in parts only.
                score = self.nested(method, kept)
                idle = [m for m, own in zip(kept, weights.values, strict=True) if not own.any()]
                idle = idle if len(idle) < len(kept) else []
                useless = [Dropped(m, method, score, score + losses[m]) for m in idle]
                left = [m for m in kept if m not in idle]
            if not useless:
                return Found(method, kept, dropped, weights, trials, losses)
            kept, dropped = left, dropped + useless

    def whole_search(
        self, methods: Sequence[Method] = METHODS, *, keep_all: bool = False
    ) -> FloatArray:
        """As :meth:`unseen`, but everything is chosen anew without the part that is predicted: the
        method, what is dropped, the weights. Of the first splitting only.

        Returns:
            ``(1, rows, targets)``.
        """
        found = np.empty((1, *self._true.shape))
        for part in self._parts:
            rows = self._labels[0] == part
            inner = Search(
                self._true[~rows],
                self._predictions[:, ~rows],
                bounds=self._bounds,
                splitting=self._splitting,
            ).find(methods, keep_all=keep_all)
            found[0, rows] = self._combined(inner.weights, inner.kept, rows)
        return found

    @property
    def _parts(self) -> range:
        return range(self._splitting.parts)

    def _moments_of(self, rows: NDArray[np.bool_]) -> FloatArray:
        return moments(self._true[rows], self._predictions[:, rows])

    def _combined(
        self, weights: Weights, kept: Sequence[int], rows: NDArray[np.bool_] | slice
    ) -> FloatArray:
        return np.clip(weights.combine(self._predictions[list(kept)][:, rows]), *self._bounds)


def simplest_of_the_best(trials: Sequence[Trial]) -> Method:
    """The method with the fewest choices of those whose nested score is behind the best one's by
    no more than the standard error of that difference; of several the one that scores best."""
    close = [trial for trial in trials if trial.behind <= trial.error]
    return min(close, key=lambda trial: (trial.method.freedom, trial.nested)).method
