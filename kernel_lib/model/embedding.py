"""One vector a text from a frozen encoder: poolings that have nothing to learn, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_lib.model.pooling import make_pooling

FIXED_POOLINGS = ("mean", "max", "min", "cls")


class Embedder(nn.Module):
    """An encoder with poolings over each of its top layers.

    Args:
        backbone: the encoder.
        poolings: names among ``FIXED_POOLINGS``.
        layers: how many top layers are pooled, each by itself, the last one first; all of an
            encoder that has fewer.
    """

    def __init__(
        self, backbone: PreTrainedModel, *, poolings: Sequence[str], layers: int = 1
    ) -> None:
        super().__init__()
        available = backbone.config.num_hidden_layers
        hidden = backbone.config.hidden_size
        self.backbone, self.layers = backbone, min(layers, available)
        self.poolings = nn.ModuleList(
            make_pooling(name, hidden=hidden, layers=1, available_layers=available)
            for name in poolings
        )
        self.output_size = len(poolings) * self.layers * hidden
        self.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """``(batch, output_size)`` float32, for ids and mask ``(batch, seq_len)``: the poolings of
        the last layer, then those of the one below it, and so on."""
        encoded = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=self.layers > 1
        )
        states = encoded.hidden_states if self.layers > 1 else (encoded.last_hidden_state,)
        pooled = [
            pooling((states[-1 - depth],), attention_mask).float()
            for depth in range(self.layers)
            for pooling in self.poolings
        ]
        return torch.cat(pooled, dim=-1)
