"""Focal losses: their numbers, their gradients, and that cutting a batch changes nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from kernel_lib.runtime.device import Precision
from kernel_lib.training.token_losses import (
    IGNORE,
    _LogProbability,
    binary_focal_loss,
    token_focal_loss,
)

GAMMAS = [0, 0.5, 1, 2]


def logits_of(*probabilities: tuple[float, ...]) -> torch.Tensor:
    """One row of a batch whose softmax gives these."""
    return torch.tensor([probabilities]).log() + 3.0


def batch(rows: int = 4, seq_len: int = 6, classes: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels of which each row has another number; one row has none."""
    labels = torch.randint(classes, (rows, seq_len))
    for row in range(1, rows):
        labels[row, seq_len - row :] = IGNORE
    labels[rows - 1] = IGNORE
    return torch.randn(rows, seq_len, classes) * 3, labels


def test_the_example_of_the_docstring() -> None:
    logits = logits_of((0.5, 0.3, 0.2), (0.05, 0.9, 0.05), (0.1, 0.1, 0.8))
    labels = torch.tensor([[0, 1, IGNORE]])
    by_hand = (0.25 * -math.log(0.5) + 0.01 * -math.log(0.9)) / 2
    assert by_hand == pytest.approx(0.0872, abs=1e-4)
    assert token_focal_loss(logits, labels, gamma=2.0).item() == pytest.approx(by_hand, rel=1e-5)


def test_rows_weigh_the_same_however_many_tokens_they_have() -> None:
    logits = logits_of((0.5, 0.5), (0.75, 0.25)).repeat(3, 1, 1)
    labels = torch.tensor([[0, 1], [0, IGNORE], [IGNORE, IGNORE]])
    a, b = -math.log(0.5), -math.log(0.25)
    by_hand = ((a + b) / 2 + a + 0) / 3
    assert token_focal_loss(logits, labels, gamma=0).item() == pytest.approx(by_hand, rel=1e-5)


def test_the_binary_loss_by_hand() -> None:
    logits = torch.tensor([[math.log(3), -math.log(4), 9.0]])  # p of yes: .75, .2
    labels = torch.tensor([[1, 0, IGNORE]])
    by_hand = (0.25**2 * -math.log(0.75) + 0.2**2 * -math.log(0.8)) / 2
    assert binary_focal_loss(logits, labels, gamma=2.0).item() == pytest.approx(by_hand, rel=1e-5)


def test_gamma_0_is_cross_entropy() -> None:
    logits, labels = batch()
    labels[:] = labels.clamp(min=0)  # with all labelled, the mean over rows is that over tokens
    expected = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.allclose(token_focal_loss(logits, labels, gamma=0), expected)
    answers = labels % 2
    expected = functional.binary_cross_entropy_with_logits(logits[..., 0], answers.float())
    assert torch.allclose(binary_focal_loss(logits[..., 0], answers, gamma=0), expected)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_binary_loss_is_that_of_two_classes(gamma: float) -> None:
    logits, labels = batch(classes=2)
    of_yes = logits[..., 1] - logits[..., 0]
    expected = token_focal_loss(logits, labels, gamma=gamma)
    assert torch.allclose(binary_focal_loss(of_yes, labels, gamma=gamma), expected)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradients_are_those_of_the_textbooks_formula(gamma: float) -> None:
    logits, labels = batch()
    mine, plain = (logits.double().requires_grad_() for _ in range(2))
    token_focal_loss(mine, labels, gamma=gamma).backward()
    p = torch.softmax(plain, -1).gather(-1, labels.clamp(min=0)[..., None])[..., 0]
    counted = labels != IGNORE
    sums = (-((1 - p) ** gamma) * p.log() * counted).sum(1)
    (sums / counted.sum(1).clamp(min=1)).mean().backward()
    assert torch.allclose(mine.grad, plain.grad, atol=1e-6)
    assert not mine.grad[~counted].any()


