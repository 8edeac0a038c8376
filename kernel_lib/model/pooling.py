"""From token vectors to one vector a text.

Every pooling takes the encoder's hidden states, a tuple of ``(batch, seq_len, hidden)`` tensors
from the embeddings (index 0) to the last layer, and the attention mask ``(batch, seq_len)``, and
returns ``(batch, output_size)``. Padded positions never count. Poolings that look only at the last
layer say so (``needs_all_layers = False``) and may be given a tuple of just that one.

Definitions: rhtsingh, "Utilizing Transformer Representations Efficiently" (Kaggle, 2021), its known
bugs mended; GeM: Radenovic et al. 2018, arXiv 1711.02512.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kernel_lib.config import nearest
from kernel_lib.errors import SettingsError

HiddenStates = tuple[Tensor, ...]


class Pooling(nn.Module, ABC):
    """Base of the poolings.

    Args:
        hidden: width of the encoder's vectors.
        layers: how many top layers to use, for the poolings over layers.
    """

    needs_all_layers = False

    def __init__(self, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.hidden = hidden
        self.layers = layers
        self.output_size = hidden

    @abstractmethod
    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        """``(batch, output_size)`` from the hidden states and the mask ``(batch, seq_len)``."""


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens: ``(batch, seq_len, hidden)`` and mask to ``(batch, hidden)``."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    kept = states.masked_fill(mask.unsqueeze(-1) == 0, 0)
    return kept.sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


class ClsPooling(Pooling):
    """The first token's vector."""

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        return hidden_states[-1][:, 0]


class MeanPooling(Pooling):
    """The mean of the tokens' vectors."""

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        return masked_mean(hidden_states[-1], mask)


class MaxPooling(Pooling):
    """The largest value of each feature over the tokens."""

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        states = hidden_states[-1]
        lowest = torch.finfo(states.dtype).min
        return states.masked_fill(mask.unsqueeze(-1) == 0, lowest).amax(dim=1)


class MinPooling(Pooling):
    """The smallest value of each feature over the tokens."""

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        states = hidden_states[-1]
        highest = torch.finfo(states.dtype).max
        return states.masked_fill(mask.unsqueeze(-1) == 0, highest).amin(dim=1)


class MeanMaxPooling(Pooling):
    """Mean and max side by side."""

    def __init__(self, hidden: int, layers: int = 1) -> None:
        super().__init__(hidden, layers)
        self.output_size = 2 * hidden
        self.max = MaxPooling(hidden)

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        mean = masked_mean(hidden_states[-1], mask)
        return torch.cat([mean, self.max(hidden_states, mask)], dim=-1)


class GemPooling(Pooling):
    """Generalised mean ``(mean of x^p)^(1/p)`` with a learned p, from 3; negatives count as 0."""

    def __init__(self, hidden: int, layers: int = 1) -> None:
        super().__init__(hidden, layers)
        self.power = nn.Parameter(torch.tensor(3.0))

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        # In float32: powers of half-precision values overflow and underflow soon.
        with torch.autocast(mask.device.type, enabled=False):
            # Padding out first: the power of a large value there is inf, its gradient nan.
            states = hidden_states[-1].float().masked_fill(mask.unsqueeze(-1) == 0, 1.0)
            positive = states.clamp(min=1e-6)
            return masked_mean(positive**self.power, mask) ** (1.0 / self.power)


class AttentionPooling(Pooling):
    """Mean weighted by a learned score: softmax over the tokens of ``v . gelu(norm(W h))``."""

    def __init__(self, hidden: int, layers: int = 1) -> None:
        super().__init__(hidden, layers)
        self.score = nn.Sequential(
            nn.Linear(hidden, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, 1)
        )

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        states = hidden_states[-1]
        scores = self.score(states).float()
        scores = scores.masked_fill(mask.unsqueeze(-1) == 0, torch.finfo(scores.dtype).min)
        weights = torch.softmax(scores, dim=1)
        return (weights * states).sum(dim=1)


class WeightedLayerPooling(Pooling):
    """Mean over the tokens of a learned, softmax-weighted sum of the top layers."""

    needs_all_layers = True

    def __init__(self, hidden: int, layers: int = 4) -> None:
        super().__init__(hidden, layers)
        self.layer_logits = nn.Parameter(torch.zeros(layers))

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        top = torch.stack(hidden_states[-self.layers :])
        weights = torch.softmax(self.layer_logits, dim=0).to(top.dtype)
        return masked_mean(torch.einsum("l,lbsh->bsh", weights, top), mask)


class ConcatLastPooling(Pooling):
    """Mean over the tokens of the top layers' vectors side by side, last layer first."""

    needs_all_layers = True

    def __init__(self, hidden: int, layers: int = 4) -> None:
        super().__init__(hidden, layers)
        self.output_size = layers * hidden

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        top = hidden_states[-self.layers :]
        return torch.cat([masked_mean(states, mask) for states in reversed(top)], dim=-1)


class MultiLayerClsPooling(Pooling):
    """An LSTM over the top layers' first-token vectors, from low to high; its last output."""

    needs_all_layers = True

    def __init__(self, hidden: int, layers: int = 4) -> None:
        super().__init__(hidden, layers)
        self.lstm = nn.LSTM(hidden, hidden, batch_first=True)

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        first_tokens = torch.stack(
            [states[:, 0] for states in hidden_states[-self.layers :]], dim=1
        )
        return self.lstm(first_tokens)[0][:, -1]


class LstmPooling(Pooling):
    """A bidirectional LSTM over the tokens, then mean and max of its outputs."""

    def __init__(self, hidden: int, layers: int = 1) -> None:
        super().__init__(hidden, layers)
        self.lstm = nn.LSTM(hidden, hidden // 2, batch_first=True, bidirectional=True)
        self.mean_max = MeanMaxPooling(2 * (hidden // 2))
        self.output_size = self.mean_max.output_size

    def forward(self, hidden_states: HiddenStates, mask: Tensor) -> Tensor:
        states = hidden_states[-1]
        # Packed, so that the backward direction starts at the last token, not in the padding.
        packed = nn.utils.rnn.pack_padded_sequence(
            states, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, _ = nn.utils.rnn.pad_packed_sequence(
            self.lstm(packed)[0], batch_first=True, total_length=states.shape[1]
        )
        return self.mean_max((outputs,), mask)


POOLINGS: dict[str, Callable[[int, int], Pooling]] = {
    "cls": ClsPooling,
    "mean": MeanPooling,
    "max": MaxPooling,
    "min": MinPooling,
    "mean_max": MeanMaxPooling,
    "gem": GemPooling,
    "attention": AttentionPooling,
    "weighted_layer": WeightedLayerPooling,
    "concat_last_n": ConcatLastPooling,
    "multi_layer_cls": MultiLayerClsPooling,
    "lstm": LstmPooling,
}


def make_pooling(name: str, *, hidden: int, layers: int, available_layers: int) -> Pooling:
    """The pooling of that name.

    Args:
        name: a key of ``POOLINGS``.
        hidden: width of the encoder's vectors.
        layers: top layers to use, for the poolings over layers.
        available_layers: layers of the encoder, the embeddings not counted.

    Raises:
        SettingsError: no such pooling, or more layers wanted than there are.
    """
    if name not in POOLINGS:
        raise SettingsError(f"pooling={name!r} is not known: {nearest(name, list(POOLINGS))}")
    pooling = POOLINGS[name](hidden, layers)
    if pooling.needs_all_layers and layers > available_layers:
        raise SettingsError(f"pooling_layers={layers}, but the encoder has {available_layers}.")
    return pooling
