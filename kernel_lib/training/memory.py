"""When memory is full: how that shows, and how it is given back."""

from __future__ import annotations

import gc

import torch

# Errors of a full memory without a class of their own: CUDA, cuBLAS, and on CPUs Linux and Windows.
MEMORY_IS_FULL = (
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "can't allocate memory",
    "not enough memory",
)


class MemoryFullElsewhere(MemoryError):
    """Another process has no memory left for its share of a batch that this one has a share of."""


def is_memory_full(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, on a GPU or in the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in MEMORY_IS_FULL)


def release_memory(device: torch.device) -> None:
    """Gives back what is no longer referred to, on a GPU to other programs too.

    To be called when the error is gone: its frames hold on to the tensors of the failed pass.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
