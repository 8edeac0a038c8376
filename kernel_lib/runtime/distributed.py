"""Several processes that train one fold together: the place of each, and what they tell each other.

``torchrun`` starts them and tells each its place in the environment. Gradients go from device to
device, by nccl between GPUs; what the processes agree on goes from memory to memory, by gloo, and
no GPU is waited for. A process alone is a world of one, in which all of this does nothing, so that
the code that uses it reads the same.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from kernel_lib.errors import SettingsError
from kernel_lib.runtime.device import pick_devices
from kernel_lib.runtime.progress import send_bars

T = TypeVar("T")
PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
MEETING = ("MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(minutes=30)  # a process that is not heard of for so long is given up
ROOM_NUMBERS = 1 << 22  # small tensors are added up together, in pieces of 16 MB


@dataclass(frozen=True)
class World:
    """The processes that share the work, and the place of this one among them.

    What says "all processes" below must be called by all of them, in the same order.

    Attributes:
        rank: number of this process, from 0; the first one writes and prints.
        size: how many there are.
        device: of this process; that of a process alone is chosen elsewhere.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _room: Tensor = field(default_factory=lambda: torch.empty(0), repr=False, compare=False)

    @classmethod
    def single(cls) -> World:
        """A process alone."""
        return cls()

    @classmethod
    def enter(cls) -> World:
        """The world that torchrun made, or this process alone.

        All but the first process are silent from here on, except for errors.

        Raises:
            SettingsError: the environment is incomplete, or there are too few GPUs.
        """
        if os.environ.get("WORLD_SIZE", "1") == "1":
            return cls.single()
        missing = [name for name in (*PLACE, *MEETING) if name not in os.environ]
        if missing:
            raise SettingsError(
                f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set in the environment, but not "
                f"{', '.join(missing)}. Start with torchrun, or unset WORLD_SIZE."
            )
        rank, size, local_rank = (int(os.environ[name]) for name in PLACE)
        devices = pick_devices()
        device, backend = devices[0], "gloo"
        if device.type == "cuda":
            if local_rank >= len(devices):
                raise SettingsError(
                    f"torchrun started process {local_rank} (from 0) on a machine with "
                    f"{len(devices)} usable GPUs. Set --nproc-per-node to that number."
                )
            device, backend = devices[local_rank], "cpu:gloo,cuda:nccl"
            torch.cuda.set_device(device)
        if not distributed.is_initialized():
            distributed.init_process_group(backend, rank=rank, world_size=size, timeout=PATIENCE)
        if rank:
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
            send_bars(lambda bar: None)
        return cls(rank, size, device, torch.empty(ROOM_NUMBERS, device=device))

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def share(self, rows: NDArray[Any]) -> NDArray[Any]:
        """This process's rows of some that all have: every ``size``-th. The first has the most."""
        return rows[self.rank :: self.size]

    def any(self, flag: bool) -> bool:
        """Whether a flag is up in any of all processes, each of which waits for the others."""
        return self.any_of([flag])[0]

    def any_of(self, flags: Sequence[bool]) -> list[bool]:
        """:meth:`any` for several flags at once."""
        if self.size == 1:
            return list(flags)
        up = torch.tensor(flags, dtype=torch.uint8)
        distributed.all_reduce(up, distributed.ReduceOp.MAX)
        return [bool(flag) for flag in up.tolist()]

    def decide(self, choice: bool) -> bool:
        """The first process's choice, for all processes: clocks differ."""
        return self.any(choice and self.is_first)

    def agrees(self, text: str) -> bool:
        """Whether all processes give the same text."""
        digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint8)
        digests = self.gather(torch.from_numpy(digest.copy()))
        return all(torch.equal(digests[0], other) for other in digests)

    def in_turn(self, action: Callable[[], T]) -> T:
        """Does something in the first process, then in the others, which find it done."""
        if self.is_first:
            result = action()
            self.wait()
        else:
            self.wait()
            result = action()
        return result

    def wait(self) -> None:
        """Goes on when all processes have come here."""
        self.any(False)

    def sum_(self, tensors: Iterable[Tensor]) -> None:
        """Puts sums over all processes in the place of float32 tensors, the same bits everywhere.

        No memory is asked for, so that none can be missing when the others have begun.
        """
        if self.size == 1:
            return
        together: list[Tensor] = []
        numbers = 0
        for tensor in tensors:
            if tensor.numel() > ROOM_NUMBERS:
                distributed.all_reduce(tensor)
                continue
            if numbers + tensor.numel() > ROOM_NUMBERS:
                self._sum_together(together, numbers)
                together, numbers = [], 0
            together.append(tensor)
            numbers += tensor.numel()
        self._sum_together(together, numbers)

    def _sum_together(self, tensors: list[Tensor], numbers: int) -> None:
        """:meth:`sum_` of small tensors, side by side."""
        if not tensors:
            return
        room = self._room[:numbers]
        places = room.split([tensor.numel() for tensor in tensors])
        for place, tensor in zip(places, tensors, strict=True):
            place.copy_(tensor.flatten())
        distributed.all_reduce(room)
        for place, tensor in zip(places, tensors, strict=True):
            tensor.copy_(place.view_as(tensor))

    def copy_first_(self, tensors: Iterable[Tensor]) -> None:
        """Puts the first process's tensors in the place of all processes'."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, src=0)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """A tensor of each of all processes, of the same shape, in the memory of the machine."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(found, tensor)
        return found

    def gather_shares(self, mine: NDArray[Any], total: int) -> NDArray[Any]:
        """Puts together what all processes have for their :meth:`share` of ``total`` rows.

        Args:
            mine: ``(rows of the share, ...)``; what follows them is left out.
            total: how many rows there are.
        """
        if self.size == 1:
            return mine[:total]
        padded = np.zeros((-(-total // self.size), *mine.shape[1:]), mine.dtype)
        count = len(range(self.rank, total, self.size))
        padded[:count] = mine[:count]
        whole = np.empty((total, *mine.shape[1:]), mine.dtype)
        for rank, part in enumerate(self.gather(torch.from_numpy(padded))):
            place = whole[rank :: self.size]
            place[:] = part.numpy()[: len(place)]
        return whole

    def leave(self) -> None:
        """Ends the world, once all processes are done: only the first goes on, alone."""
        if self.size == 1:
            return
        self.wait()
        distributed.destroy_process_group()
        if not self.is_first:
            raise SystemExit(0)
        for name in (*PLACE, *MEETING):
            os.environ.pop(name, None)
