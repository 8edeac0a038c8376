"""The whole model: backbone, pooling, and the head on top."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_lib.model.pooling import Pooling


class PooledModel(nn.Module):
    """Encoder, pooling, dropout and one linear layer.

    Weight files and layer-wise rates go by the names ``backbone``, ``pooling`` and ``head``.

    With several dropout samples a training pass applies dropout and linear layer to the same pooled
    vectors that many times, each with a mask of its own, for their losses to be averaged (multi-
    sample dropout: Inoue 2019, arXiv 1905.09788).

    Args:
        backbone: the encoder.
        pooling: from ``make_pooling``.
        num_outputs: values to predict for a text.
        dropout: before the linear layer.
        dropout_samples: masks at once in training.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        pooling: Pooling,
        *,
        num_outputs: int,
        dropout: float,
        dropout_samples: int = 1,
    ) -> None:
        super().__init__()
        self.dropout_samples = dropout_samples
        self.backbone = backbone
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(pooling.output_size, num_outputs)
        nn.init.normal_(self.head.weight, std=getattr(backbone.config, "initializer_range", 0.02))
        nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The outputs, float32 whatever the autocast says.

        Args:
            input_ids: ``(batch, seq_len)``.
            attention_mask: ``(batch, seq_len)``, 1 on tokens and 0 on padding.

        Returns:
            ``(batch, num_outputs)``; in training with more than one dropout sample
            ``(samples, batch, num_outputs)``.
        """
        encoded = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=self.pooling.needs_all_layers,
        )
        states = (
            encoded.hidden_states if self.pooling.needs_all_layers else (encoded.last_hidden_state,)
        )
        pooled = self.pooling(states, attention_mask)
        with torch.autocast(pooled.device.type, enabled=False):
            pooled = pooled.float()
            if self.training and self.dropout_samples > 1:
                pooled = pooled.repeat(self.dropout_samples, 1, 1)
            return self.head(self.dropout(pooled))
