"""Focal losses of tasks with a label for each token (Lin et al. 2017, arXiv 1708.02002).

``-(1 - p)^gamma log p``, p the probability of the right label: a token that is predicted well
hardly counts, and in a text to be corrected nearly all are. Computed in float32: in bfloat16 p
rounds to 1, and the loss to 0, from .998 on.

A batch's loss is the mean over its rows of the mean over a row's labelled tokens. The reference
divides by all positions, padding included, so that there the same text weighs less beside a longer
one, and a batch gives another gradient when it is cut in parts. Not so here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from kernel_lib.text.batches import IGNORE


def token_focal_loss(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """The focal loss of a choice among classes.

    Args:
        logits: ``(batch, seq_len, classes)``.
        labels: ``(batch, seq_len)`` int64, a class or ``IGNORE``.
        gamma: 0 is cross-entropy.

    Returns:
        A scalar, float32. Rows without any label count as rows, with a loss of 0.

    Example: one row, two labelled tokens with p = .5 and .9, gamma 2: (.25 * .693 + .01 * .105) / 2
    = .0872.
    """
    log_p: Tensor = _LogProbability.apply(logits.float(), labels.clamp(min=0))
    return _mean_over_rows(_focal(log_p, -torch.expm1(log_p), gamma), labels)


def binary_focal_loss(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """The focal loss of yes or no.

    Args:
        logits: ``(batch, seq_len)``, of yes.
        labels: ``(batch, seq_len)``: 1, 0 or ``IGNORE``.
        gamma: 0 is cross-entropy.

    Returns:
        A scalar, as of :func:`token_focal_loss`.
    """
    logits = logits.float()
    of_right = torch.where(labels == 1, logits, -logits)
    log_p = functional.logsigmoid(of_right)
    return _mean_over_rows(_focal(log_p, torch.sigmoid(-of_right), gamma), labels)


def _focal(log_p: Tensor, others: Tensor, gamma: float) -> Tensor:
    """The loss of each token, from log p and from 1 - p (``others``)."""
    if gamma == 0:
        return -log_p
    # Where p is 1 the root of a gamma below 1 has an infinite slope, and infinity times 0 is NaN.
    return others.clamp(min=torch.finfo(others.dtype).tiny).pow(gamma) * -log_p


def _mean_over_rows(losses: Tensor, labels: Tensor) -> Tensor:
    """The mean over rows of the mean over a row's labelled tokens."""
    counted = labels != IGNORE
    sums = losses.masked_fill(~counted, 0.0).sum(1)
    return (sums / counted.sum(1).clamp(min=1)).mean()


class _LogProbability(torch.autograd.Function):
    """``log_softmax(logits)`` at each token's label, without keeping the whole of it.

    Of the size of the logits there is one tensor in the forward pass, freed on return, and one in
    the backward pass, their gradient. ``cross_entropy`` keeps one more between the two, and its
    backward pass makes two.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Log probabilities.

        Args:
            ctx: autograd's.
            logits: ``(..., classes)``.
            labels: ``(...)``, of classes.

        Returns:
            ``(...)``.
        """
        # The highest first, then the sum: exact where p is near 1, as a difference of two large
        # numbers is not.
        highest = logits.amax(-1, keepdim=True)
        log_sum = (logits - highest).exp_().sum(-1, keepdim=True).log_()
        ctx.save_for_backward(logits, labels, highest, log_sum)
        chosen = logits.gather(-1, labels.unsqueeze(-1))
        return ((chosen - highest) - log_sum).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """``gradient * (one at the label - softmax)``."""
        logits, labels, highest, log_sum = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(-1)
        to_logits = (logits - highest).sub_(log_sum).exp_().mul_(-gradient)
        to_logits.scatter_add_(-1, labels.unsqueeze(-1), gradient)
        return to_logits, None
