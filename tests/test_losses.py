"""Losses by hand: errors [[3, 0], [4, 0]] tell the definitions apart."""

import numpy as np
import pytest
import torch

from kernel_lib.errors import SettingsError
from kernel_lib.metrics.regression import mcrmse
from kernel_lib.training.losses import LOSSES, make_loss, rank_loss

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


WEIGHTS = (0.21, 0.16, 0.10, 0.16, 0.21, 0.16)  # of FB3's third place


@pytest.mark.parametrize("name", LOSSES)
def test_weights_weigh_the_losses_of_the_columns(name: str) -> None:
    predictions, targets = torch.randn(20, 6), torch.randn(20, 6)
    error = (predictions - targets).numpy().astype(np.float64)
    by_column = {
        "mse": (error**2).mean(axis=0),
        "smooth_l1": np.where(abs(error) < 1, error**2 / 2, abs(error) - 0.5).mean(axis=0),
        "mcrmse": np.sqrt((error**2).mean(axis=0)),
        "elementwise_l1": abs(error).mean(axis=0),
    }[name]
    found = make_loss(name, weights=WEIGHTS)(predictions, targets).item()
    assert found == pytest.approx(np.average(by_column, weights=WEIGHTS), abs=1e-5)
    doubled = [2 * weight for weight in WEIGHTS]
    again = make_loss(name, weights=doubled)(predictions, targets).item()
    assert again == pytest.approx(found, rel=1e-6)
    assert make_loss(name)(predictions, targets).item() == pytest.approx(by_column.mean(), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_equal_weights_are_no_weights_and_a_weight_of_0_leaves_a_column_out(name: str) -> None:
    predictions, targets = torch.randn(9, 3, requires_grad=True), torch.randn(9, 3)
    plain = make_loss(name)(predictions, targets)
    assert torch.equal(make_loss(name, weights=(0.3, 0.3, 0.3))(predictions, targets), plain)
    make_loss(name, weights=(1, 0, 2))(predictions, targets).backward()
    assert (predictions.grad[:, 1] == 0).all() and (predictions.grad[:, [0, 2]] != 0).any()


def slow_rank_loss(predictions: np.ndarray, targets: np.ndarray) -> float:
    """The definition, pair by pair."""
    columns = []
    for p, y in zip(predictions.T, targets.T, strict=True):
        pairs = [(i, j) for i in range(len(y)) for j in range(len(y)) if y[i] > y[j]]
        if pairs:
            columns.append(np.mean([np.log(1 + np.exp(-(p[i] - p[j]))) for i, j in pairs]))
    return float(np.mean(columns)) if columns else 0.0


def test_the_rank_loss_is_the_logistic_loss_of_ordered_pairs() -> None:
    example = rank_loss(torch.tensor([[1.0], [0.0], [0.0]]), torch.tensor([[2.0], [1.0], [1.0]]))
    assert example.item() == pytest.approx(0.31326, abs=1e-5)
    predictions = torch.randn(12, 4, requires_grad=True)
    targets = torch.randint(2, 11, (12, 4)) / 2
    targets[:, 2] = 3.0  # a column without a pair does not count
    loss = rank_loss(predictions, targets)
    loss.backward()
    numbers, step = predictions.detach().numpy().astype(np.float64), 1e-5
    assert loss.item() == pytest.approx(slow_rank_loss(numbers, targets.numpy()), abs=1e-6)
    assert (predictions.grad[:, 2] == 0).all()
    for place in ((0, 0), (5, 1), (11, 3)):
        moved = numbers.copy()
        moved[place] += step
        values = [slow_rank_loss(there, targets.numpy()) for there in (moved, numbers)]
        slope = (values[0] - values[1]) / step
        assert predictions.grad[place].item() == pytest.approx(slope, abs=1e-4)


@pytest.mark.parametrize("rows", [1, 4])
def test_a_batch_without_a_pair_has_a_rank_loss_of_0_and_no_gradient(rows: int) -> None:
    predictions = torch.randn(rows, 6, requires_grad=True)
    loss = rank_loss(predictions, torch.full((rows, 6), 3.0))
    loss.backward()
    assert loss.item() == 0 and (predictions.grad == 0).all()


def test_predictions_far_apart_have_a_finite_rank_loss() -> None:
    predictions = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    for targets, value in (([[2.0], [1.0]], 0.0), ([[1.0], [2.0]], 2e4)):
        loss = rank_loss(predictions, torch.tensor(targets))
        loss.backward()
        assert loss.item() == pytest.approx(value) and torch.isfinite(predictions.grad).all()


@pytest.mark.parametrize("weights", [(), WEIGHTS])
def test_the_rank_loss_is_added_with_its_weight(weights) -> None:
    predictions, targets = torch.randn(8, 6), torch.randn(8, 6)
    plain = make_loss("mse", weights=weights)(predictions, targets)
    both = make_loss("mse", weights=weights, rank_weight=0.25)(predictions, targets)
    expected = 0.25 * slow_rank_loss(predictions.numpy(), targets.numpy())
    assert (both - plain).item() == pytest.approx(expected, abs=1e-6)
