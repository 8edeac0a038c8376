"""Losses of regression tasks. Predictions and targets are ``(batch, columns)``, float32.

Each of ``LOSSES`` is the mean over columns of what it gives for a column by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from kernel_lib.config import nearest
from kernel_lib.errors import SettingsError

Loss = Callable[[Tensor, Tensor], Tensor]
ROOT_EPSILON = 1e-9  # the root's slope at 0 is infinite


def column_rmse(predictions: Tensor, targets: Tensor) -> Tensor:
    """The batch's MCRMSE: root of the mean square of each column, then the mean over columns.

    Example: errors [[3, 0], [4, 0]] give (sqrt((9 + 16) / 2) + 0) / 2 = 1.768.
    """
    squares = functional.mse_loss(predictions, targets, reduction="none")
    return torch.sqrt(squares.mean(dim=0) + ROOT_EPSILON).mean()


def elementwise_l1(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of ``sqrt(error^2 + eps)``: an absolute error.

    Public FB3 notebooks call this RMSE; the root is taken of each element, so it is not.
    Example: errors [[3, 0], [4, 0]] give 7 / 4 = 1.75.
    """
    squares = functional.mse_loss(predictions, targets, reduction="none")
    return torch.sqrt(squares + ROOT_EPSILON).mean()


LOSSES: dict[str, Loss] = {
    "smooth_l1": functional.smooth_l1_loss,
    "mse": functional.mse_loss,
    "mcrmse": column_rmse,
    "elementwise_l1": elementwise_l1,
}


def make_loss(name: str, *, weights: Sequence[float] = (), rank_weight: float = 0.0) -> Loss:
    """The loss of that name, and what the settings add to it.

    Args:
        name: one of ``LOSSES``.
        weights: of each column, as for :func:`weighted`; none: all alike.
        rank_weight: of :func:`rank_loss`, which is added; 0: without.

    Raises:
        SettingsError: the name is unknown.
    """
    if name not in LOSSES:
        raise SettingsError(f"loss={name!r} is not known: {nearest(name, list(LOSSES))}")
    loss = LOSSES[name]
    if len(set(weights)) > 1:  # equal ones weigh nothing
        loss = weighted(loss, weights)
    return with_rank_loss(loss, rank_weight) if rank_weight else loss


def weighted(loss: Loss, weights: Sequence[float]) -> Loss:
    """The loss as a weighted mean over columns: sum(w_c * loss_c) / sum(w_c).

    Args:
        loss: one of ``LOSSES``.
        weights: a number for each column, 0 or more, one of them above 0.
    """
    total = sum(weights)

    def weigh(predictions: Tensor, targets: Tensor) -> Tensor:
        columns = zip(weights, predictions.split(1, 1), targets.split(1, 1), strict=True)
        parts = [loss(found, true) * (weight / total) for weight, found, true in columns]
        return torch.stack(parts).sum()

    return weigh


def with_rank_loss(loss: Loss, weight: float) -> Loss:
    """The loss plus ``weight`` times :func:`rank_loss`."""

    def add(predictions: Tensor, targets: Tensor) -> Tensor:
        return loss(predictions, targets) + weight * rank_loss(predictions, targets)

    return add


def rank_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """How badly a batch is ordered: RankNet's pairwise logistic loss (Burges et al. 2005).

    For each column the mean of log(1 + exp(-(p_i - p_j))) over the pairs of rows with y_i > y_j,
    then the mean over the columns that have such a pair; 0 where none has one.

    It compares the rows of a batch with each other, so it depends on which are together: of a batch
    that is cut for memory, or shared by processes, only the pairs inside a part count, as with
    ``mcrmse`` only the rows of a part stand under one root. A row alone gives 0.

    Example: predictions [[1], [0], [0]] for targets [[2], [1], [1]] have two pairs, and give
    log(1 + exp(-1)) = 0.3133.
    """
    above = targets[:, None] > targets[None]
    losses = functional.softplus(predictions[None] - predictions[:, None])
    pairs = above.sum(dim=(0, 1))
    by_column = (losses * above).sum(dim=(0, 1)) / pairs.clamp(min=1)
    return by_column.sum() / (pairs > 0).sum().clamp(min=1)
