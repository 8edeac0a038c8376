"""Inference on ever more texts: whether time grows with their number and memory does not."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import torch

from kernel_lib.bench.essays import Job, fb3_lengths, made_up
from kernel_lib.bench.meters import timed
from kernel_lib.bench.models import build_model
from kernel_lib.bench.settings import BenchSettings, Shape
from kernel_lib.bench.ways import STOCK
from kernel_lib.runtime.device import Precision, keep_freed_memory
from kernel_lib.runtime.peak_memory import PeakMemory
from kernel_lib.training.prediction import predict

TINY = Shape(hidden=32, heads=2, layers=1, vocabulary=1000, buckets=16)
BATCH_TOKENS = 16 * 64


def measure_growth(rows: int, settings: BenchSettings) -> dict[str, Any]:
    """Predicts so many made-up texts with a tiny model, in this process, which does nothing else.

    Args:
        rows: how many.
        settings: of the benchmark.

    Returns:
        ``rows``, ``seconds``, ``data_bytes`` of the encoded texts, and ``peak_bytes``: the most
        memory in use beyond data and model; None where the system does not say.
    """
    keep_freed_memory()
    device = torch.device(settings.device)
    lengths = fb3_lengths(rows, settings.seed, divisor=settings.growth_divisor)
    examples = made_up(lengths.tolist(), vocabulary=TINY.vocabulary, seed=settings.seed)
    job = Job("tiny", "", TINY, "", examples, 0)
    model = build_model(job, attention=STOCK, seed=settings.seed).to(device)

    def compute(texts: int) -> None:
        predict(
            model,
            examples[:texts],
            pad_id=0,
            batch_tokens=BATCH_TOKENS,
            device=device,
            precision=Precision("float32", device.type),
        )

    longest = int(np.argmax(lengths))
    examples[0], examples[longest] = examples[longest], examples[0]
    compute(16)  # what one batch needs belongs to the model
    gc.collect()
    memory = PeakMemory(device)
    seconds = timed(lambda: compute(rows), device)
    return {
        "rows": rows,
        "seconds": seconds,
        "data_bytes": sum(example.input_ids.nbytes for example in examples),
        "peak_bytes": memory.grown_bytes(),
    }
