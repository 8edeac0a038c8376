"""Encoder alone, one length at a time: each attention, precision and pass in turn."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from kernel_lib.bench.meters import batch_flops, timed
from kernel_lib.bench.models import random_encoder, switch_attention
from kernel_lib.bench.settings import BenchSettings
from kernel_lib.bench.ways import FAST, OTHERS, STOCK
from kernel_lib.runtime.device import (
    Precision,
    keep_freed_memory,
    pick_precision,
    seed_everything,
)

FLASH = "flashdeberta"  # a package of that name; GPUs only
PASSES = ("forward", "forward_backward")


@dataclass(frozen=True)
class Cell:
    """One thing that is timed.

    Attributes:
        attention: as the setting of that name, or ``flashdeberta``.
        precision: that it runs in.
        passes: ``forward``, or ``forward_backward``.
    """

    attention: str
    precision: str
    passes: str

    @property
    def name(self) -> str:
        """Of it in the results."""
        return f"{self.attention} {self.precision} {self.passes}"


def measure_length(length: int, settings: BenchSettings) -> dict[str, Any]:
    """Times every cell of a length, in turn, several rounds, on one encoder.

    Args:
        length: of all rows, in tokens.
        settings: of the benchmark.

    Returns:
        ``rows``, ``layers``, ``flops`` of a forward pass, and for each cell's name all its seconds;
        an error's text instead where it cannot run.
    """
    keep_freed_memory()
    seed_everything(settings.seed)
    device = torch.device(settings.device)
    rows = max(1, settings.cell_tokens // length)
    encoder = random_encoder(settings.shape).to(device)
    own = [STOCK, FAST, *(OTHERS if device.type == "cuda" else ())]
    encoders: dict[str, Any] = dict.fromkeys(own, encoder)
    if device.type == "cuda" and importlib.util.find_spec(FLASH):
        encoders[FLASH] = _flash_encoder(encoder).to(device)
    ids = torch.randint(10, settings.shape.vocabulary, (rows, length), device=device)
    seconds: dict[str, Any] = {}
    cells = _cells(device, list(encoders))
    for round_number in range(-1, settings.cell_rounds):  # the first is a warm-up
        for cell in cells:
            if isinstance(seconds.get(cell.name), str):
                continue
            if cell.attention != FLASH:
                switch_attention(encoder, cell.attention)
            action = _action(encoders[cell.attention], ids, cell)
            try:
                took = timed(action, device)
            except Exception as error:  # memory full; a kernel that cannot be compiled or run here
                seconds[cell.name] = f"failed: {type(error).__name__}"
                continue
            finally:
                encoders[cell.attention].zero_grad(set_to_none=True)
            if round_number >= 0:
                seconds.setdefault(cell.name, []).append(took)
    config = settings.shape.config()
    pooling = 2.0 * rows * length * config.hidden_size**2  # not here
    return {
        "length": length,
        "rows": rows,
        "layers": settings.shape.layers,
        "flops": batch_flops(config, rows * [length]) - pooling,
        "seconds": seconds,
    }


def _cells(device: torch.device, attentions: list[str]) -> list[Cell]:
    """All there are, those that are compared side by side."""
    auto = pick_precision("auto", device).name
    return [
        Cell(attention, precision, passes)
        for passes in PASSES
        for precision in dict.fromkeys(("float32", auto))
        for attention in attentions
    ]


def _action(encoder: Any, ids: torch.Tensor, cell: Cell) -> Callable[[], None]:
    mask = torch.ones_like(ids)
    precision = Precision(cell.precision, ids.device.type)

    def forward() -> None:
        with torch.inference_mode(), precision.autocast():
            encoder(input_ids=ids, attention_mask=mask)

    def forward_backward() -> None:
        with precision.autocast():
            output = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        output.float().square().mean().backward()

    return forward if cell.passes == "forward" else forward_backward


def _flash_encoder(encoder: Any) -> Any:
    """The same weights in the package's encoder."""
    from flashdeberta import FlashDebertaV2Model

    flash = FlashDebertaV2Model(encoder.config)
    flash.load_state_dict(encoder.state_dict())
    return flash.eval()
