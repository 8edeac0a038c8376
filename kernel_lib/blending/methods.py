"""Choosing the weights of a blend: mean, rank mean, ridge, non-negative least squares, hill climb.

Every method sees the rows only through sums over them (:func:`moments`), made once for each part
of a cross-validation; to learn from some parts is to add up theirs. Least squares minimise the
squared error, global ones that of all targets together; the hill climb minimises the score itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from kernel_lib.results.blend_weights import FloatArray, Weights

ALPHAS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
CLIMB_STEPS = 100


@dataclass(frozen=True)
class Method:
    """A way to choose weights.

    Attributes:
        name: one of ``NAMES``.
        per_target: weights of their own for each target, or the same for all.
    """

    name: str
    per_target: bool = False

    def __str__(self) -> str:
        return f"{self.name} per target" if self.per_target else self.name

    @property
    def freedom(self) -> int:
        """How much it chooses: nothing and no rank, nothing, weights, weights for each target."""
        return {"mean": 0, "rank_mean": 1}.get(self.name, 3 if self.per_target else 2)


WEIGHING = ("ridge", "nnls", "hill_climb")
NAMES = ("mean", "rank_mean", *WEIGHING)
METHODS = (
    Method("mean"),
    Method("rank_mean"),
    *(Method(name, per_target) for name in WEIGHING for per_target in (False, True)),
)


def moments(true: NDArray[np.floating], predictions: NDArray[np.floating]) -> FloatArray:
    """All that the methods know of some rows: sums of products, a table for each target.

    Args:
        true: ``(rows, targets)``.
        predictions: ``(members, rows, targets)``.

    Returns:
        ``A'A`` of each target, ``(targets, members + 2, members + 2)``, where ``A`` has the
        members' predictions, a column of ones, and the truth.
    """
    true = np.asarray(true, np.float64)[None]
    columns = np.concatenate([np.asarray(predictions, np.float64), np.ones_like(true), true])
    by_target = columns.transpose(2, 0, 1)
    return by_target @ by_target.transpose(0, 2, 1)


def only(table: FloatArray, kept: Sequence[int]) -> FloatArray:
    """The moments of some of the members."""
    rows = [*kept, table.shape[-1] - 2, table.shape[-1] - 1]
    return table[:, rows][:, :, rows]


def fit(method: Method, parts: Sequence[FloatArray]) -> Weights:
    """Weights learned from rows.

    Args:
        method: how.
        parts: the moments of disjoint parts of the rows; ridge chooses its alpha by leaving out
            one after the other, so it wants at least two.
    """
    whole = np.sum(parts, axis=0)
    targets, members = len(whole), whole.shape[-1] - 2
    if method.name == "ridge":
        alpha = _best_alpha(parts, method.per_target)
        return _ridge(whole, method.per_target, [alpha])[0]
    if method.name == "nnls":
        values = _nnls(whole, method.per_target)
    elif method.name == "hill_climb":
        values = _hill_climb(whole, method.per_target)
    else:
        values = np.full((members, targets), 1 / members)
    return Weights(values, np.zeros(targets), by_rank=method.name == "rank_mean")


def _ridge(table: FloatArray, per_target: bool, alphas: Sequence[float]) -> list[Weights]:
    """Minimises ``|y - b - P w|^2 + alpha |w - 1/m|^2``, for each alpha.

    Hoerl & Kennard 1970, shrunk towards equal weights instead of towards 0: an infinite alpha is
    the mean, corrected by an intercept ``b`` of each target, which is not shrunk. Global: the
    squared errors of all targets are added up.
    """
    members = table.shape[-1] - 2
    rows, sums = table[0, members, members], table[:, members]
    centred = table - sums[:, :, None] * sums[:, None, :] / rows
    if not per_target:
        centred = np.broadcast_to(centred.sum(axis=0), centred.shape)
    gram, product = centred[:, :members, :members], centred[:, :members, -1]
    short = product - gram.mean(axis=2)  # what equal weights leave to explain
    eigenvalues, vectors = np.linalg.eigh(gram)
    turned = np.einsum("tij,ti->tj", vectors, short)
    found = []
    for alpha in alphas:
        step = np.einsum("tij,tj->it", vectors, turned / (np.maximum(eigenvalues, 0) + alpha))
        values = 1 / members + step
        intercepts = (sums[:, -1] - np.einsum("tm,mt->t", sums[:, :members], values)) / rows
        found.append(Weights(values, intercepts, alpha=alpha))
    return found


def _best_alpha(parts: Sequence[FloatArray], per_target: bool) -> float:
    """The alpha with the lowest MCRMSE on parts left out, for all targets; of equals the larger."""
    squared = np.zeros((len(ALPHAS), len(parts[0])))
    for left_out, table in enumerate(parts):
        rest = np.sum([part for at, part in enumerate(parts) if at != left_out], axis=0)
        for at, weights in enumerate(_ridge(rest, per_target, ALPHAS)):
            truth = -np.ones(len(weights.intercepts))
            error = np.vstack([weights.values, weights.intercepts, truth])
            squared[at] += np.einsum("it,tij,jt->t", error, table, error)
    scores = np.sqrt(np.maximum(squared, 0)).mean(axis=1)
    return ALPHAS[len(ALPHAS) - 1 - int(np.argmin(scores[::-1]))]


def _nnls(table: FloatArray, per_target: bool) -> FloatArray:
    """Minimises ``|y - P w|^2`` with ``w >= 0`` (Lawson & Hanson 1974, chapter 23).

    No intercept, and the sum of the weights is free. Global: the squared errors of all targets are
    added up.
    """
    members = table.shape[-1] - 2
    tables = table if per_target else table.sum(axis=0)[None]
    found = []
    for each in tables:
        # A square root of P'P stands for P: the problem is the same, the rows are few.
        eigenvalues, vectors = np.linalg.eigh(each[:members, :members])
        roots = np.sqrt(np.maximum(eigenvalues, 0))
        turned = vectors.T @ each[:members, -1]
        known = roots > 1e-9 * roots.max(initial=0)
        goal = np.divide(turned, roots, out=np.zeros_like(turned), where=known)
        found.append(nnls(np.where(known, roots, 0)[:, None] * vectors.T, goal)[0])
    return np.broadcast_to(np.array(found).T, (members, len(table))).copy()


def _hill_climb(table: FloatArray, per_target: bool) -> FloatArray:
    """Adds, 100 times, the run with which the mean of those taken so far scores best.

    Greedy selection with replacement (Caruana et al. 2004, ICML); the weights are the shares at the
    best of the 100 points, the first of equals. It minimises the MCRMSE, or each target's RMSE.
    """
    members = table.shape[-1] - 2
    true = table[:, :members, -1]
    gram = table[:, :members, :members] - true[:, :, None] - true[:, None, :]
    errors = gram + table[:, -1, -1][:, None, None]  # sums of products of the members' errors
    counts = np.zeros((len(table), members))
    best, best_scores = counts.copy(), np.full(len(table), np.inf)
    alone, every = np.diagonal(errors, axis1=1, axis2=2), np.arange(len(table))
    # Of the sum of the errors of those taken: its square, and its product with each member's.
    square, cross = np.zeros((len(table), 1)), np.zeros((len(table), members))
    for taken in range(1, CLIMB_STEPS + 1):
        squares = square + 2 * cross + alone  # with each member added
        scores = np.sqrt(np.maximum(squares, 0)) / taken
        if not per_target:
            scores = np.broadcast_to(scores.mean(axis=0), scores.shape)
        chosen = scores.argmin(axis=1)
        square, cross = squares[every, chosen][:, None], cross + errors[every, chosen]
        counts[every, chosen] += 1
        reached = scores[every, chosen]
        better = reached < best_scores
        best[better], best_scores[better] = counts[better] / taken, reached[better]
    return best.T.copy()
