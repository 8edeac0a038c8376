"""DeBERTa's disentangled attention as Triton kernels, for GPUs of compute capability 8.0 and up.

Optional: triton is imported when the attention is first called, never before. The function is that
of :mod:`kernel_lib.model.disentangled`, without dropout; tables of positions come as the encoder
has them, a row for each bucket, so that nothing has one row for each distance.

Forward: queries times position keys and keys times position queries are two matrix products with
``span`` columns. A kernel goes over tiles of scores with an online softmax (Dao 2023, arXiv
2307.08691) and looks its position terms up in these products. Backward: the weights are made again,
tile by tile; no atomic additions, so the kernels' sums are the same from run to run.

Checked with Triton's interpreter on a CPU, and compiled for capability 8.0 and 9.0, both by Triton
3.2, 3.6 and 3.9. Not yet run on a GPU, so nothing is known of its speed.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kernel_lib.errors import SettingsError


def is_available(device: torch.device) -> bool:
    """Whether triton is installed and the device a GPU of compute capability 8.0 or more."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def disentangled_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_key: Tensor | None,
    position_query: Tensor | None,
    c2p_index: Tensor | None,
    p2c_index: Tensor | None,
    key_mask: Tensor | None = None,
    *,
    scale: float,
) -> Tensor:
    """The values, weighted by the softmax of the scores; differentiable once.

    The score of query i and key j, with ``t = i - j + seq_len - 1``, is ``scale`` times::

        q_i . k_j +
        q_i . position_key[c2p_index[t]] +
        k_j . position_query[p2c_index[t]]

    A hidden key has weight 0; where all keys are hidden the weights are uniform. Every query
    attends to the tokens, a padded one too: what comes out for it is finite and of no use. Sums
    and the softmax are float32, matrix products take the inputs' type.

    Args:
        query, key, value: ``(batch, heads, seq_len, head_size)``, any strides.
        position_key: ``(heads, span, head_size)``; None: there is no content-to-position term.
        position_query: the same for position-to-content.
        c2p_index, p2c_index: ``(2 * seq_len - 1,)`` int32, rows of the tables, from 0 to
            ``span - 1`` and never falling. Not checked: on a GPU that would wait for it. Rows out
            of reach may be left out of a table, at best so that its length divides by 16.
        key_mask: ``(batch, seq_len)`` bool, True on tokens; None: all are.
        scale: of the scores, more than 0.

    Returns:
        ``(batch, heads, seq_len, head_size)``, stored token by token: ``transpose(1, 2)`` is
        contiguous.

    Raises:
        SettingsError: triton is not installed.
        ValueError: tensors of unlike types, or whose shapes do not fit.
    """
    if importlib.util.find_spec("triton") is None:
        raise SettingsError(
            "this attention needs the package triton, which is not installed: choose another one"
        )
    _check(query, key, value, position_key, position_query)
    _check_index(position_key, c2p_index, query.shape[2], "c2p_index")
    _check_index(position_query, p2c_index, query.shape[2], "p2c_index")
    vectors = (query, key, value, position_key, position_query)
    output: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
        *(None if tensor is None else _dense(tensor) for tensor in vectors),
        c2p_index,
        p2c_index,
        key_mask,
        scale,
    )
    return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        from kernel_lib.model.triton_kernels.launch import forward
        from kernel_lib.model.triton_kernels.tables import Inputs

        *tensors, scale = arguments
        output, log_sums = forward(Inputs(*tensors), scale)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(output, log_sums, *tensors)
            ctx.scale = scale
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_output: Tensor) -> tuple[Tensor | None, ...]:
        from kernel_lib.model.triton_kernels.launch import backward
        from kernel_lib.model.triton_kernels.tables import Inputs

        output, log_sums, *tensors = ctx.saved_tensors
        gradients = backward(_dense(to_output), Inputs(*tensors), output, log_sums, ctx.scale)
        return *gradients, None, None, None, None


def _dense(tensor: Tensor) -> Tensor:
    """The kernels want neighbours in the last dimension."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _check(query: Tensor, key: Tensor, value: Tensor, *positions: Tensor | None) -> None:
    """Raises ValueError where a kernel would read other memory."""
    from kernel_lib.model.triton_kernels.sizes import LARGEST_HEAD

    _, heads, _, head_size = query.shape
    tensors = [query, key, value, *(position for position in positions if position is not None)]
    fits = query.shape == key.shape == value.shape and all(
        position is None or (position.shape[0], position.shape[2]) == (heads, head_size)
        for position in positions
    )
    if not fits or not 0 < head_size <= LARGEST_HEAD or 0 in query.shape:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise ValueError(
            f"query, key, value and position tables of shapes {shapes}: wanted is three times "
            f"(batch, heads, seq_len, head_size), a head of 1 to {LARGEST_HEAD}, nothing empty, "
            "and tables (heads, span, head_size)"
        )
    if len({tensor.dtype for tensor in tensors}) > 1 or not query.is_floating_point():
        types = ", ".join(str(tensor.dtype) for tensor in tensors)
        raise ValueError(f"query, key, value and position tables are {types}, not of one type")


def _check_index(position: Tensor | None, index: Tensor | None, seq_len: int, name: str) -> None:
    if position is None:
        return
    if index is None or index.dtype != torch.int32 or index.shape != (2 * seq_len - 1,):
        found = "None" if index is None else f"{index.dtype} {tuple(index.shape)}"
        raise ValueError(f"{name} is {found}, not int32 {(2 * seq_len - 1,)}")
