"""From a state for each token to a logit for each entry of the vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel


class VocabularyHead(nn.Module):
    """``logits = D LayerNorm(GELU(A z)) + b``, the head of BERT's masked language model.

    Tied, D is the encoder's table of word embeddings, handed over at each forward pass and owned by
    the encoder alone: weight files hold it once. A character that never was a training target then
    still has a row that pretraining and its use as an input have shaped; a row of one's own, never
    a target, is only ever pushed down. One entry of the vocabulary may be kept out of the tie and
    have a row of its own: the label "copy", which is no character.

    Under autocast A z and the product with D are computed in its type, and the biases are added in
    float32, in place: beside the float32 logits only the half-precision ones exist, and these for a
    moment. Without autocast all is float32.

    Args:
        backbone: for the sizes and the spread of the initial weights; it is not kept.
        tied: whether D is the table of word embeddings; else it is the head's own, from random
            numbers.
        copy_id: the entry that is kept out of the tie; None: there is none.
        orthogonal: whether A, and a D of one's own, begin as orthogonal matrices.
    """

    _copy_id: Tensor

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        tied: bool,
        copy_id: int | None = None,
        orthogonal: bool = False,
    ) -> None:
        super().__init__()
        config: Any = backbone.config
        vocabulary, width = word_table(backbone).shape
        # ELECTRA and ALBERT have embeddings narrower than their states; A then leads down to them.
        width = width if tied else config.hidden_size
        deviation = getattr(config, "initializer_range", 0.02)
        self.dense = nn.Linear(config.hidden_size, width)
        self.norm = nn.LayerNorm(width, eps=getattr(config, "layer_norm_eps", 1e-12))
        self.decoder = None if tied else nn.Linear(width, vocabulary, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        for linear in (self.dense, self.decoder):
            if linear is not None:
                initialise(linear, orthogonal=orthogonal, deviation=deviation)
        self.copy_row: nn.Parameter | None = None
        if tied and copy_id is not None:
            self.copy_row = nn.Parameter(torch.empty(width).normal_(std=deviation))
            self.register_buffer("_copy_id", torch.tensor([copy_id]), persistent=False)

    def forward(self, states: Tensor, table: Tensor) -> Tensor:
        """The logits, float32 whatever the autocast says.

        Args:
            states: ``(batch, seq_len, hidden)``.
            table: the encoder's word embeddings, ``(vocabulary, width)``; not looked at when the
                head has a decoder of its own.

        Returns:
            ``(batch, seq_len, vocabulary)``.
        """
        transformed = self.norm(functional.gelu(self.dense(states)))
        logits = functional.linear(transformed, self._rows(table)).float()
        return logits.add_(self.bias)

    def start_from(self, pretrained: dict[str, Tensor]) -> bool:
        """Takes over a pretrained masked-language-model head.

        The bias of ``copy_id`` stays: pretraining knew that entry as something else. A decoder of
        one's own is not served by a transform that was trained for the table, so such a head takes
        nothing.

        Args:
            pretrained: from :func:`kernel_lib.model.pretrained_head.load_pretrained_head`.

        Returns:
            Whether it fits and was taken.
        """
        mine = self.state_dict()
        if self.decoder is not None or len(pretrained["bias"]) > len(self.bias):
            return False
        transform = [name for name in pretrained if name != "bias"]
        if any(pretrained[name].shape != mine[name].shape for name in transform):
            return False
        with torch.no_grad():
            for name in transform:
                mine[name].copy_(pretrained[name])  # a state_dict holds the tensors themselves
            kept = None if self.copy_row is None else self.bias[self._copy_id].clone()
            self.bias[: len(pretrained["bias"])] = pretrained["bias"]  # behind it: added tokens
            if kept is not None:
                self.bias[self._copy_id] = kept
        return True

    def _rows(self, table: Tensor) -> Tensor:
        """D, ``(vocabulary, width)``."""
        if self.decoder is not None:
            return self.decoder.weight
        if self.copy_row is None:
            return table
        # A copy of the table, where setting a column of the logits would make autograd copy their
        # gradient: that one grows with the batch.
        return table.index_copy(0, self._copy_id, self.copy_row[None])


def word_table(backbone: Any) -> Tensor:
    """The encoder's word embeddings, ``(vocabulary, width)``."""
    table: Tensor = backbone.get_input_embeddings().weight
    return table


def initialise(linear: nn.Linear, *, orthogonal: bool, deviation: float) -> None:
    """Draws a linear layer's weights, in float32: the QR behind the orthogonal ones needs it.

    Args:
        linear: changed in place; a bias becomes 0.
        orthogonal: rows or columns, whichever are fewer, orthonormal; else a normal distribution.
        deviation: of that distribution.
    """
    if orthogonal:
        nn.init.orthogonal_(linear.weight)
    else:
        nn.init.normal_(linear.weight, std=deviation)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)
