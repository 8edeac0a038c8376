"""What the forward and the backward kernels share: which tile a program has, and its parts.

Both position terms have one form. A row (a query, or a key) meets another position (a key, or a
query) at *slot* ``other - row + seq_len - 1``, 0 to ``2 * seq_len - 2``; an index gives the row of
the position table that belongs to each slot.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def place(blocks: tl.tensor, heads: tl.tensor) -> tl.tensor:
    """The block, text and head of this program; the last two in 64 bits, for large offsets."""
    program = tl.program_id(0)
    pair = (program // blocks).to(tl.int64)
    return program % blocks, pair // heads, pair % heads


@triton.jit
def load_rows(
    base: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    limit: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> tl.tensor:
    """Rows of a matrix of SIZE columns, ``(rows, BLOCK_D)``; zeros from row ``limit`` on."""
    columns = tl.arange(0, BLOCK_D)
    mask = (rows < limit)[:, None]
    if SIZE != BLOCK_D:
        mask = mask & (columns < SIZE)[None, :]
    return tl.load(base + rows[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def store_rows(
    tile: tl.tensor,
    base: tl.tensor,
    stride: tl.tensor,
    rows: tl.tensor,
    limit: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    """The opposite of :func:`load_rows`, in the matrix's own type."""
    columns = tl.arange(0, BLOCK_D)
    mask = (rows < limit)[:, None]
    if SIZE != BLOCK_D:
        mask = mask & (columns < SIZE)[None, :]
    tile = tile.to(base.dtype.element_ty)
    tl.store(base + rows[:, None] * stride + columns[None, :], tile, mask=mask)


@triton.jit
def position_terms(
    products: tl.tensor,
    index: tl.tensor,
    first_row: tl.tensor,
    first_other: tl.tensor,
    seq_len: tl.tensor,
    span: tl.tensor,
    ROWS: tl.constexpr,
    OTHERS: tl.constexpr,
    MARGIN: tl.constexpr,
) -> tl.tensor:
    """A tile ``(rows, others)`` of one position term, read from the rows' products.

    Neighbours in a row of the tile are neighbours in memory (or the same number), so a group of
    threads reads one or two cache lines. A tile whose rows are the *others* would touch one line a
    thread: whoever wants that tile transposes this one. Positions past the end read what stands in
    the margins, which may be anything.

    Args:
        products: those of one text and head, ``(seq_len, span)``, MARGIN rows readable behind.
        index: ``(2 * seq_len - 1,)`` with MARGIN entries before and behind.
        first_row, first_other: positions where the tile begins.
        seq_len, span, ROWS, OTHERS: sizes.
        MARGIN: see :data:`kernel_lib.model.triton_kernels.launch.MARGIN`.
    """
    rows = tl.arange(0, ROWS)[:, None]
    others = tl.arange(0, OTHERS)[None, :]
    # What is the same for the whole tile is added to the scalar pointers.
    index += seq_len - 1 + MARGIN + first_other - first_row
    products += first_row * span
    return tl.load(products + rows * span + tl.load(index + (others - rows)))


@triton.jit
def end_of_keys(extents: tl.tensor, text: tl.tensor, seq_len: tl.tensor) -> tl.tensor:
    """Behind which key a text has no token any more; ``seq_len`` where it has none at all."""
    end = seq_len
    if extents is not None:
        extent = tl.load(extents + text)
        end = tl.where(extent > 0, extent, seq_len)
    return end


@triton.jit
def visible_keys(
    key_mask: tl.tensor, extents: tl.tensor, text: tl.tensor, keys: tl.tensor, seq_len: tl.tensor
) -> tl.tensor:
    """Which keys of a block are tokens, and the score that the others get.

    A hidden key scores so low that its weight is 0. In a text without any token all keys score 0
    instead, and the weights come out uniform. Past the end the weight is 0 in any case.
    """
    inside = keys < seq_len
    shown = inside
    low = tl.where(inside, -1.0e30, float("-inf"))
    if key_mask is not None:
        shown = tl.load(key_mask + text * seq_len + keys, mask=inside, other=0) != 0
        low = tl.where(inside & (tl.load(extents + text) == 0), 0.0, low)
    return shown, low
