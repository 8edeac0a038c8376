"""Losses of regression tasks. Predictions and targets are ``(batch, columns)``, float32."""

from __future__ import annotations

from collections.abc import Callable

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


def make_loss(name: str) -> Loss:
    """The loss of that name. Raises SettingsError for an unknown one."""
    if name not in LOSSES:
        raise SettingsError(f"loss={name!r} is not known: {nearest(name, list(LOSSES))}")
    return LOSSES[name]
