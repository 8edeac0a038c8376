"""What a technique changes against the base, and the verdict.

A *pair* is a run of the technique and a run of the base with the same seed and fold. Its difference
is that of the two scores (MCRMSE, lower is better) on the fold's rows; the technique's difference
is the mean over its pairs. How sure that is, ``bench.ablate_errors`` says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kernel_lib.bench.ablate_errors import (
    OPTIMISTIC,
    Noise,
    Spread,
    quantile,
    spread_within_folds,
    standard_error,
    usual_noise,
    verdict,
)
from kernel_lib.bench.ablate_runs import Trained
from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.regression import mcrmse_difference_standard_error

RESAMPLES = 1000


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
        degrees: of freedom that it is known with; 0: it is not known.
        quantile: so many standard errors on either side make the 95 % interval.
        pairs: seed, fold and difference of each.
        time, memory: those of the technique over those of the base; None: not known.
        verdict: in a word or three.
    """

    difference: float
    rows_error: float
    error: float
    noise_from: str
    degrees: float
    quantile: float
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
    common = usual_noise(list(spreads.values()))
    of_base = spread_within_folds({(run.seed, run.fold): run.score for run in plain or base})
    selecting = set(optimistic)
    return {
        name: _compare(
            found, spreads[name], common, of_base, name in selecting, resamples=resamples
        )
        for name, found in pairs.items()
    }


def _compare(
    pairs: Sequence[Pair],
    own: Spread,
    common: Noise | None,
    of_base: Spread,
    is_optimistic: bool,
    *,
    resamples: int,
) -> Comparison:
    differences = [pair.difference for pair in pairs]
    difference = float(np.mean(differences))
    rows = rows_error(pairs, resamples=resamples)
    error, noise = standard_error(rows, differences, own, common, of_base)
    width = quantile(rows, error, noise)
    return Comparison(
        difference=difference,
        rows_error=rows,
        error=error,
        noise_from=noise.source,
        degrees=noise.degrees,
        quantile=width,
        pairs=tuple((p.base.seed, p.base.fold, p.difference) for p in pairs),
        time=_ratio([(p.technique.seconds, p.base.seconds) for p in pairs]) or math.nan,
        memory=_ratio([(p.technique.peak_bytes, p.base.peak_bytes) for p in pairs]),
        verdict=OPTIMISTIC if is_optimistic else verdict(difference, error, width, noise),
    )


def _differences(pairs: Sequence[Pair]) -> dict[tuple[int, int], float]:
    return {(pair.base.seed, pair.base.fold): pair.difference for pair in pairs}


def _ratio(values: Sequence[tuple[float | None, float | None]]) -> float | None:
    """Sum over sum, of the pairs in which both are known."""
    known = [(ours, theirs) for ours, theirs in values if ours is not None and theirs]
    return sum(v for v, _ in known) / sum(v for _, v in known) if known else None
