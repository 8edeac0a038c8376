"""Time and arithmetic: what is measured, and what it is held against."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from kernel_lib.model.backbone import layer_index

LIMIT_SHAPES = {"cpu": (2048, 768, 3072), "cuda": (8192, 8192, 8192)}  # rows, inner, columns
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def timed(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that ``action`` takes, what it leaves running on a GPU included."""
    wait_for(device)
    begun = time.perf_counter()
    action()
    wait_for(device)
    return time.perf_counter() - begun


def wait_for(device: torch.device) -> None:
    """Returns when nothing is under way on a GPU; at once on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(precision: str, device: torch.device, repeats: int) -> float:
    """The best rate of a large matrix product, in FLOP a second: the limit for everything else."""
    rows, inner, columns = LIMIT_SHAPES[device.type]
    dtype = DTYPES[precision]
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(inner, columns, device=device).to(dtype)
    product = torch.empty(rows, columns, device=device, dtype=dtype)
    seconds = min(timed(lambda: torch.mm(left, right, out=product), device) for _ in range(repeats))
    return 2.0 * rows * inner * columns / seconds


def batch_flops(config: Any, lengths: Sequence[int]) -> float:
    """FLOP of a batch's forward pass through encoder and attention pooling, two a multiply-add.

    Projections 8 L d^2, feed-forward 4 L d f, scores and values 4 L^2 d; for DeBERTa the scores
    against 2k position slots, 2 L (2k) d for each of c2p and p2c, and once a batch their
    projections. Vector work (softmax, LayerNorm, GELU) does not count.

    Args:
        config: the encoder's.
        lengths: of the batch's rows, with their padding or without.
    """
    d, inner = config.hidden_size, config.intermediate_size
    slots = kinds = 0
    if getattr(config, "relative_attention", False):
        buckets = config.position_buckets
        slots = 2 * (buckets if buckets > 0 else config.max_position_embeddings)
        kinds = len({"c2p", "p2c"} & set(config.pos_att_type))
    a_token = 8.0 * d * d + 4.0 * d * inner + kinds * 2.0 * slots * d
    rows = sum(length * a_token + 4.0 * length * length * d for length in lengths)
    pooling = sum(lengths) * 2.0 * d * d
    return config.num_hidden_layers * (rows + kinds * 2.0 * slots * d * d) + pooling


class Watch:
    """Sees what really goes through an encoder: the batches' sizes, and the type it computes in.

    Args:
        backbone: the encoder.
    """

    def __init__(self, backbone: Any) -> None:
        self.config = backbone.config
        self.batches: list[tuple[int, int]] = []
        self.computed_in = ""
        self.attention = attention_name(backbone)
        backbone.register_forward_pre_hook(self._see_batch, with_kwargs=True)
        inside = [m for n, m in backbone.named_modules() if layer_index(n) == 0]
        last = [module for module in inside if isinstance(module, nn.Linear)][-1]
        last.register_forward_hook(self._see_type)

    def clear(self) -> None:
        """Forgets the batches seen so far."""
        self.batches.clear()

    @property
    def positions(self) -> int:
        """Tokens and padding of all batches since the last clearing."""
        return sum(rows * width for rows, width in self.batches)

    def flops(self) -> float:
        """Of the forward passes since the last clearing, padding included."""
        return sum(batch_flops(self.config, rows * [width]) for rows, width in self.batches)

    def _see_batch(self, module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        rows, width = named["input_ids"].shape
        self.batches.append((int(rows), int(width)))

    def _see_type(self, module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        self.computed_in = str(output.dtype).removeprefix("torch.")


def attention_name(backbone: nn.Module) -> str:
    """The class that computes the attention of the encoder's first layer."""
    classes = {name: type(module).__name__ for name, module in backbone.named_modules()}
    for ending in ("attention.self", "attention"):
        for name, kind in classes.items():
            if name.endswith(ending):
                return kind
    return ""
