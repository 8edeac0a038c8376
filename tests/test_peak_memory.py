"""The most memory in use at once, as Linux counts it for a process."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from kernel_lib.runtime import peak_memory
from kernel_lib.runtime.peak_memory import PeakMemory

CPU = torch.device("cpu")
MEBIBYTE = 2**20


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells it so")
def test_the_peak_is_never_below_what_is_in_use() -> None:
    memory = PeakMemory(CPU)
    before = memory.peak_bytes()
    assert before is not None and before > 10 * MEBIBYTE
    in_use_then = resident_bytes()
    held = torch.ones(64 * MEBIBYTE)
    in_use = resident_bytes()
    peak, grown = memory.peak_bytes(), memory.grown_bytes()
    assert held.nbytes <= in_use  # some of it may have been the process's before, and free
    assert peak is not None and peak >= max(before, in_use - MEBIBYTE)
    # More than was in use then, whether or not it was more than ever before.
    assert grown is not None and grown >= in_use - in_use_then - MEBIBYTE


def resident_bytes() -> int:
    """What the process has in main memory now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize()


def test_kibibytes_become_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = tmp_path / "status"
    monkeypatch.setattr(peak_memory, "STATUS", status)
    status.write_text("Name:\tpython\nVmHWM:\t    300 kB\nVmRSS:\t     100 kB\n")
    memory = PeakMemory(CPU)
    assert memory.peak_bytes() == 300 * 1024 and memory.grown_bytes() == 200 * 1024
    status.write_text("VmHWM:\t    500 kB\nVmRSS:\t     90 kB\n")
    assert memory.peak_bytes() == 500 * 1024 and memory.grown_bytes() == 400 * 1024


def test_where_nobody_counts_it_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "STATUS", Path("/proc/none/of/it"))
    memory = PeakMemory(CPU)
    assert memory.peak_bytes() is None and memory.grown_bytes() is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_its_tensors_from_then_on() -> None:
    device = torch.device("cuda")
    torch.ones(64 * MEBIBYTE, device=device)
    memory = PeakMemory(device)
    held = torch.ones(8 * MEBIBYTE, device=device)
    peak = memory.peak_bytes()
    assert peak is not None and held.nbytes <= peak < 64 * MEBIBYTE * 4
