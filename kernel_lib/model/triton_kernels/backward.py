"""The backward kernels: gradients without atomic additions, the same from run to run.

1. :func:`output_products`: for each query, its output times the output's gradient.
2. :func:`score_gradients`: a block of keys against all queries. The weights are made again; the
   gradient of the scores is stored, once with a row for each query and once with a row for each
   key. The values' gradients fall out.
3. :func:`~kernel_lib.model.triton_kernels.rows.row_gradients`, for queries and again for keys.
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
def output_products(
    output: tl.tensor,
    to_output: tl.tensor,
    products: tl.tensor,
    output_text: tl.tensor,
    output_head: tl.tensor,
    output_row: tl.tensor,
    to_output_text: tl.tensor,
    to_output_head: tl.tensor,
    to_output_row: tl.tensor,
    heads: tl.tensor,
    seq_len: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
) -> None:
    """Sums over the head of output times gradient: ``(texts, heads, seq_len)`` float32."""
    block, text, head = place(tl.cdiv(seq_len, BLOCK_M), heads)
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    output += text * output_text + head * output_head
    to_output += text * to_output_text + head * to_output_head
    o = load_rows(output, output_row, rows, seq_len, SIZE, BLOCK_D).to(tl.float32)
    g = load_rows(to_output, to_output_row, rows, seq_len, SIZE, BLOCK_D).to(tl.float32)
    products += (text * heads + head) * seq_len + rows
    tl.store(products, tl.sum(o * g, 1), mask=rows < seq_len)


@triton.jit
def score_gradients(
    query: tl.tensor,
    key: tl.tensor,
    value: tl.tensor,
    to_output: tl.tensor,
    to_value: tl.tensor,
    by_query: tl.tensor,
    by_key: tl.tensor,
    log_sums: tl.tensor,
    products: tl.tensor,
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
    to_output_text: tl.tensor,
    to_output_head: tl.tensor,
    to_output_row: tl.tensor,
    to_value_text: tl.tensor,
    to_value_head: tl.tensor,
    to_value_row: tl.tensor,
    texts: tl.tensor,
    heads: tl.tensor,
    seq_len: tl.tensor,
    width: tl.tensor,
    c2p_span: tl.tensor,
    p2c_span: tl.tensor,
    scale: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MARGIN: tl.constexpr,
) -> None:
    """A block of keys of one text and head against all queries; tiles are ``(keys, queries)``.

    Args: as for :func:`~kernel_lib.model.triton_kernels.forward.attend`, and
        by_query, by_key: ``(texts, heads, seq_len, width)``; gradients of the scores before their
            scale. Columns past the end are written as zeros; keys behind the last token are not
            written at all.
        products: what :func:`output_products` left.
        width: ``seq_len`` rounded up to a multiple of 16, so that rows are aligned.
    """
    block, text, head = place(tl.cdiv(seq_len, BLOCK_N), heads)
    first = block * BLOCK_N
    keys = first + tl.arange(0, BLOCK_N)
    query += text * query_text + head * query_head
    to_output += text * to_output_text + head * to_output_head
    pair = text * heads + head
    by_query += pair * seq_len * width
    by_key += pair * seq_len * width
    table = (head * texts + text) * seq_len
    k = load_rows(key + text * key_text + head * key_head, key_row, keys, seq_len, SIZE, BLOCK_D)
    v = load_rows(
        value + text * value_text + head * value_head, value_row, keys, seq_len, SIZE, BLOCK_D
    )
    shown, low = visible_keys(key_mask, extents, text, keys, seq_len)

    gradient = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
    last = tl.where(first < end_of_keys(extents, text, seq_len), seq_len, 0)
    for start in range(0, last, BLOCK_M):
        queries = start + tl.arange(0, BLOCK_M)
        inside = queries < seq_len
        q = load_rows(query, query_row, queries, seq_len, SIZE, BLOCK_D)
        scores = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        if p2c is not None:
            scores += position_terms(
                p2c + table * p2c_span,
                p2c_index,
                first,
                start,
                seq_len,
                p2c_span,
                BLOCK_N,
                BLOCK_M,
                MARGIN,
            )
        if c2p is not None:
            terms = position_terms(
                c2p + table * c2p_span,
                c2p_index,
                start,
                first,
                seq_len,
                c2p_span,
                BLOCK_M,
                BLOCK_N,
                MARGIN,
            )
            scores += tl.trans(terms)
        scores = tl.dot(k, tl.trans(q), scores, input_precision="ieee")
        scores = tl.where(shown[:, None], scores, low[:, None])
        at = pair * seq_len + queries
        log_sum = tl.load(log_sums + at, mask=inside, other=0.0)
        # Scores of queries past the end may be anything, even not numbers.
        weights = tl.exp2(scores * scale - log_sum[None, :])
        weights = tl.where(inside[None, :], weights, 0.0)

        g = load_rows(to_output, to_output_row, queries, seq_len, SIZE, BLOCK_D)
        gradient = tl.dot(weights.to(g.dtype), g, gradient, input_precision="ieee")
        to_weights = tl.dot(v, tl.trans(g), input_precision="ieee")
        product = tl.load(products + at, mask=inside, other=0.0)
        to_scores = tl.where(shown[:, None], weights * (to_weights - product[None, :]), 0.0)
        to_scores = to_scores.to(by_key.dtype.element_ty)
        tl.store(
            by_key + keys[:, None] * width + queries[None, :],
            to_scores,
            mask=(keys < seq_len)[:, None] & (queries < width)[None, :],
        )
        tl.store(
            by_query + queries[:, None] * width + keys[None, :],
            tl.trans(to_scores),
            mask=inside[:, None] & (keys < width)[None, :],
        )
    to_value += text * to_value_text + head * to_value_head
    store_rows(gradient, to_value, to_value_row, keys, seq_len, SIZE, BLOCK_D)
