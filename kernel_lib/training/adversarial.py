"""FGM: a second pass on word embeddings pushed in the direction that hurts most.

Miyato et al. 2017 (arXiv 1605.07725): r = epsilon * g / |g|, with g the loss's gradient on the
embeddings of the words in the batch, and |g| its norm over all of them together. The gradients of
both passes add up, so both losses must be scaled alike where a loss scaler is used.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from kernel_lib.errors import TrainingError
from kernel_lib.text.batches import Batch

PROBE_MAX_ELEMENTS = 1 << 16


class FGM:
    """Perturbs the rows of the word-embedding table that a batch uses.

    Used after the clean backward pass of the same batch, which may have gone through the model in
    parts; one attack then goes against all of them together::

        for part in parts:
            loss(part).backward()
        with fgm.attack(parts) as attacked:
            if attacked:
                for part in parts:
                    loss(part).backward()

    The gradient is read at the embedding's output, so it is this batch's alone also when
    gradients accumulate, and it is there also when the table itself is frozen.

    Args:
        embedding: the model's word embeddings.
        epsilon: length of the step, over all used rows together.
    """

    def __init__(self, embedding: nn.Embedding, epsilon: float) -> None:
        self.embedding = embedding
        self.epsilon = epsilon
        self._gradients: list[Tensor] = []  # one a backward pass, in their order
        self._hook = embedding.register_forward_hook(self._watch_output)

    def close(self) -> None:
        """Takes the hook off the model again."""
        self._hook.remove()

    def forget(self) -> None:
        """Lets go of the gradients of backward passes that no attack will follow."""
        self._gradients.clear()

    @contextlib.contextmanager
    def attack(self, batches: Sequence[Batch]) -> Iterator[bool]:
        """Perturbs the used rows; on leaving, also by an exception, they are bit for bit as before.

        Args:
            batches: those whose backward passes were just done, in that order. Padded positions
                are left out.

        Yields:
            Whether anything was perturbed: not when the gradient is zero or not finite.

        Raises:
            TrainingError: there were no backward passes of such batches before.
        """
        rows, direction = self._rows_and_gradient(batches)
        norm = float(direction.norm())
        if norm == 0.0 or not math.isfinite(norm):
            yield False
            return
        table = self.embedding.weight.data
        before = table[rows].clone()
        try:
            table[rows] += (self.epsilon / norm) * direction
            yield True
        finally:
            table[rows] = before
            self.forget()

    def _rows_and_gradient(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """The used rows, and the gradient summed over each row's places: ``(rows, hidden)``."""
        gradients = self._gradients[-len(batches) :]
        if [g.shape[:2] for g in gradients] != [batch.input_ids.shape for batch in batches]:
            raise TrainingError("FGM.attack needs a backward pass of the same batches before it.")
        self.forget()
        used = [batch.attention_mask.bool() for batch in batches]
        words = torch.cat([b.input_ids[u] for b, u in zip(batches, used, strict=True)])
        gradient = torch.cat([g[u].float() for g, u in zip(gradients, used, strict=True)])
        rows, place = torch.unique(words, return_inverse=True)
        summed = gradient.new_zeros(len(rows), gradient.shape[1]).index_add_(0, place, gradient)
        return rows, summed

    def _watch_output(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        """Keeps the gradient that reaches an output.

        None reaches those that gradient checkpointing makes again: they do not count twice.
        """
        if torch.is_grad_enabled():
            if not output.requires_grad:
                output.requires_grad_()
            output.register_hook(self._gradients.append)


class GradientProbe:
    """Measures what share of the gradient the adversarial pass adds.

    Looks at the small parameters (biases, LayerNorms, head: at most 65,536 numbers each), which
    stand in every layer and cost nothing to copy.

    Args:
        model: whose ``.grad`` is looked at.
    """

    def __init__(self, model: nn.Module) -> None:
        self._parameters = [
            p for p in model.parameters() if p.requires_grad and p.numel() <= PROBE_MAX_ELEMENTS
        ]
        self._before: list[Tensor] = []

    def mark(self) -> None:
        """Keeps the gradients as they are now, after the clean pass."""
        self._before = [self._gradient(parameter).clone() for parameter in self._parameters]

    def added_ratio(self) -> float:
        """Norm of what came since :meth:`mark`, over the norm of what was there at it."""
        added = sum(
            float((self._gradient(parameter) - before).square().sum())
            for parameter, before in zip(self._parameters, self._before, strict=True)
        )
        clean = sum(float(before.square().sum()) for before in self._before)
        return math.sqrt(added / clean) if clean > 0 else math.nan

    @staticmethod
    def _gradient(parameter: Tensor) -> Tensor:
        gradient = parameter.grad
        return torch.zeros_like(parameter) if gradient is None else gradient.detach().float()
