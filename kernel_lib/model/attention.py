"""DeBERTa-v2 and v3 with a faster attention: the same function, the same weights, the same names.

An encoder of transformers is changed in place, by giving its modules other classes; weights,
configuration and files stay as they are, and :func:`use_stock_attention` changes it back.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.deberta_v2.modeling_deberta_v2 import (
    DebertaV2Encoder,
    DebertaV2Model,
    DisentangledSelfAttention,
    make_log_bucket_position,
)

from kernel_lib.errors import SettingsError
from kernel_lib.model import attention_triton
from kernel_lib.model.disentangled import DisentangledAttention, distances


class FastSelfAttention(DisentangledSelfAttention):
    """As :class:`DisentangledSelfAttention`, by :class:`DisentangledAttention`.

    What training and inference never ask for is left to the stock code: attention weights as an
    output, queries of another sequence, positions of one's own, a mask for each query.
    """

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        rel_embeddings: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """The context of each token, ``(batch, seq_len, hidden)``, and None.

        Args:
            hidden_states: ``(batch, seq_len, hidden)``.
            attention_mask: ``(batch, 1, 1, seq_len)``, not 0 on tokens.
            output_attentions, query_states, relative_pos: as in the stock module.
            rel_embeddings: ``(2 * span, hidden)``.
        """
        asked = output_attentions or query_states is not None or relative_pos is not None
        if asked or rel_embeddings is None or attention_mask.shape[-2] != 1:
            return super().forward(  # type: ignore[no-any-return]
                hidden_states,
                attention_mask,
                output_attentions,
                query_states,
                relative_pos,
                rel_embeddings,
            )
        if torch.is_autocast_enabled(hidden_states.device.type):  # once, not once a projection
            hidden_states = hidden_states.to(torch.get_autocast_dtype(hidden_states.device.type))
        batch, seq_len, _ = hidden_states.shape
        terms = 1 + ("c2p" in self.pos_att_type) + ("p2c" in self.pos_att_type)
        projections = (self.query_proj, self.key_proj, self.value_proj)
        query, key, value = (self._split(project(hidden_states)) for project in projections)
        context = self._attend(
            query,
            key,
            value,
            *self._positions(rel_embeddings),
            self._rows(seq_len, hidden_states.device),
            attention_mask.view(batch, seq_len).bool(),
            1 / math.sqrt(self.attention_head_size * terms),
        )
        return context.transpose(1, 2).flatten(2), None

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        rows: Tensor,
        mask: Tensor,
        scale: float,
    ) -> Tensor:
        """The context, ``(batch, heads, seq_len, head_size)``.

        Args:
            query, key, value: ``(batch, heads, seq_len, head_size)``.
            position_keys, position_queries: ``(heads, 2 * span, head_size)``; None: no such term.
            rows: which of these belongs to each distance of a query from a key.
            mask: ``(batch, seq_len)`` bool, True on tokens.
            scale: of the scores.
        """
        context: Tensor = DisentangledAttention.apply(  # type: ignore[no-untyped-call]
            query,
            key,
            value,
            None if position_keys is None else position_keys.index_select(1, rows.flip(0)),
            None if position_queries is None else position_queries.index_select(1, rows),
            mask,
            scale,
            self._dropout,
        )
        return context

    @property
    def _dropout(self) -> float:
        return self.dropout.p if self.training else 0.0

    def _positions(self, rel_embeddings: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The projected table of positions, ``(heads, 2 * span, head_size)``: of keys, queries."""
        embeddings = self.pos_dropout(rel_embeddings[: 2 * self.pos_ebd_size])
        keys = queries = None
        if "c2p" in self.pos_att_type:
            project = self.key_proj if self.share_att_key else self.pos_key_proj
            keys = self._split(project(embeddings))
        if "p2c" in self.pos_att_type:
            project = self.query_proj if self.share_att_key else self.pos_query_proj
            queries = self._split(project(embeddings))
        return keys, queries

    def _rows(self, seq_len: int, device: torch.device) -> Tensor:
        """The table's row for each distance of a query from a key, ``1 - seq_len`` first."""
        bucket = distances(seq_len, device)
        if self.position_buckets > 0:
            bucket = make_log_bucket_position(
                bucket, self.position_buckets, self.max_relative_positions
            ).long()
        span = self.pos_ebd_size
        return (bucket + span).clamp_(0, 2 * span - 1)

    def _split(self, states: Tensor) -> Tensor:
        """``(..., seq_len, hidden)`` as ``(..., heads, seq_len, head_size)``."""
        return states.unflatten(-1, (self.num_attention_heads, -1)).transpose(-3, -2)