def test_the_log_probability_is_differentiated_rightly() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(5, (2, 3))
    assert torch.autograd.gradcheck(lambda x: _LogProbability.apply(x, labels), (logits,))


LOSSES = {
    "token": (token_focal_loss, lambda logits, labels: (logits, labels)),
    "binary": (
        binary_focal_loss,
        lambda logits, labels: (logits[..., 0], torch.where(labels == IGNORE, IGNORE, labels % 2)),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_cutting_a_batch_in_parts_gives_the_same_gradient(name: str) -> None:
    loss, take = LOSSES[name]
    given, labels = take(*batch())
    whole, cut = (given.clone().requires_grad_() for _ in range(2))
    loss(whole, labels, gamma=2.0).backward()
    for part, share in ((slice(0, 1), 1 / 4), (slice(1, 4), 3 / 4)):
        narrow = 6 if part.start == 0 else 5  # no longer row beside it, so less padding
        (loss(cut[part, :narrow], labels[part, :narrow], gamma=2.0) * share).backward()
    assert torch.allclose(whole.grad, cut.grad, atol=1e-7)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("size", [50.0, 1e4, 1e30])
def test_huge_logits_give_finite_losses_and_gradients(gamma: float, size: float) -> None:
    logits = torch.tensor([[[size, -size, 0.0], [size, -size, 0.0]]]).requires_grad_()
    for labels in ([[0, 0]], [[1, 1]], [[2, IGNORE]]):
        loss = token_focal_loss(logits, torch.tensor(labels), gamma=gamma)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()
        assert (loss > size / 2) == (labels != [[0, 0]])
    scores = torch.tensor([[size, -size]]).requires_grad_()
    for labels in ([[1, 0]], [[0, 1]]):
        loss = binary_focal_loss(scores, torch.tensor(labels), gamma=gamma)
        (gradient,) = torch.autograd.grad(loss, scores)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_a_batch_without_labels_has_loss_and_gradient_0() -> None:
    logits = torch.randn(2, 3, 5, requires_grad=True)
    loss = token_focal_loss(logits, torch.full((2, 3), IGNORE), gamma=2.0)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_near_certainty_the_loss_is_exact_and_not_0_also_from_bfloat16_logits() -> None:
    """With p = .9999 in bf16, 1 - p is 0; here it is 1e-4 times 1e-4 squared."""
    apart = torch.tensor(9.25)  # exact in bfloat16
    logits = torch.stack([apart, torch.tensor(0.0)])[None, None]
    p = 1 / (1 + math.exp(-9.25))
    expected = -((1 - p) ** 2) * math.log(p)
    assert p == pytest.approx(0.9999, abs=1e-5)
    labels = torch.tensor([[0]])
    for given in (logits, logits.bfloat16()):
        with Precision("bf16", "cpu").autocast():
            loss = token_focal_loss(given, labels, gamma=2.0)
            binary = binary_focal_loss(given[..., 0], torch.tensor([[1]]), gamma=2.0)
        assert loss.dtype == binary.dtype == torch.float32
        assert loss.item() == pytest.approx(expected, rel=1e-3)
        assert binary.item() == pytest.approx(expected, rel=1e-3)


def test_a_high_level_of_all_logits_costs_no_digits() -> None:
    logits = torch.tensor([[[1009.25, 1000.0]]])
    expected = math.log1p(math.exp(-9.25))
    loss = token_focal_loss(logits, torch.tensor([[0]]), gamma=0)
    assert loss.item() == pytest.approx(expected, rel=2e-3)


def test_no_more_than_one_tensor_as_large_as_the_logits_is_kept_for_the_backward_pass() -> None:
    logits, labels = batch(classes=500)
    logits.requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_focal_loss(logits, labels, gamma=2.0)
    large = {tensor.data_ptr() for tensor in kept if tensor.numel() >= logits.numel()}
    assert large == {logits.data_ptr()}
