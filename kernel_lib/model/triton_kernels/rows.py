"""The last backward kernel: from gradients of scores to those of queries or keys.

A block of rows takes its rows of score gradients times the other side's vectors, and adds up, for
each row of the position table, those at a distance that belongs to it. An index never falls with
the distance, so these are neighbours, and each sum is made by one program.
"""

from __future__ import annotations

import triton
import triton.language as tl

from kernel_lib.model.triton_kernels.tiles import end_of_keys, load_rows, place, store_rows


@triton.jit
def row_gradients(
    to_scores: tl.tensor,
    others_vectors: tl.tensor,
    position: tl.tensor,
    begins: tl.tensor,
    ends: tl.tensor,
    to_rows: tl.tensor,
    to_products: tl.tensor,
    row_extents: tl.tensor,
    other_extents: tl.tensor,
    vectors_text: tl.tensor,
    vectors_head: tl.tensor,
    vectors_row: tl.tensor,
    position_head: tl.tensor,
    position_row: tl.tensor,
    to_rows_text: tl.tensor,
    to_rows_head: tl.tensor,
    to_rows_row: tl.tensor,
    texts: tl.tensor,
    heads: tl.tensor,
    seq_len: tl.tensor,
    width: tl.tensor,
    span: tl.tensor,
    low_column: tl.tensor,
    high_column: tl.tensor,
    scale: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """A block of rows (queries or keys) of one text and head: their gradients.

    Args:
        to_scores: what :func:`score_gradients` stored for these rows.
        others_vectors: ``(texts, heads, seq_len, SIZE)``, keys for queries and queries for keys.
        position: ``(heads, span, SIZE)``, or None: only the product with the others is wanted.
        begins, ends: ``(span,)`` int32, the slots that belong to each row of ``position``.
        to_rows: out, ``(texts, heads, seq_len, SIZE)``.
        to_products: out, ``(heads, texts, seq_len, span)``: gradients, before their scale, of the
            rows' products with ``position``.
        row_extents, other_extents: for the side that is keys as in
            :func:`~kernel_lib.model.triton_kernels.forward.attend`, for the other side None.
        low_column, high_column: the rows of ``position`` that the lowest and the highest slots
            belong to: its first and its last, or the opposite.
        scale: of the scores.
        width, SIZE, BLOCK_D: as for :func:`score_gradients`.
    """
    block, text, head = place(tl.cdiv(seq_len, BLOCK_M), heads)
    first = block * BLOCK_M
    rows = first + tl.arange(0, BLOCK_M)
    rows_end = end_of_keys(row_extents, text, seq_len)
    others_end = end_of_keys(other_extents, text, seq_len)
    to_scores += (text * heads + head) * seq_len * width
    others_vectors += text * vectors_text + head * vectors_head
    gradient = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)

    # The outermost rows of a position table may stand for hundreds of distances each: those are
    # added up here, in passing.
    to_low = tl.zeros((BLOCK_M,), tl.float32)
    to_high = tl.zeros((BLOCK_M,), tl.float32)
    if position is not None:
        end_of_low = tl.load(ends + low_column)
        begin_of_high = tl.maximum(tl.load(begins + high_column), end_of_low)
    aligned_end = (others_end + 15) // 16 * 16
    for start in range(0, tl.where(first < rows_end, others_end, 0), BLOCK_N):
        others = start + tl.arange(0, BLOCK_N)
        at = to_scores + rows[:, None] * width + others[None, :]
        known = (rows < rows_end)[:, None] & (others < aligned_end)[None, :]
        tile = tl.load(at, mask=known, other=0.0)
        vectors = load_rows(others_vectors, vectors_row, others, seq_len, SIZE, BLOCK_D)
        gradient = tl.dot(tile, vectors, gradient, input_precision="ieee")
        if position is not None:
            # Few tiles reach so far, and they are read again: a tile used in two ways could not
            # go into the product straight from memory.
            slots = others[None, :] - rows[:, None] + (seq_len - 1)
            if start - first - BLOCK_M + seq_len < end_of_low:
                far = tl.load(at, mask=known & (slots < end_of_low), other=0.0)
                to_low += tl.sum(far.to(tl.float32), 1)
            if start - first + BLOCK_N + seq_len - 2 >= begin_of_high:
                far = tl.load(at, mask=known & (slots >= begin_of_high), other=0.0)
                to_high += tl.sum(far.to(tl.float32), 1)

    if position is not None:
        position += head * position_head
        to_products += (head * texts + text) * seq_len * span
        # These rows meet no slots below and above; the last row may lie past the end.
        lowest, highest = seq_len - first - BLOCK_M, 2 * seq_len - 1 - first
        for start in range(0, span, BLOCK_C):
            columns = start + tl.arange(0, BLOCK_C)
            known = columns < span
            begin = tl.maximum(tl.load(begins + columns, mask=known, other=0), lowest)
            end = tl.minimum(tl.load(ends + columns, mask=known, other=0), highest)
            outer = (columns == low_column) | (columns == high_column)
            count = tl.where(outer, 0, end - begin)
            # Everything that does not change from step to step stands before the loop.
            others = rows[:, None] + begin[None, :] - (seq_len - 1)
            stop = tl.minimum(others + count[None, :], others_end)
            stop = tl.where((rows < rows_end)[:, None], stop, 0)
            at = rows[:, None] * width + others
            sums = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
            for step in range(0, tl.max(count, 0)):
                known_pair = (others + step >= 0) & (others + step < stop)
                sums += tl.load(to_scores + step + at, mask=known_pair, other=0.0)
            sums += tl.where((columns == low_column)[None, :], to_low[:, None], 0.0)
            sums += tl.where((columns == high_column)[None, :], to_high[:, None], 0.0)
            sums = sums.to(to_products.dtype.element_ty)
            # Transposed, or the compiler would give these wide stores' layout to the loads above,
            # whose neighbours would then be read by threads far apart.
            tl.store(
                to_products + rows[None, :] * span + columns[:, None],
                tl.trans(sums),
                mask=(rows < seq_len)[None, :] & known[:, None],
            )
            p = load_rows(position, position_row, columns, span, SIZE, BLOCK_D)
            gradient = tl.dot(sums, p, gradient, input_precision="ieee")
    to_rows += text * to_rows_text + head * to_rows_head
    store_rows(gradient * scale, to_rows, to_rows_row, rows, seq_len, SIZE, BLOCK_D)