class TritonSelfAttention(FastSelfAttention):
    """As :class:`FastSelfAttention`, by a kernel that keeps no scores; without dropout only."""

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        rows: Tensor,
        mask: Tensor,
        scale: float,
    ) -> Tensor:
        positions = position_keys, position_queries
        if self._dropout:
            return super()._attend(query, key, value, *positions, rows, mask, scale)
        index = rows.int()
        return attention_triton.disentangled_attention(
            query, key, value, *positions, index, index, mask, scale=scale
        )


class FastEncoder(DebertaV2Encoder):
    """As :class:`DebertaV2Encoder`, without masks and positions of ``seq_len * seq_len``."""

    keeps_all = True
    """Whether the states of all layers are to be returned, or the last ones alone."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        output_hidden_states: bool = True,
        output_attentions: bool = False,
        query_states: Tensor | None = None,
        relative_pos: Tensor | None = None,
        return_dict: bool = True,
    ) -> Any:
        """As the stock encoder's; ``hidden_states`` of the result may hold the last ones alone."""
        keeps_all = self.keeps_all or not return_dict
        encoded = super().forward(
            hidden_states,
            attention_mask,
            output_hidden_states and keeps_all,
            output_attentions,
            query_states,
            relative_pos,
            return_dict,
        )
        if keeps_all or not output_hidden_states:
            return encoded
        last = encoded.last_hidden_state
        return BaseModelOutput(
            last_hidden_state=last, hidden_states=(last,), attentions=encoded.attentions
        )

    def get_attention_mask(self, attention_mask: Tensor) -> Tensor:
        """``(batch, 1, 1, seq_len)``: which keys are tokens. What a padded query sees is free."""
        if attention_mask.dim() == 2:
            return attention_mask[:, None, None, :]
        return super().get_attention_mask(attention_mask)  # type: ignore[no-any-return]

    def get_rel_pos(self, *arguments: Any, **named: Any) -> None:
        """None: each layer knows its distances."""


class FastModel(DebertaV2Model):
    """As :class:`DebertaV2Model`, without keeping the states of all layers unless they are asked
    for: the stock model always does."""

    def forward(
        self, *arguments: Any, output_hidden_states: bool | None = None, **named: Any
    ) -> Any:
        """As the stock model's."""
        if output_hidden_states is None:
            output_hidden_states = bool(self.config.output_hidden_states)
        encoder: Any = self.encoder
        encoder.keeps_all = output_hidden_states
        named["output_hidden_states"] = output_hidden_states
        return super().forward(*arguments, **named)


_STOCK = (DisentangledSelfAttention, DebertaV2Encoder, DebertaV2Model)
_FAST = (FastSelfAttention, FastEncoder, FastModel)
_TRITON = (TritonSelfAttention, FastEncoder, FastModel)


def choose_attention(backbone: PreTrainedModel, wanted: str) -> PreTrainedModel:
    """The encoder with the attention that a setting asks for.

    The fast one is shown to win on CPUs. On GPUs no figure is there yet, so ``auto`` leaves the
    stock one there.

    Args:
        backbone: any encoder, changed in place.
        wanted: ``auto``, ``fast``, ``triton`` or ``stock``.

    Raises:
        SettingsError: ``triton`` cannot run here.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "triton":
        if not (has_gpu and attention_triton.is_available(torch.device("cuda"))):
            raise SettingsError(
                'attention="triton" needs a GPU of compute capability 8.0 or more, which Kaggle\'s '
                'T4 is not, and the package triton. Set attention="fast".'
            )
        _swap(backbone, _TRITON)
    elif wanted == "fast" or (wanted == "auto" and not has_gpu):
        use_fast_attention(backbone)
    else:
        use_stock_attention(backbone)
    return backbone


def use_fast_attention(backbone: PreTrainedModel) -> bool:
    """Switches the encoder to the fast attention; False, and no change, for other families."""
    return _swap(backbone, _FAST)


def use_stock_attention(backbone: PreTrainedModel) -> None:
    """Switches the encoder back to the attention of transformers."""
    _swap(backbone, _STOCK)


def _swap(backbone: PreTrainedModel, classes: tuple[type, ...]) -> bool:
    """Gives the modules other classes; False where the encoder is none of theirs."""
    if not isinstance(backbone, DebertaV2Model) or not backbone.encoder.relative_attention:
        return False
    for module in backbone.modules():
        for kinds in zip(_STOCK, _FAST, _TRITON, classes, strict=True):
            if type(module) in kinds:
                module.__class__ = kinds[-1]
    return True
