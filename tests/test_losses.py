"""Losses by hand: errors [[3, 0], [4, 0]] tell the definitions apart."""

import pytest
import torch

from kernel_lib.errors import SettingsError
from kernel_lib.metrics.regression import mcrmse
from kernel_lib.training.losses import LOSSES, make_loss

TARGETS = torch.zeros(2, 2)
PREDICTIONS = torch.tensor([[3.0, 0.0], [4.0, 0.0]])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mse", 25 / 4),
        ("smooth_l1", (2.5 + 3.5) / 4),
        ("mcrmse", (25 / 2) ** 0.5 / 2),
        ("elementwise_l1", 7 / 4),
    ],
)
def test_value_by_hand(name: str, value: float) -> None:
    assert make_loss(name)(PREDICTIONS, TARGETS).item() == pytest.approx(value, abs=1e-4)


def test_the_mcrmse_loss_is_the_metric() -> None:
    predictions, targets = torch.randn(20, 6), torch.randn(20, 6)
    loss = make_loss("mcrmse")(predictions, targets).item()
    assert loss == pytest.approx(mcrmse(targets.numpy(), predictions.numpy()), abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_perfect_prediction_has_a_finite_gradient(name: str) -> None:
    predictions = torch.ones(3, 6, requires_grad=True)
    make_loss(name)(predictions, torch.ones(3, 6)).backward()
    assert predictions.grad is not None and torch.isfinite(predictions.grad).all()


def test_an_unknown_loss_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'smooth_l1'"):
        make_loss("smoothl1")
