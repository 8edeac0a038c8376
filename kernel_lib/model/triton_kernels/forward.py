"""The forward kernel: weights are made a tile at a time and never stored (Dao 2023, 2307.08691).

Weights are powers of 2: the caller's scale has log2(e) in it, and the sums kept for the backward
pass are logarithms to base 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernel_lib.model.triton_kernels.tiles import (
    end_of_keys,
    load_rows,
    place,
    position_terms,
    store_rows,
    visible_keys,
)


@triton.jit
def attend(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    output: tl.tensor,
    log_sums: tl.tensor,
    c2p: tl.tensor,
    p2c: tl.tensor,
    c2p_index: tl.tensor,
    p2c_index: tl.tensor,
    key_mask: tl.tensor,
    extents: tl.tensor,
    query_text: tl.tensor,
    query_head: tl.tensor,
    query_row: tl.tensor,
    key_text: tl.tensor,
    key_head: tl.tensor,
    key_row: tl.tensor,
    value_text: tl.tensor,
    value_head: tl.tensor,
    value_row: tl.tensor,
    output_text: tl.tensor,
    output_head: tl.tensor,
    output_row: tl.tensor,
    texts: tl.tensor,
    heads: tl.tensor,
    seq_len: tl.tensor,
    c2p_span: tl.tensor,
    p2c_span: tl.tensor,
    scale: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MARGIN: tl.constexpr,
) -> None:
    """A block of queries of one text and head against all keys.

    Args:
        query, key, value, output: ``(texts, heads, seq_len, SIZE)``, their strides below.
        log_sums: ``(texts, heads, seq_len)`` float32; of each query, for the backward pass.
        c2p: queries times position keys, ``(heads, texts, seq_len, c2p_span)``, or None.
        p2c: keys times position queries, likewise.
        c2p_index, p2c_index: ``(2 * seq_len - 1,)`` int32, or None.
        key_mask: ``(texts, seq_len)`` int8, or None.
        extents: ``(texts,)`` int32, the last token's place plus one, or None.
        scale: of the scores, more than 0, times log2(e).
        SIZE, BLOCK_D: the head size, and the power of 2 that holds it.
        MARGIN: see :func:`~kernel_lib.model.triton_kernels.tiles.position_terms`.
    """
    block, text, head = place(tl.cdiv(seq_len, BLOCK_M), heads)
    queries = block * BLOCK_M + tl.arange(0, BLOCK_M)
    query += text * query_text + head * query_head
    key += text * key_text + head * key_head
    value += text * value_text + head * value_head
    table = (head * texts + text) * seq_len
    q = load_rows(query, query_row, queries, seq_len, SIZE, BLOCK_D)

    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    weighted = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for start in range(0, end_of_keys(extents, text, seq_len), BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = load_rows(key, key_row, keys, seq_len, SIZE, BLOCK_D)
        # The position terms go into the product's accumulator: added afterwards, the compiler makes
        # the softmax twice, in two layouts.
        scores = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if c2p is not None:
            scores += position_terms(
                c2p + table * c2p_span,
                c2p_index,
                block * BLOCK_M,
                start,
                seq_len,
                c2p_span,
                BLOCK_M,
                BLOCK_N,
                MARGIN,
            )
        if p2c is not None:
            terms = position_terms(
                p2c + table * p2c_span,
                p2c_index,
                start,
                block * BLOCK_M,
                seq_len,
                p2c_span,
                BLOCK_N,
                BLOCK_M,
                MARGIN,
            )
            scores += tl.trans(terms)
        scores = tl.dot(q, tl.trans(k), scores, input_precision="ieee")
        shown, low = visible_keys(key_mask, extents, text, keys, seq_len)
        scores = tl.where(shown[None, :], scores, low[None, :])

        higher = tl.maximum(highest, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - higher[:, None])
        correction = tl.exp2(highest - higher)
        total = total * correction + tl.sum(weights, 1)
        v = load_rows(value, value_row, keys, seq_len, SIZE, BLOCK_D)
        weighted = weighted * correction[:, None]
        weighted = tl.dot(weights.to(v.dtype), v, weighted, input_precision="ieee")
        highest = higher

    output += text * output_text + head * output_head
    store_rows(weighted / total[:, None], output, output_row, queries, seq_len, SIZE, BLOCK_D)
    log_sums += (text * heads + head) * seq_len + queries
    tl.store(log_sums, highest + tl.log2(total), mask=queries < seq_len)
