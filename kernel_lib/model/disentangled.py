"""DeBERTa's disentangled attention (He et al. 2021, arXiv 2006.03654), computed without gathers.

The score of query i and key j is a sum of up to three products, each times ``scale``::

    q_i . k_j  +  q_i . position_keys[i - j]  +  k_j . position_queries[i - j]

transformers multiplies every query with all rows of a position table and then picks one product for
each pair, by 64-bit indices as many as there are scores; its backward pass adds them up one by one.
Here a table has one row for each *distance*. The product of query i with the row of distance i - j
then has a fixed place in the product matrix, so that the matrix of scores is a view of it with
other strides (:func:`skewed`), and nothing is picked.

A block of queries meets only ``seq_len + block - 1`` distances, so the products are made in blocks.
On a CPU one text is done at a time: what is computed stays in the cache. Nothing but the attention
weights is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CPU_BLOCK = 128  # queries, or keys, at a time
TURN_PADDING = 16


def distances(seq_len: int, device: torch.device) -> Tensor:
    """What the rows of a table of distances stand for: ``1 - seq_len`` to ``seq_len - 1``."""
    return torch.arange(1 - seq_len, seq_len, device=device)


def skewed(products: Tensor, seq_len: int) -> Tensor:
    """The scores among a block's products with the rows of its :func:`windows`.

    Args:
        products: ``(..., block, seq_len + block - 1)``, contiguous.
        seq_len: positions on the other side.

    Returns:
        A view ``(..., block, seq_len)``: element (r, c) is ``products[r, c - r + block - 1]``.
    """
    *outer, block, width = products.shape
    strides = (*products.stride()[: len(outer)], width - 1, 1)
    offset = products.storage_offset() + block - 1
    return products.as_strided((*outer, block, seq_len), strides, offset)


def windows(seq_len: int, block: int) -> Iterator[tuple[slice, slice]]:
    """The blocks of positions, each with the rows of a table of distances that it needs.

    Row t of the table is for a position and another one that lies ``t - (seq_len - 1)`` behind it.
    """
    for start in range(0, seq_len, block):
        stop = min(start + block, seq_len)
        yield slice(start, stop), slice(seq_len - stop, 2 * seq_len - 1 - start)


class DisentangledAttention(torch.autograd.Function):
    """Attention with tables of distances; the weights are all it keeps for the backward pass.

    Gradients are exact for all tensors, and summed in float32 for the tables. It cannot be
    differentiated twice.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        key_mask: Tensor | None,
        scale: float,
        dropout: float,
    ) -> Tensor:
        """The values, weighted.

        Args:
            ctx: autograd's.
            query, key, value: ``(batch, heads, seq_len, head_size)``.
            position_keys: ``(heads, 2 * seq_len - 1, head_size)``; row t is for query i and key
                ``i + t - (seq_len - 1)``. None: there is no such term.
            position_queries: the same; row t is for key j and query ``j + t - (seq_len - 1)``.
            key_mask: ``(batch, seq_len)`` bool, True on tokens; None: all are.
            scale: of the scores.
            dropout: the probability that a weight is dropped.

        Returns:
            ``(batch, heads, seq_len, head_size)``.
        """
        at_once, block = _sizes(query)
        tables = _Tables(position_keys, position_queries, scale, block)
        outputs = torch.empty_like(query)
        kept: list[Tensor] = []
        with torch.autocast(query.device.type, enabled=False):
            for texts in _slices(len(query), at_once):
                scores = tables.scores(query[texts], key[texts])
                if key_mask is not None:
                    _hide(scores, ~key_mask[texts, None, None, :])
                weights = torch.softmax(scores, -1)
                kept.append(weights)
                if dropout:
                    weights, keep = torch.native_dropout(weights, dropout, True)
                    kept.append(keep)
                outputs[texts] = weights @ value[texts]
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(query, key, value, position_keys, position_queries, *kept)
            ctx.scale, ctx.dropout = scale, dropout
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of :meth:`forward`'s tensors."""
        query, key, value, position_keys, position_queries, *kept = ctx.saved_tensors
        at_once, block = _sizes(query)
        tables = _Tables(position_keys, position_queries, ctx.scale, block)
        to_query, to_key, to_value = map(torch.empty_like, (query, key, value))
        remaining = iter(kept)
        with torch.autocast(query.device.type, enabled=False):
            for texts in _slices(len(query), at_once):
                to_output = gradients[0][texts]
                weights = dropped = next(remaining)
                to_weights = to_output @ value[texts].mT
                if ctx.dropout:
                    keep = next(remaining).to(weights.dtype).div_(1 - ctx.dropout)
                    dropped = weights * keep
                    to_weights.mul_(keep)
                to_value[texts] = dropped.mT @ to_output
                to_scores = torch._softmax_backward_data(to_weights, weights, -1, weights.dtype)
                to_query[texts], to_key[texts] = tables.backward(
                    to_scores, query[texts], key[texts]
                )
        return (to_query, to_key, to_value, *tables.gradients(), None, None, None)


