"""Tensors in, kernels launched, tensors out. Products with position tables are torch's own."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import triton
from torch import Tensor

from kernel_lib.model.triton_kernels.backward import output_products, score_gradients
from kernel_lib.model.triton_kernels.forward import attend
from kernel_lib.model.triton_kernels.rows import row_gradients
from kernel_lib.model.triton_kernels.sizes import kernel_sizes
from kernel_lib.model.triton_kernels.tables import (
    MARGIN,
    Inputs,
    buckets,
    by_head,
    masks,
    position_terms,
)

Gradients = tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]


def forward(inputs: Inputs, scale: float) -> tuple[Tensor, Tensor]:
    """The weighted values, and what the backward pass needs to make the weights again.

    Returns:
        ``(batch, heads, seq_len, head_size)``, and for each query the logarithm to base 2 of the
        sum over its weights before they were divided by it, ``(batch, heads, seq_len)`` float32.
    """
    query, key, value = inputs.query, inputs.key, inputs.value
    texts, heads, seq_len, head_size = query.shape
    output = _empty_like(query)
    log_sums = query.new_empty(query.shape[:3], dtype=torch.float32)
    sizes = kernel_sizes(head_size, query.dtype).attend
    with _on(query.device):
        attend[(triton.cdiv(seq_len, sizes.queries) * texts * heads,)](
            query,
            key,
            value,
            output,
            log_sums,
            *position_terms(inputs),
            *masks(inputs.key_mask),
            *_strides(query, key, value, output),
            texts,
            heads,
            seq_len,
            _span(inputs.position_key),
            _span(inputs.position_query),
            scale * math.log2(math.e),
            **_head(head_size),
            MARGIN=MARGIN,
            **sizes.options(),
        )
    return output, log_sums


def backward(
    to_output: Tensor, inputs: Inputs, output: Tensor, log_sums: Tensor, scale: float
) -> Gradients:
    """Gradients of the query, key, value, position key and position query.

    While it runs it holds two matrices of ``seq_len * seq_len`` for each text and head, in the
    inputs' type; nothing of that size is kept from the forward pass.

    Args:
        to_output: the output's gradient, neighbours in the last dimension.
        inputs, scale: as for :func:`forward`.
        output, log_sums: what it returned.
    """
    with _on(to_output.device):
        mask, extents = masks(inputs.key_mask)
        to_value, by_query, by_key = _score_gradients(
            to_output, inputs, (mask, extents), output, log_sums, scale
        )
        to_query, to_position_key = _row_gradients(
            by_query,
            inputs.query,
            inputs.key,
            inputs.position_key,
            inputs.c2p_index,
            (None, extents),
            scale,
            rows_are_keys=False,
        )
        to_key, to_position_query = _row_gradients(
            by_key,
            inputs.key,
            inputs.query,
            inputs.position_query,
            inputs.p2c_index,
            (extents, None),
            scale,
            rows_are_keys=True,
        )
    return to_query, to_key, to_value, to_position_key, to_position_query


def _score_gradients(
    to_output: Tensor,
    inputs: Inputs,
    hidden: tuple[Tensor | None, Tensor | None],
    output: Tensor,
    log_sums: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of the values, and of the scores by query and by key."""
    query, key, value = inputs.query, inputs.key, inputs.value
    texts, heads, seq_len, head_size = query.shape
    to_value = _empty_like(value)
    products = torch.empty_like(log_sums)
    width = triton.cdiv(seq_len, 16) * 16
    by_query, by_key = (query.new_empty(texts, heads, seq_len, width) for _ in range(2))
    block = 64
    output_products[(triton.cdiv(seq_len, block) * texts * heads,)](
        output,
        to_output,
        products,
        *_strides(output, to_output),
        heads,
        seq_len,
        **_head(head_size),
        BLOCK_M=block,
    )
    sizes = kernel_sizes(head_size, query.dtype).score_gradients
    score_gradients[(triton.cdiv(seq_len, sizes.keys) * texts * heads,)](
        query,
        key,
        value,
        to_output,
        to_value,
        by_query,
        by_key,
        log_sums,
        products,
        *position_terms(inputs),
        *hidden,
        *_strides(query, key, value, to_output, to_value),
        texts,
        heads,
        seq_len,
        width,
        _span(inputs.position_key),
        _span(inputs.position_query),
        scale * math.log2(math.e),
        **_head(head_size),
        MARGIN=MARGIN,
        **sizes.options(),
    )
    return to_value, by_query, by_key


def _row_gradients(
    to_scores: Tensor,
    rows: Tensor,
    others: Tensor,
    position: Tensor | None,
    index: Tensor | None,
    extents: tuple[Tensor | None, Tensor | None],
    scale: float,
    *,
    rows_are_keys: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of queries or keys, and of the position table that they meet."""
    texts, heads, seq_len, head_size = rows.shape
    to_rows = _empty_like(rows)
    sizes = kernel_sizes(head_size, rows.dtype).row_gradients
    span = _span(position)
    begins = ends = to_products = None
    low = high = 0
    if position is not None and index is not None:
        begins, ends, low, high = buckets(index, span, backwards=not rows_are_keys)
        to_products = rows.new_empty(heads, texts * seq_len, span)
    row_gradients[(triton.cdiv(seq_len, sizes.queries) * texts * heads,)](
        to_scores,
        others,
        position,
        begins,
        ends,
        to_rows,
        to_products,
        *extents,
        *_strides(others),
        *(position.stride()[:2] if position is not None else (0, 0)),
        *_strides(to_rows),
        texts,
        heads,
        seq_len,
        to_scores.shape[-1],
        span,
        low,
        high,
        scale,
        **_head(head_size),
        BLOCK_C=sizes.columns,
        **sizes.options(),
    )
    if to_products is None:
        return to_rows, None
    to_position = rows.new_empty(heads, span, head_size)
    to_position.baddbmm_(to_products.mT, by_head(rows), beta=0, alpha=scale)
    return to_rows, to_position


def _head(size: int) -> dict[str, int]:
    """The head size, and a power of 2 that holds it and that a product of tiles can have."""
    return {"SIZE": size, "BLOCK_D": max(16, triton.next_power_of_2(size))}


def _empty_like(rows: Tensor) -> Tensor:
    """An empty ``(batch, heads, seq_len, size)``, stored token by token as projections are."""
    texts, heads, seq_len, size = rows.shape
    return rows.new_empty(texts, seq_len, heads, size).transpose(1, 2)


def _strides(*tensors: Tensor) -> list[int]:
    """Of each tensor, those of texts, heads and positions."""
    return [stride for tensor in tensors for stride in tensor.stride()[:3]]


def _span(position: Tensor | None) -> int:
    return 0 if position is None else position.shape[1]


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Kernels are launched on the current device: here the tensors' own."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
