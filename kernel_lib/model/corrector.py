"""Spelling correction as one classification a token: what it should be, or "copy"."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_lib.model.vocabulary_head import VocabularyHead, initialise, word_table

COPY_ID = 1
"""The label of a character that stays: [unused1] in BERT's Chinese vocabulary."""


class CorrectorOutput(NamedTuple):
    """What a corrector says about each token.

    Attributes:
        logits: ``(batch, seq_len, vocabulary)`` float32.
        detection: ``(batch, seq_len)`` float32, the logit of "this is wrong"; None where the model
            has no such head.
    """

    logits: Tensor
    detection: Tensor | None


class CopyCorrector(nn.Module):
    """Encoder, a gated path from its embeddings, and a head over vocabulary and "copy".

    The head sees ``z = h + g * e`` (element-wise), with h the last state, e the output of the
    encoder's embedding layer, and the gate ``g = sigmoid(W e)``, W without bias. So what stands in
    the input reaches the head directly, and can be kept from it. After iioSnail's NamBert
    (arXiv 2504.07661).

    e is the first of the encoder's hidden states. The original computes its embeddings a second
    time; that would draw another dropout than h saw, and FGM, which watches the embedding layer,
    counts one run of it a forward pass.

    Weight files and layer-wise rates go by the name ``backbone``; all else is the head's.

    Args:
        backbone: the encoder.
        embedding_path: whether there is ``g * e`` at all; else ``z = h``.
        gate: whether g is computed; else it is 1.
        orthogonal: whether W, and the head's matrices, begin as orthogonal ones.
        tied: whether the head's decoder is the encoder's word embeddings, with a row of its own
            for "copy".
        dropout: on z.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        embedding_path: bool,
        gate: bool,
        orthogonal: bool,
        tied: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        config: Any = backbone.config
        self.backbone = backbone
        self.embedding_path = embedding_path
        self.gate: nn.Linear | None = None
        if embedding_path and gate:
            self.gate = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
            deviation = getattr(config, "initializer_range", 0.02)
            initialise(self.gate, orthogonal=orthogonal, deviation=deviation)
        self.dropout = nn.Dropout(dropout)
        self.head = VocabularyHead(backbone, tied=tied, copy_id=COPY_ID, orthogonal=orthogonal)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> CorrectorOutput:
        """The logits of each token's label.

        Args:
            input_ids: ``(batch, seq_len)``.
            attention_mask: ``(batch, seq_len)``, 1 on tokens and 0 on padding.
        """
        states = self.dropout(self._states(input_ids, attention_mask))
        return CorrectorOutput(self.head(states, word_table(self.backbone)), None)

    def _states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """z, ``(batch, seq_len, hidden)``. The other layers' states are let go on return."""
        encoded = self.backbone(
            input_ids=input_ids,
            attention_mask=attention_mask,
            output_hidden_states=self.embedding_path,
        )
        states: Tensor = encoded.last_hidden_state
        if not self.embedding_path:
            return states
        embedded: Tensor = encoded.hidden_states[0]
        if self.gate is None:
            return states + embedded
        return states + torch.sigmoid(self.gate(embedded)) * embedded