class _Tables:
    """The tables of distances, their products with queries and keys, and their gradients.

    Args:
        position_keys, position_queries, scale: as for :class:`DisentangledAttention`.
        block: queries or keys at a time.
    """

    def __init__(
        self,
        position_keys: Tensor | None,
        position_queries: Tensor | None,
        scale: float,
        block: int,
    ) -> None:
        self.keys, self.scale, self.block = position_keys, scale, block
        self.queries = None if position_queries is None else position_queries * scale
        self._to_keys = _zeros_float(position_keys)
        self._to_queries = _zeros_float(position_queries)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """The scores of some texts, ``(texts, heads, seq_len, seq_len)``, padding not hidden."""
        texts, heads, seq_len, _ = query.shape
        query = query * self.scale
        scores = query.new_empty(texts, heads, seq_len, seq_len)
        if self.queries is None:
            torch.matmul(query, key.mT, out=scores)
        else:
            for rows, window in windows(seq_len, self.block):
                products = _by_head(key[:, :, rows]) @ self.queries[:, window].mT
                scores[..., rows] = skewed(_by_text(products, texts), seq_len).mT
            scores.view(-1, seq_len, seq_len).baddbmm_(query.flatten(0, 1), key.flatten(0, 1).mT)
        if self.keys is not None:
            for rows, window in windows(seq_len, self.block):
                products = _by_head(query[:, :, rows]) @ self.keys[:, window].mT
                scores[:, :, rows] += skewed(_by_text(products, texts), seq_len)
        return scores

    def backward(self, to_scores: Tensor, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """The gradients of some texts' queries and keys; those of the tables are added up.

        Args:
            to_scores: the gradient of :meth:`scores`.
            query, key: as they went into it.
        """
        texts, heads, seq_len, _ = query.shape
        query = query * self.scale
        to_query, to_key = to_scores @ key, to_scores.mT @ query
        spare: dict[int, Tensor] = {}
        for rows, window in windows(seq_len, self.block):
            length = rows.stop - rows.start
            if length not in spare:  # outside the skewed view it stays zero
                spare[length] = query.new_zeros(heads, texts, length, seq_len + length - 1)
            by_distance = spare[length]
            view, flat = skewed(by_distance.transpose(0, 1), seq_len), by_distance.flatten(1, 2)
            if self.keys is not None:
                view.copy_(to_scores[:, :, rows])
                to_query[:, :, rows] += _by_text(flat @ self.keys[:, window], texts)
                self._to_keys[:, window] += flat.mT @ _by_head(query[:, :, rows])
            if self.queries is not None:
                view.copy_(_turned(to_scores[..., rows]))
                to_key[:, :, rows] += _by_text(flat @ self.queries[:, window], texts)
                self._to_queries[:, window] += flat.mT @ _by_head(key[:, :, rows])
        return to_query.mul_(self.scale), to_key

    def gradients(self) -> tuple[Tensor | None, Tensor | None]:
        """Those of the tables, in the tables' own type."""
        to_keys = None if self.keys is None else self._to_keys.to(self.keys.dtype)
        if self.queries is None:
            return to_keys, None
        return to_keys, self._to_queries.mul_(self.scale).to(self.queries.dtype)


def _sizes(query: Tensor) -> tuple[int, int]:
    """Texts and positions at a time: on a CPU what fits in its cache, on a GPU all."""
    if query.device.type == "cpu":
        return 1, CPU_BLOCK
    return len(query), query.shape[2]


def _hide(scores: Tensor, hidden: Tensor) -> None:
    """Gives hidden keys the lowest score; most texts have none, and a CPU can ask at no cost."""
    if hidden.device.type != "cpu" or hidden.any():
        scores.masked_fill_(hidden, torch.finfo(scores.dtype).min)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def _zeros_float(table: Tensor | None) -> Tensor:
    """What a table's gradients are added up in: float32, or the table's own wider type."""
    if table is None:
        return torch.zeros(())
    return torch.zeros_like(table, dtype=torch.promote_types(table.dtype, torch.float32))


def _turned(columns: Tensor) -> Tensor:
    """``columns.mT``, to be read quickly.

    Its rows lie a power of two apart when a text has 512 tokens, and then they share a few lines of
    the cache; a copy whose rows lie a little further apart takes a third of the time.
    """
    *outer, width = columns.shape
    apart = columns.new_empty(*outer, width + TURN_PADDING)[..., :width]
    return apart.copy_(columns).mT


def _by_head(rows: Tensor) -> Tensor:
    """``(texts, heads, rows, size)`` as ``(heads, texts * rows, size)``; one text: a view."""
    return rows.transpose(0, 1).flatten(1, 2)


def _by_text(rows: Tensor, texts: int) -> Tensor:
    """The opposite of :func:`_by_head`."""
    return rows.unflatten(1, (texts, -1)).transpose(0, 1)
