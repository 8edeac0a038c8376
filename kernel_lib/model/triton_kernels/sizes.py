"""How large the kernels' tiles are."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

LARGEST_HEAD = 256


class Sizes(NamedTuple):
    """How one kernel is launched.

    Attributes:
        queries, keys: positions in a tile; for the gradients of rows, rows and others.
        columns: rows of a position table in a tile.
        warps: groups of 32 threads.
        stages: how many tiles are on their way at a time.
    """

    queries: int
    keys: int
    columns: int
    warps: int
    stages: int

    def options(self) -> dict[str, Any]:
        """As keywords of a launch."""
        return {
            "BLOCK_M": self.queries,
            "BLOCK_N": self.keys,
            "num_warps": self.warps,
            "num_stages": self.stages,
        }


class KernelSizes(NamedTuple):
    """The sizes of each kernel with tiles of scores."""

    attend: Sizes
    score_gradients: Sizes
    row_gradients: Sizes


def kernel_sizes(head_size: int, dtype: torch.dtype) -> KernelSizes:
    """The sizes for compute capability 8.0 to 9.0.

    Chosen by reasoning, not measured. A looked-up position term costs several instructions a
    score, so the tiles are such that the compiler gives neighbours in memory to neighbouring
    threads (a tile of scores must not have the shape of a tile of vectors), and long on the side
    that is kept. What the compiler says of the first set at a head size of 64, Triton 3.2 to 3.9:
    at most 83 KB of shared memory (99 KB is the least that these cards have), no register spilled.
    float32 is there for checking: it does without tensor cores, and Triton 3.2 spills registers.

    Args:
        head_size: at most LARGEST_HEAD.
        dtype: of the queries.
    """
    if dtype.itemsize == 2 and head_size <= 64:
        return KernelSizes(
            Sizes(128, 32, 0, 8, 2), Sizes(32, 128, 0, 8, 2), Sizes(64, 64, 32, 4, 3)
        )
    if head_size * dtype.itemsize <= 256:
        return KernelSizes(*[Sizes(32, 32, 32, 4, 2)] * 3)
    return KernelSizes(*[Sizes(16, 16, 16, 4, 1)] * 3)
