"""How sure the difference of a technique is, and the verdict.

Two things make it uncertain:

- The rows. Bootstrap (Efron & Tibshirani 1993, chapter 6): the rows of each fold are drawn with
  replacement, for a row all its predictions (base and technique, every seed) together, and the
  technique's difference is computed anew; ``rows`` is the standard deviation of that, from the
  folds' own since folds share no row.
- The training. Pairs of the same fold differ by their seeds alone: the noise is the variance of
  their differences within a fold. The larger of the technique's own and the usual one of all
  techniques counts, so that one which trains less evenly than the others is not taken for sure.
  Where fewer than two techniques have a second seed there is no usual one. Without a second seed of
  its own and a usual one it is twice the variance of the base's scores within a fold: that of a
  difference of two independent trainings.

The standard error is ``sqrt(rows^2 + noise / pairs)``. Where neither technique nor base has a
second seed, the spread of the differences over folds, which holds both, counts if it is larger than
that of the rows; with a single pair the noise is unknown, and nothing is decided.

A variance from two or three seeds is often far too small by luck. How often is known: the noise has
degrees of freedom, seeds less one in each fold, and Student's t takes the place of the normal
distribution for its part of the variance (Cochran & Cox 1950: the quantiles weighted by the
variances, 12.7 standard errors for the part known with 1 degree of freedom, 4.3 with 2, 1.96
for that of the rows). Of techniques without effect no more than about 5 % then pass for helping or
hurting; Satterthwaite's degrees of freedom would let 11 % pass where the noise is known with 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

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
NORMAL = 1.96  # standard errors on either side of a 95 % interval, were the error known exactly
FEW = 6  # fewer have no middle that one of them could not move
Spread = tuple[float, int]  # sum of squared deviations, degrees of freedom


@dataclass(frozen=True)
class Noise:
    """The training's part.

    Attributes:
        variance: of the difference of one pair; from folds: of their mean, rows and all.
        degrees: of freedom that it is known with; 0: it is not known.
        source: what it is known from.
    """

    variance: float
    degrees: float
    source: str


def spread_within_folds(values: Mapping[tuple[int, int], float]) -> Spread:
    """Of values by seed and fold, about the mean of their fold: what seeds alone make."""
    by_fold: dict[int, list[float]] = {}
    for (_, fold), value in values.items():
        by_fold.setdefault(fold, []).append(value)
    squares = sum(float(np.sum((np.array(v) - np.mean(v)) ** 2)) for v in by_fold.values())
    return squares, sum(len(found) - 1 for found in by_fold.values())


def usual_noise(spreads: Sequence[Spread]) -> Noise | None:
    """That of the differences of several techniques; None: fewer than two have a second seed.

    The median of their variances, so that one which diverges makes no other uncertain, each first
    divided by what the median of such estimates is of the truth: that of chi-square over its
    degrees of freedom k, about ``(1 - 2 / 9k)^3`` (Wilson & Hilferty 1931). Of fewer than ``FEW``
    the mean, weighted by degrees of freedom.

    Its own degrees of freedom are fewer than the sum K of those of m techniques, which all have the
    base's runs in common: two differences correlate by 1/2, their variances by 1/4. The mean has
    ``4 K / (m + 3)``; the median, by simulation with three to five seeds, about ``3 K / (m + 4)``
    (with two seeds fewer, but it is then a third too large).
    """
    known = [(squares, degrees) for squares, degrees in spreads if degrees]
    if len(known) < 2:
        return None
    total = sum(degrees for _, degrees in known)
    if len(known) < FEW:
        mean = sum(squares for squares, _ in known) / total
        return Noise(mean, 4 * total / (len(known) + 3), COMMON)
    found = [squares / degrees / (1 - 2 / (9 * degrees)) ** 3 for squares, degrees in known]
    return Noise(float(np.median(found)), 3 * total / (len(known) + 4), COMMON)


def standard_error(
    rows: float, differences: Sequence[float], own: Spread, common: Noise | None, of_base: Spread
) -> tuple[float, Noise]:
    """The standard error of a mean difference, and the training noise in it.

    Args:
        rows: the part of the rows.
        differences: of the pairs.
        own: spread of this technique's differences within folds.
        common: the usual noise; None: not known.
        of_base: spread of the base's scores within folds.

    Example:
        Rows 0.003, two pairs, a variance of 0.000032 within the fold: the root of 0.000009 +
        0.000032 / 2, which is 0.005.
    """
    count = len(differences)
    noise = common
    if own[1] and (common is None or own[0] / own[1] > common.variance):
        noise = Noise(own[0] / own[1], own[1], OWN)
    elif common is None and of_base[1]:
        noise = Noise(2 * of_base[0] / of_base[1], of_base[1], OF_BASE)
    if noise is not None:
        return math.sqrt(rows**2 + noise.variance / count), noise
    if count > 1:
        variance = float(np.var(differences, ddof=1)) / count
        return max(rows, math.sqrt(variance)), Noise(variance, count - 1, OF_FOLDS)
    return rows, Noise(0.0, 0, UNKNOWN)


def quantile(rows: float, error: float, noise: Noise) -> float:
    """How many standard errors on either side make the 95 % interval.

    Args:
        rows: the part of the rows.
        error: the standard error.
        noise: the training's part.

    Example:
        As much noise, known with 2 degrees of freedom, as rows: half of 1.96 and half of 4.30,
        which is 3.13.
    """
    if not noise.degrees or not error:
        return NORMAL
    wide = float(t.ppf(0.975, noise.degrees))
    if noise.source == OF_FOLDS:
        return max(NORMAL * rows, wide * math.sqrt(noise.variance)) / error
    return NORMAL + (1 - (rows / error) ** 2) * (wide - NORMAL)


def verdict(difference: float, error: float, width: float, noise: Noise) -> str:
    """Whether a technique helps.

    ``helps`` or ``hurts``: the 95 % interval does not hold 0. ``does nothing``: it lies within
    0.002 on either side of 0.

    Args:
        difference: of the technique.
        error: its standard error.
        width: how many of them make the interval.
        noise: that is in it; where it is unknown nothing is decided.
    """
    if noise.source == UNKNOWN:
        return UNDECIDED
    if abs(difference) > width * error:
        return HELPS if difference < 0 else HURTS
    return NOTHING if abs(difference) + width * error <= ALIKE else UNDECIDED
