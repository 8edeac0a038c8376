"""All parts of the benchmark, in turn, and the record of what came out."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from kernel_lib.bench.cells import measure_length
from kernel_lib.bench.end_to_end import measure_way, summarised
from kernel_lib.bench.essays import Job, pretrained_job, shaped_job
from kernel_lib.bench.growth import measure_growth
from kernel_lib.bench.meters import LIMIT_SHAPES, matrix_rate
from kernel_lib.bench.plot import plot_results
from kernel_lib.bench.precisions import measure_precisions
from kernel_lib.bench.processes import run_apart
from kernel_lib.bench.settings import BenchSettings
from kernel_lib.bench.table import markdown
from kernel_lib.bench.ways import Way, all_ways
from kernel_lib.errors import KernelLibError
from kernel_lib.model.backbone import read_config
from kernel_lib.runtime.device import keep_freed_memory, pick_precision, versions
from kernel_lib.runtime.files import replacing, write_json, write_text
from kernel_lib.runtime.progress import progress_bar

RESULTS, TABLE, PLOT = "results.json", "table.md", "bench.png"
FAMILY_WITH_FAST_ATTENTION = "deberta-v2"  # v3 is of it


def run_bench(settings: BenchSettings) -> dict[str, Any]:
    """Measures everything and writes ``results.json``, ``table.md`` and ``bench.png``.

    A way that cannot be measured here is named with the reason; the others go on.

    Args:
        settings: what is measured.

    Returns:
        What ``results.json`` holds.

    Raises:
        SettingsError, DataError, BackboneError: the settings or folders are wrong.
        ArtifactError: the results cannot be written.
    """
    settings = settings.checked()
    device = torch.device(settings.device)
    begun = time.monotonic()
    machine = machine_of(device)
    jobs = [shaped_job(settings), *([pretrained_job(settings)] if settings.backbone else [])]
    ways = [all_ways(device, has_fast_attention=_has_fast_attention(job)) for job in jobs]
    limits: list[Any] = []
    rounds: list[dict[str, list[Any]]] = [{way.name: [] for way in some} for some in ways]
    cells: list[Any] = []
    precisions: list[Any] = []
    growth: list[Any] = []

    turns: list[tuple[str, list[Any], Callable[..., Any], tuple[Any, ...]]] = []
    for _ in range(settings.rounds):
        turns.append(("limit", limits, measure_limits, (settings,)))
        for job, some, found in zip(jobs, ways, rounds, strict=True):
            turns += [
                (way.label, found[way.name], measure_way, (job, way, settings)) for way in some
            ]
    for length in settings.lengths:  # the more often the limit is tried, the nearer the true one
        turns.append(("limit", limits, measure_limits, (settings,)))
        turns.append((f"{length} tokens", cells, measure_length, (length, settings)))
    turns.append(("precisions", precisions, measure_precisions, (settings,)))
    for rows in settings.growth_rows:
        turns.append((f"{rows:,} texts", growth, measure_growth, (rows, settings)))

    with progress_bar(len(turns), "bench", unit="turn") as bar:
        for name, into, function, arguments in turns:
            bar.set_postfix_str(name)
            if not any(isinstance(earlier, str) for earlier in into):
                into.append(_attempt(function, *arguments))
            bar.update(1)

    results = {
        "made": datetime.datetime.now().isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begun, 1),
        "machine": machine,
        "versions": versions(),
        "settings": dataclasses.asdict(settings),
        "limit_shape": LIMIT_SHAPES[device.type],
        "limits": _best_of(limits),
        "end_to_end": [
            _end_to_end(job, some, found)
            for job, some, found in zip(jobs, ways, rounds, strict=True)
        ],
        "cells": cells,
        "precisions": precisions[0],
        "growth": growth,
    }
    write_results(results, Path(settings.out))
    return results


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Writes the record, the table and the plot. Raises ArtifactError when that fails."""
    write_json(folder / RESULTS, results)
    write_text(folder / TABLE, markdown(results))
    with replacing(folder / PLOT) as temporary:
        temporary.write_bytes(plot_results(results).png())


def measure_limits(settings: BenchSettings) -> dict[str, float]:
    """The rate of a large matrix product in each precision that is compared, FLOP a second."""
    keep_freed_memory()
    device = torch.device(settings.device)
    names = dict.fromkeys(("float32", pick_precision("auto", device).name))
    if device.type == "cuda":
        names["fp16"] = None
    return {name: matrix_rate(name, device, settings.limit_repeats) for name in names}


def machine_of(device: torch.device) -> dict[str, Any]:
    """What is measured on, and how busy it is before that."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        about = ""
    name = re.search(r"^model name\s*: (.+)$", about, re.MULTILINE)
    return {
        "cpu": name.group(1) if name else "unknown CPU",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in about],
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "load_before": os.getloadavg()[0],
    }


def _attempt(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a measurement gives, or in words why it gives nothing."""
    try:
        return run_apart(function, *arguments)
    except KernelLibError as error:
        return str(error)


def _has_fast_attention(job: Job) -> bool:
    return not job.folder or (
        read_config(Path(job.folder)).model_type == FAMILY_WITH_FAST_ATTENTION
    )


def _best_of(limits: list[Any]) -> dict[str, float]:
    measured = [each for each in limits if not isinstance(each, str)]
    return {name: max(each[name] for each in measured) for name in (measured or [{}])[0]}


def _end_to_end(job: Job, ways: list[Way], rounds: dict[str, list[Any]]) -> dict[str, Any]:
    found = {}
    for way in ways:
        failures = [each for each in rounds[way.name] if isinstance(each, str)]
        outcome = {"error": failures[0]} if failures else summarised(rounds[way.name])
        found[way.name] = {**dataclasses.asdict(way), **outcome}
    return {"job": job.name, "source": job.source, "ways": found}
