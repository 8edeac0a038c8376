"""The most memory that was in use at once, as the GPU's allocator or Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


class PeakMemory:
    """The most memory in use at once since this was made: the GPU's, or the process's.

    A GPU's count begins anew here. A process's never falls in its life: what it needed before is
    in it, so what needs less comes first.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._before: int | None = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = _status("VmRSS")

    def peak_bytes(self) -> int | None:
        """On a GPU that of this process's tensors; else all that the process had in main memory.
        None where it is not known."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return _status("VmHWM")

    def grown_bytes(self) -> int | None:
        """The peak so far beyond what was in use at the beginning; None where it is not known."""
        peak = self.peak_bytes()
        return None if peak is None or self._before is None else peak - self._before


def _status(name: str) -> int | None:
    """A figure of this process in bytes, as Linux gives it."""
    try:
        text = STATUS.read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return 1024 * int(found.group(1)) if found else None
