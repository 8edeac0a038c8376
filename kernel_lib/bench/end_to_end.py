"""Whole training steps and whole predictions on texts of real lengths, each way in turn."""

from __future__ import annotations

from typing import Any

import torch

from kernel_lib.bench.essays import Job
from kernel_lib.bench.hf_trainer import TrainerRunner
from kernel_lib.bench.kit import KitRunner
from kernel_lib.bench.meters import batch_flops
from kernel_lib.bench.reference import ReferenceRunner
from kernel_lib.bench.runner import Runner, largest, representative
from kernel_lib.bench.settings import BenchSettings
from kernel_lib.bench.ways import KIT, REFERENCE, TRAINER, Way
from kernel_lib.runtime.device import keep_freed_memory
from kernel_lib.runtime.peak_memory import PeakMemory

RUNNERS: dict[str, type[Runner]] = {
    KIT: KitRunner,
    REFERENCE: ReferenceRunner,
    TRAINER: TrainerRunner,
}
PHASES = ("inference", "training", "training_fgm")  # from the least memory to the most
PASSES = {"inference": 1, "training": 3, "training_fgm": 6}  # in forward passes' arithmetic


def measure_way(job: Job, way: Way, settings: BenchSettings) -> dict[str, Any]:
    """What one way takes, in this process, which does nothing else.

    Args:
        job: model and texts.
        way: which one.
        settings: of the benchmark.

    Returns:
        For each of ``PHASES`` (None where the way has no such thing) ``seconds``, ``tokens``
        (without padding), ``positions`` (with it), ``flops_needed`` by the tokens, ``flops_done``
        with the padding, ``peak_bytes`` so far; and ``seen``: what the encoder was really given.

    Raises:
        TrainingError: the way cannot be measured here.
    """
    if way.keeps_memory:
        keep_freed_memory()
    device = torch.device(settings.device)
    memory = PeakMemory(device)
    runner = RUNNERS[way.method](job, way, settings, device)
    found: dict[str, Any] = {"seen": {}}
    for phase in PHASES:
        if phase == "training_fgm" and not runner.has_fgm:
            found[phase] = None
            continue
        found[phase] = _measure(runner, phase)
        found[phase]["peak_bytes"] = memory.grown_bytes()
        found["seen"][phase] = {
            "attention": runner.watch.attention,
            "computed_in": runner.watch.computed_in,
            "batches": list(runner.watch.batches),
        }
    return found


def _measure(runner: Runner, phase: str) -> dict[str, Any]:
    settings, lengths = runner.settings, runner.lengths
    fewer = 2 if runner.batches_cost_alike else 1
    if phase == "inference":
        plan = runner.inference_plan()
        batches = representative(plan, max(1, settings.infer_batches // fewer), lengths)
        seconds = runner.predict(batches, largest(plan, lengths))
    else:
        plan = runner.training_plan()
        batches = representative(plan, max(1, settings.train_batches // fewer), lengths)
        seconds = runner.train(batches, largest(plan, lengths), fgm=phase == "training_fgm")
    passes = 2 if phase == "training_fgm" else 1  # through the encoder, as the watch counts
    backwards = PASSES[phase] / passes
    config = runner.watch.config
    needed = sum(batch_flops(config, [lengths[row] for row in rows]) for rows in batches)
    return {
        "seconds": seconds,
        "tokens": sum(lengths[row] for rows in batches for row in rows),
        "positions": runner.watch.positions // passes,
        "flops_needed": PASSES[phase] * needed,
        "flops_done": backwards * runner.watch.flops(),
    }


def summarised(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """One way's rounds in one: of each phase the quickest, with all times, and its largest peak.

    The quickest, since whatever else a machine does makes a measurement slower, never quicker.
    """
    summary: dict[str, Any] = {"seen": rounds[0]["seen"]}
    for phase in PHASES:
        measured = [each[phase] for each in rounds]
        if measured[0] is None:
            summary[phase] = None
            continue
        best = min(measured, key=lambda each: each["seconds"])
        peaks = [each["peak_bytes"] for each in measured if each["peak_bytes"] is not None]
        summary[phase] = {
            **best,
            "tokens_per_second": best["tokens"] / best["seconds"],
            "all_seconds": [each["seconds"] for each in measured],
            "peak_bytes": max(peaks, default=None),
        }
    return summary
