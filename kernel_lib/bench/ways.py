"""What is compared: this kit, the reference notebook, the Trainer, and the steps in between."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernel_lib.config.runs import ATTENTIONS
from kernel_lib.runtime.device import pick_precision

STOCK, FAST = "stock", "fast"
OTHERS = tuple(name for name in ATTENTIONS if name not in ("auto", STOCK, FAST))  # for GPUs
KIT, REFERENCE, TRAINER = "kit", "reference", "trainer"


@dataclass(frozen=True)
class Way:
    """One way to train and to predict.

    Attributes:
        name: in the results' file.
        label: in the table and the plot.
        method: whose loops run: this kit's, the reference notebook's or the Trainer's.
        attention: as the setting of that name: ``stock`` is transformers' own.
        training_precision, inference_precision: the precision of each.
        keeps_memory: whether the allocator is told to keep freed blocks; on a CPU.
    """

    name: str
    label: str
    method: str
    attention: str
    training_precision: str
    inference_precision: str
    keeps_memory: bool


def all_ways(device: torch.device, *, has_fast_attention: bool) -> list[Way]:
    """The ways that differ from each other here, from the reference notebook up to the kit.

    Each of the first five differs from the one before it in one thing. What is left out: the
    allocator on a GPU; half precision on a CPU that does not multiply in it; the kit with and
    without fast attention where the encoder's family has none.

    Args:
        device: where everything runs.
        has_fast_attention: whether the kit knows a faster attention for this encoder.
    """
    auto, on_cpu = pick_precision("auto", device).name, device.type == "cpu"
    notebook = "fp16" if device.type == "cuda" else "float32"  # its autocast is CUDA's
    label = {KIT: "this kit", REFERENCE: "reference notebook", TRAINER: "Hugging Face Trainer"}
    ways = [Way("reference", label[REFERENCE], REFERENCE, STOCK, notebook, "float32", False)]
    kept = ", memory kept" if on_cpu else ""
    if on_cpu:
        text = label[REFERENCE] + kept
        ways.append(Way("reference_kept", text, REFERENCE, STOCK, notebook, "float32", True))
    if auto != "float32":
        text = f"{label[REFERENCE]}{kept}, {auto}"
        ways.append(Way("reference_half", text, REFERENCE, STOCK, auto, auto, True))
    if has_fast_attention:
        text = f"{label[KIT]}, stock attention"
        ways.append(Way("kit_stock", text, KIT, STOCK, auto, auto, True))
        if not on_cpu:
            for name in OTHERS:
                text = f"{label[KIT]}, {name} attention"
                ways.append(Way(f"kit_{name}", text, KIT, name, auto, auto, True))
    best = FAST if has_fast_attention else STOCK
    ways.append(Way("kit", label[KIT], KIT, best, auto, auto, True))
    if auto != "float32":
        text = f"{label[KIT]}, float32"
        ways.append(Way("kit_float32", text, KIT, best, "float32", "float32", True))
    ways.append(Way("trainer", label[TRAINER], TRAINER, STOCK, auto, auto, False))
    if on_cpu:
        text = label[TRAINER] + kept
        ways.append(Way("trainer_kept", text, TRAINER, STOCK, auto, auto, True))
    return ways
