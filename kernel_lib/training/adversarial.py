"""FGM: a second pass on word embeddings pushed in the direction that hurts most.

The form that Kaggle uses: r = epsilon * g / |g|, with g the loss's gradient on the table's rows of
the words in the batch, and |g| its norm over all of these rows together. A word that stands in
several places has one row: its gradients add up, and it moves alike in all of them. After Miyato et
al. 2017 (arXiv 1605.07725), who do otherwise: each text has a step of its own length epsilon, by
the gradient at its own positions, and the embeddings are first normalised to mean 0 and variance 1
over the vocabulary, so that they cannot outgrow the step. Here a text's part of the step shrinks
with the batch, and epsilon is in the units of the table.

The step is added to what the embedding layer gives, not to the table: a head that is tied to the
table, which scores with the same numbers, is not attacked. The gradients of both passes add up, so
both losses must be scaled alike where a loss scaler is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kernel_lib.errors import TrainingError
from kernel_lib.text.batches import Batch

PROBE_MAX_ELEMENTS = 1 << 16


@dataclass(frozen=True)
class Words:
    """The rows of the word-embedding table that a batch uses, and where it uses them.

    Attributes:
        rows: ``(rows,)``, each once, in order.
        shapes: ``(batch, seq_len)`` of each part of the batch that goes through the model here.
        positions: a part's tokens, without padding, in its flattened ``(batch * seq_len)``.
        places: for each of these the index in ``rows``.
    """

    rows: Tensor
    shapes: list[tuple[int, ...]]
    positions: list[Tensor]
    places: list[Tensor]


def find_words(
    whole: Sequence[NDArray[np.int32]],
    parts: Sequence[tuple[Sequence[NDArray[np.int32]], Batch]],
    device: torch.device,
) -> Words:
    """The words of a batch, from the token ids as the host has them: no device is waited for.

    Args:
        whole: the token ids of each text of the batch, in all processes together.
        parts: the texts of each part that goes through the model in this process, and the part.
        device: where the parts are.
    """
    rows = np.unique(np.concatenate(whole))
    positions, places = [], []
    for texts, part in parts:
        width = part.input_ids.shape[1]
        in_rows = [row * width + np.arange(len(ids)) for row, ids in enumerate(texts)]
        positions.append(np.concatenate(in_rows))
        places.append(np.searchsorted(rows, np.concatenate(texts)))
    return Words(
        _send(rows.astype(np.int64), device),
        [tuple(part.input_ids.shape) for _, part in parts],
        [_send(numbers, device) for numbers in positions],
        [_send(numbers, device) for numbers in places],
    )


def _send(numbers: NDArray[np.int64], device: torch.device) -> Tensor:
    """To a device; a GPU fetches them while the program goes on."""
    tensor = torch.from_numpy(numbers)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class FGM:
    """Perturbs the embeddings of the words that a batch uses, wherever they stand.

    Used after the clean backward pass of the same batch, which may have gone through the model in
    parts; one attack then goes against all of them together::

        for part in parts:
            loss(part).backward()
        with fgm.attack(words, fgm.gradient(words)) as weight:
            for part in parts:
                (loss(part) * weight).backward()

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
        self._step: tuple[Tensor, Tensor] | None = None  # rows of the table, and by how much
        self._hook = embedding.register_forward_hook(self._on_output)

    def close(self) -> None:
        """Takes the hook off the model again."""
        self._hook.remove()

    def forget(self) -> None:
        """Lets go of the gradients of backward passes that no attack will follow."""
        self._gradients.clear()

    def gradient(self, words: Words) -> Tensor:
        """The gradient summed over each used row's places, ``(rows, hidden)`` float32.

        Where a batch is shared by several processes, the sum over them is the batch's.

        Args:
            words: of the parts whose backward passes were just done, in that order.

        Raises:
            TrainingError: there were no backward passes of such parts before.
        """
        count = len(words.shapes)
        gradients = self._gradients[-count:] if count else []
        if [tuple(g.shape[:2]) for g in gradients] != words.shapes:
            raise TrainingError("FGM needs a backward pass of the same parts before it.")
        self.forget()
        hidden = self.embedding.embedding_dim
        summed = torch.zeros(len(words.rows), hidden, device=words.rows.device)
        if count:
            found = [
                gradient.reshape(-1, hidden)[positions].float()
                for gradient, positions in zip(gradients, words.positions, strict=True)
            ]
            summed.index_add_(0, torch.cat(words.places), torch.cat(found))
        return summed

    @contextlib.contextmanager
    def attack(self, words: Words, gradient: Tensor) -> Iterator[Tensor]:
        """Inside, the used rows are read as if perturbed; the table is never written.

        Args:
            words: whose rows are perturbed.
            gradient: of the whole batch, as from :meth:`gradient`.

        Yields:
            The weight of the losses inside, a scalar: 1, or 0 where nothing is perturbed because
            the gradient is zero or not finite. A tensor, since only the device knows.
        """
        norm = gradient.norm()
        attacked = torch.isfinite(norm) & (norm > 0)
        factor = torch.full_like(norm, self.epsilon, dtype=torch.float64) / norm
        step = (factor.float() * gradient).masked_fill(~attacked, 0.0)
        try:
            self._step = words.rows, step
            yield attacked.float()
        finally:
            self._step = None
            self.forget()

    def _on_output(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """Adds the step where there is one, and keeps the gradient that reaches an output.

        None reaches those that gradient checkpointing makes again: they do not count twice.
        """
        if self._step is not None:
            output = output + self._step_at(inputs[0])
        if torch.is_grad_enabled():
            if not output.requires_grad:
                output.requires_grad_()
            output.register_hook(self._gradients.append)
        return output

    def _step_at(self, ids: Tensor) -> Tensor:
        """By how much each token is moved, ``(*ids.shape, hidden)``; 0 for those not attacked."""
        assert self._step is not None
        rows, step = self._step
        places = torch.searchsorted(rows, ids).clamp_(max=len(rows) - 1)
        there = rows[places] == ids
        return step[places].masked_fill_(~there.unsqueeze(-1), 0.0)


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
        self._clean: list[Tensor] = []
        self._added: list[Tensor] = []

    def mark(self) -> None:
        """Keeps the gradients as they are now, after the clean pass."""
        self._clean = [self._gradient(parameter).clone() for parameter in self._parameters]

    def measure(self) -> list[Tensor]:
        """Keeps what came since :meth:`mark`.

        Returns:
            What is kept, to be summed over processes where they share a batch.
        """
        self._added = [
            self._gradient(parameter) - clean
            for parameter, clean in zip(self._parameters, self._clean, strict=True)
        ]
        return [*self._clean, *self._added]

    def added_ratio(self) -> Tensor:
        """Norm of what the second pass added, over the norm of the first: a scalar, float64."""
        added, clean = (
            torch.stack([part.square().sum().double() for part in parts]).sum()
            for parts in (self._added, self._clean)
        )
        return (added / clean).sqrt().masked_fill(clean == 0, torch.nan)

    @staticmethod
    def _gradient(parameter: Tensor) -> Tensor:
        gradient = parameter.grad
        return torch.zeros_like(parameter) if gradient is None else gradient.detach().float()
