"""What the kernels read beside the vectors: products with position tables, indices, masks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

MARGIN = 128
"""Rows behind the products, and entries around an index, that kernels may read instead of asking
for each position whether it lies past the end. No tile is longer."""


class Inputs(NamedTuple):
    """What the attention is given; the meaning is that of ``disentangled_attention``."""

    query: Tensor
    key: Tensor
    value: Tensor
    position_key: Tensor | None
    position_query: Tensor | None
    c2p_index: Tensor | None
    p2c_index: Tensor | None
    key_mask: Tensor | None


class PositionTerms(NamedTuple):
    """The position terms as the kernels read them; None where there is no such term.

    Attributes:
        c2p: queries times position keys, ``(heads, batch * seq_len, span)``, a margin behind it.
        p2c: keys times position queries, the same.
        c2p_index, p2c_index: the row of the position table for each slot, margins around it. A
            query sees a key at slot ``j - i + seq_len - 1``: its index is the caller's, backwards.
    """

    c2p: Tensor | None
    p2c: Tensor | None
    c2p_index: Tensor | None
    p2c_index: Tensor | None


def position_terms(inputs: Inputs) -> PositionTerms:
    """Makes the products and the indices."""
    c2p = p2c = c2p_index = p2c_index = None
    if inputs.position_key is not None and inputs.c2p_index is not None:
        c2p = _products(inputs.query, inputs.position_key)
        c2p_index = pad(inputs.c2p_index.flip(0), (MARGIN, MARGIN))
    if inputs.position_query is not None and inputs.p2c_index is not None:
        p2c = _products(inputs.key, inputs.position_query)
        p2c_index = pad(inputs.p2c_index, (MARGIN, MARGIN))
    return PositionTerms(c2p, p2c, c2p_index, p2c_index)


def _products(rows: Tensor, position: Tensor) -> Tensor:
    texts, heads, seq_len, _ = rows.shape
    span = position.shape[1]
    store = rows.new_empty((heads * texts * seq_len + MARGIN) * span)
    products = store[: heads * texts * seq_len * span].view(heads, texts * seq_len, span)
    return torch.bmm(by_head(rows), position.mT, out=products)


def by_head(rows: Tensor) -> Tensor:
    """``(batch, heads, seq_len, size)`` as ``(heads, batch * seq_len, size)``.

    A view where heads lie beside each other token by token, as projections leave them.
    """
    return rows.transpose(0, 1).flatten(1, 2)


class Buckets(NamedTuple):
    """The slots that belong to each row of a position table, seen from the table's own side.

    Attributes:
        begins, ends: ``(span,)`` int32.
        low, high: which rows the lowest and the highest slots belong to.
    """

    begins: Tensor
    ends: Tensor
    low: int
    high: int


def buckets(index: Tensor, span: int, *, backwards: bool) -> Buckets:
    """Turns an index, which never falls, round.

    Args:
        index: ``(2 * seq_len - 1,)``, the caller's.
        span: rows of the position table.
        backwards: the slots of queries, not of keys.
    """
    rows = torch.arange(span, device=index.device, dtype=index.dtype)
    begins = torch.searchsorted(index, rows, out_int32=True)
    ends = torch.searchsorted(index, rows, out_int32=True, right=True)
    if backwards:
        return Buckets(len(index) - ends, len(index) - begins, span - 1, 0)
    return Buckets(begins, ends, 0, span - 1)


def masks(key_mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The mask as the kernels read it, and each text's last token's place plus one."""
    if key_mask is None:
        return None, None
    places = torch.arange(1, key_mask.shape[1] + 1, device=key_mask.device, dtype=torch.int32)
    extents = torch.where(key_mask, places, 0).amax(1)
    return key_mask.contiguous().view(torch.int8), extents
