"""What a technique changes against the base, how sure that is, and the verdict.

A *pair* is a run of the technique and a run of the base with the same seed and fold. Its difference
is that of the two scores (MCRMSE, lower is better) on the fold's rows; the technique's difference
is the mean over its pairs. Two things make it uncertain:

- The rows. Bootstrap (Efron & Tibshirani 1993, chapter 6): the rows of each fold are drawn with
  replacement, for a row all its predictions (base and technique, every seed) together, and the
  technique's difference is computed anew; ``rows`` is the standard deviation of that, from the
  folds' own since folds share no row.
- The training. Pairs of the same fold differ by their seeds alone: ``noise`` squared is the
  variance of their differences within a fold. From two or three seeds it is often too small by
  luck, so the larger of the technique's own and the usual one of all techniques counts (their
  median: one that diverges makes no other uncertain). Without a second seed of any technique it is
  twice the variance of the base's scores within a fold: that of a difference of two independent
  trainings.

The standard error is ``sqrt(rows^2 + noise^2 / pairs)``. Where neither technique nor base has a
second seed, the spread of the differences over folds, which holds both, counts if it is larger than
that of the rows; with a single pair the noise is unknown, and nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kernel_lib.bench.ablate_runs import Trained
from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.regression import mcrmse_difference_standard_error

RESAMPLES = 1000
ALIKE = 0.002  # a change below it is not worth having
HELPS, HURTS, NOTHING, UNDECIDED = "helps", "hurts", "does nothing", "not decidable here"
OPTIMISTIC = "optimistic"  # what selects on the fold that it reports
OWN, COMMON, OF_BASE, OF_FOLDS, UNKNOWN = (
    "its own seeds",
    "the seeds of all techniques",
    "the base's seeds",
    "its folds",
    "unknown",
)
Spread = tuple[float, int]  # sum of squared deviations, degrees of freedom
Key = tuple[int, int]  # seed, fold


@dataclass(frozen=True)
class Pair:
    """A run of the technique and one of the base, same seed, same fold, same rows."""

    technique: Trained
    base: Trained

    @property
    def difference(self) -> float:
        """Score of the technique less that of the base."""
        return self.technique.score - self.base.score


@dataclass(frozen=True)
class Comparison:
    """A technique against the base.

    Attributes:
        difference: mean over pairs; negative: better.
        rows_error: the part of the error that the choice of rows makes.
        error: the standard error; where the noise is unknown, that of the rows alone.
        noise_from: what the training noise is known from.
        pairs: seed, fold and difference of each.
        time, memory: those of the technique over those of the base; None: not known.
        verdict: in a word or three.
    """

    difference: float
    rows_error: float
    error: float
    noise_from: str
    pairs: tuple[tuple[int, int, float], ...]
    time: float
    memory: float | None
    verdict: str


def make_pairs(technique: Iterable[Trained], base: Iterable[Trained]) -> list[Pair]:
    """Runs of the same seed and fold, in order.

    Raises:
        ArtifactError: two of them were not scored on the same rows.
    """
    bases = {(run.seed, run.fold): run for run in base}
    pairs = []
    for run in sorted(technique, key=lambda run: (run.seed, run.fold)):
        partner = bases.get((run.seed, run.fold))
        if partner is None:
            continue
        if partner.ids != run.ids:
            raise ArtifactError(
                f"{run.name} and {partner.name}, seed {run.seed}, fold {run.fold}, were not scored "
                "on the same rows. Make both anew, in an empty folder (--out)."
            )
        pairs.append(Pair(run, partner))
    return pairs


def rows_error(pairs: Sequence[Pair], *, resamples: int = RESAMPLES) -> float:
    """Bootstrap standard error of the mean difference over rows; folds share none.

    Args:
        pairs: at least one.
        resamples: how often the rows are drawn.
    """
    variance = 0.0
    for fold in {pair.base.fold for pair in pairs}:
        own = [pair for pair in pairs if pair.base.fold == fold]
        error = mcrmse_difference_standard_error(
            own[0].base.true,
            np.stack([pair.technique.predicted for pair in own]),
            np.stack([pair.base.predicted for pair in own]),
            resamples=resamples,
        )
        variance += (len(own) / len(pairs) * error) ** 2
    return math.sqrt(variance)


def spread_within_folds(values: Mapping[Key, float]) -> Spread:
    """Of values by seed and fold, about the mean of their fold: what seeds alone make."""
    by_fold: dict[int, list[float]] = {}
    for (_, fold), value in values.items():
        by_fold.setdefault(fold, []).append(value)
    squares = sum(float(np.sum((np.array(v) - np.mean(v)) ** 2)) for v in by_fold.values())
    return squares, sum(len(found) - 1 for found in by_fold.values())


def compare_all(
    runs: Mapping[str, Sequence[Trained]],
    base: Sequence[Trained],
    *,
    plain: Sequence[Trained] = (),
    optimistic: Iterable[str] = (),
    resamples: int = RESAMPLES,
) -> dict[str, Comparison]:
    """Every technique that has a pair, against the base.

    Args:
        runs: of each technique.
        base: of the base, or of any other recipe that is to be held against.
        plain: of the base, where ``base`` is another recipe.
        optimistic: names of those that select on the fold that they report.
        resamples: of the bootstrap.

    Raises:
        ArtifactError: as :func:`make_pairs`.
    """
    pairs = {name: make_pairs(found, base) for name, found in runs.items()}
    pairs = {name: found for name, found in pairs.items() if found}
    spreads = {name: spread_within_folds(_differences(found)) for name, found in pairs.items()}
    common = usual_variance(list(spreads.values()))
    of_base = spread_within_folds({(run.seed, run.fold): run.score for run in plain or base})
    return {
        name: _compare(
            found, spreads[name], common, of_base, name in set(optimistic), resamples=resamples
        )
        for name, found in pairs.items()
    }


def usual_variance(spreads: Sequence[Spread]) -> float | None:
    """The median of the variances, each first divided by what the median of such estimates is of
    the truth: that of chi-square over its degrees of freedom k, about ``(1 - 2 / 9k)^3`` (Wilson &
    Hilferty 1931). None: no technique has a second seed."""
    found = [squares / dof / (1 - 2 / (9 * dof)) ** 3 for squares, dof in spreads if dof]
    return float(np.median(found)) if found else None


def standard_error(
    rows: float, differences: Sequence[float], own: Spread, common: float | None, of_base: Spread
) -> tuple[float, str]:
    """The standard error of a mean difference, and what its training noise is known from.

    Args:
        rows: the part of the rows.
        differences: of the pairs.
        own: spread of this technique's differences within folds.
        common: the usual variance of such differences; None: not known.
        of_base: spread of the base's scores within folds.

    Example:
        Rows 0.003, two pairs, a variance of 0.000032 within the fold: the root of 0.000009 +
        0.000032 / 2, which is 0.005.
    """
    count = len(differences)
    if common is not None:
        alone = own[0] / own[1] if own[1] else 0.0
        source = OWN if alone > common else COMMON
        return math.sqrt(rows**2 + max(alone, common) / count), source
    if of_base[1]:
        return math.sqrt(rows**2 + 2 * of_base[0] / of_base[1] / count), OF_BASE
    if count > 1:
        return max(rows, float(np.std(differences, ddof=1)) / math.sqrt(count)), OF_FOLDS
    return rows, UNKNOWN


def verdict(difference: float, error: float) -> str:
    """Whether a technique helps, going by its difference and standard error.

    ``helps`` or ``hurts``: the difference is more than two standard errors. ``does nothing``: the
    95 % interval lies within 0.002 on either side of 0.
    """
    if abs(difference) > 2 * error:
        return HELPS if difference < 0 else HURTS
    if abs(difference) + 1.96 * error <= ALIKE:
        return NOTHING
    return UNDECIDED


def _compare(
    pairs: Sequence[Pair],
    own: Spread,
    common: float | None,
    of_base: Spread,
    is_optimistic: bool,
    *,
    resamples: int,
) -> Comparison:
    differences = [pair.difference for pair in pairs]
    difference = float(np.mean(differences))
    rows = rows_error(pairs, resamples=resamples)
    error, source = standard_error(rows, differences, own, common, of_base)
    word = UNDECIDED if source == UNKNOWN else verdict(difference, error)
    return Comparison(
        difference=difference,
        rows_error=rows,
        error=error,
        noise_from=source,
        pairs=tuple((p.base.seed, p.base.fold, p.difference) for p in pairs),
        time=_ratio([(p.technique.seconds, p.base.seconds) for p in pairs]) or math.nan,
        memory=_ratio([(p.technique.peak_bytes, p.base.peak_bytes) for p in pairs]),
        verdict=OPTIMISTIC if is_optimistic else word,
    )


def _differences(pairs: Sequence[Pair]) -> dict[Key, float]:
    return {(pair.base.seed, pair.base.fold): pair.difference for pair in pairs}


def _ratio(values: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Sum over sum, of the pairs in which both are known."""
    known = [(ours, theirs) for ours, theirs in values if ours is not None and theirs]
    return sum(v for v, _ in known) / sum(v for _, v in known) if known else None
