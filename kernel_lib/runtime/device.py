"""The device, the precision it is good at, random states, and versions."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import platform
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kernel_lib.errors import SettingsError

REPORTED_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "scikit-learn")


@dataclass(frozen=True)
class Precision:
    """How the forward pass computes; weights are float32 whatever it says.

    Attributes:
        name: ``float32``, ``bf16`` or ``fp16``.
        device_type: ``cpu`` or ``cuda``.
    """

    name: str
    device_type: str

    @property
    def needs_scaler(self) -> bool:
        """fp16 gradients underflow without loss scaling; bf16 has float32's range."""
        return self.name == "fp16"

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Context of a forward pass."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)
        with torch.autocast(self.device_type, dtype=dtype, enabled=dtype is not None):
            yield


@dataclass(frozen=True)
class Place:
    """Where one of several processes computes.

    Attributes:
        device: a GPU of its own, or the CPU.
        threads: how many it may compute with; 0: as many as torch takes by itself.
    """

    device: torch.device
    threads: int = 0

    def __str__(self) -> str:
        return str(self.device)

    def occupy(self) -> torch.device:
        """Makes this process compute here. Returns the device."""
        if self.threads:
            torch.set_num_threads(self.threads)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)  # what names no GPU means this one
        return self.device


def pick_device() -> torch.device:
    """The first GPU that this torch can run on, else the CPU.

    Raises:
        SettingsError: there are GPUs, but torch was built without kernels for them.
    """
    return pick_devices(1)[0]


def pick_devices(wanted: int = 0) -> list[torch.device]:
    """The GPUs that this torch can run on, or, where there is no GPU, the CPU.

    Args:
        wanted: how many at most; 0: all GPUs. Without a GPU, the CPU as many times as wanted, for
            so many processes on it.

    Raises:
        SettingsError: as for :func:`pick_device`.
    """
    if not torch.cuda.is_available():
        return [torch.device("cpu")] * max(1, wanted)
    gpus = range(torch.cuda.device_count())
    usable = [gpu for gpu in gpus if torch.cuda.get_device_capability(gpu) >= _oldest_capability()]
    if not usable:
        major, minor = torch.cuda.get_device_capability(0)
        oldest = ".".join(map(str, _oldest_capability()))
        raise SettingsError(
            f"{torch.cuda.get_device_name(0)} has compute capability {major}.{minor}, but torch "
            f"{torch.__version__} starts at {oldest}. On Kaggle choose the accelerator "
            "GPU T4 x2."
        )
    if wanted > len(usable):
        print(f"devices={wanted}, but torch can use {len(usable)} here")
    return [torch.device("cuda", gpu) for gpu in usable[: wanted or None]]


def make_places(devices: Sequence[torch.device], jobs: int) -> list[Place]:
    """A place for each process, no more than there are jobs; the CPU's threads are shared out."""
    used = devices[: max(1, jobs)]
    if len(used) == 1:
        return [Place(used[0])]
    return [Place(device, max(1, torch.get_num_threads() // len(used))) for device in used]


def _oldest_capability() -> tuple[int, int]:
    """The oldest GPU that torch was built for."""
    built_for = [arch for arch in torch.cuda.get_arch_list() if arch.startswith("sm_")]
    oldest = min((int(arch.removeprefix("sm_").rstrip("af")) for arch in built_for), default=0)
    return oldest // 10, oldest % 10


def pick_precision(wanted: str, device: torch.device) -> Precision:
    """The precision to compute in.

    ``auto`` is bf16 where the hardware multiplies in it (CUDA capability 8.0 and up; CPUs with
    avx512_bf16 or amx_bf16), else fp16 with a loss scaler on GPUs, else float32. Capability is
    asked, not ``torch.cuda.is_bf16_supported()``: that counts emulation and says yes on a T4.

    Args:
        wanted: ``auto``, ``float32``, ``bf16`` or ``fp16``.
        device: where the forward pass runs.
    """
    if wanted != "auto":
        return Precision(wanted, device.type)
    if device.type == "cuda":
        has_bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return Precision("bf16" if has_bf16 else "fp16", device.type)
    return Precision("bf16" if _cpu_multiplies_bf16() else "float32", device.type)


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def keep_freed_memory() -> None:
    """Tells glibc to keep freed blocks instead of handing each large tensor back to the system.

    On a CPU half the time of a DeBERTa step is page faults without this. Does nothing where the
    C library is another one.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, (1 << 31) - 1)
        libc.mallopt(m_top_pad, 1 << 28)


def seed_everything(seed: int) -> None:
    """Seeds python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def random_states() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """All global generators' states: tensors of torch's, JSON values of python's and numpy's."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["cuda"] = torch.cuda.get_rng_state()
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    values = {
        "python": [version, list(internal), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
    }
    return tensors, values


def restore_random_states(tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
    """Puts back what :func:`random_states` gave."""
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
    version, internal, gauss = values["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = values["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))


def versions() -> dict[str, str]:
    """Python's and the main packages' versions, for the run's record."""
    found = {"python": platform.python_version()}
    for package in REPORTED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
