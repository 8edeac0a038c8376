"""What runs in a worker process: it does one job after another and tells the parent everything.

Whatever it prints, its bars included, goes to the parent through a pipe of its own: a notebook does
not reliably show what a child prints, and a worker that is killed cannot leave a lock behind that
others wait for.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from typing import Any

from kernel_lib.errors import KernelLibError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.progress import send_bars

# What a worker says, each with a value: that it can take its work, that it can take a job, a line
# that was printed, a bar's state, something for the parent's ``note``, and how its job ended.
AWAKE, READY, LINE, BAR, NOTE, DONE, FAILED = (
    "awake",
    "ready",
    "line",
    "bar",
    "note",
    "done",
    "failed",
)


@dataclass(frozen=True)
class Station:
    """Where a job is done.

    Attributes:
        place: what the parent says of it, such as a device.
        clock: the time budget of the whole.
        note: takes what the parent is to know at once, such as a record to be logged.
    """

    place: Any
    clock: Clock
    note: Callable[[Any], object]


Work = Callable[[Any, Station], Any]
"""Does a job and returns what came of it."""


@dataclass(frozen=True)
class Failure:
    """Why a job came to nothing.

    Attributes:
        cause: in a line.
        is_known: it was an error of the kind that a user can cure.
        has_died: the process is gone without having raised anything.
        details: the traceback, where there is one.
    """

    cause: str
    is_known: bool = False
    has_died: bool = False
    details: str = ""


def serve(link: Any) -> None:
    """Does jobs until there are no more. After an error that nobody foresaw it does no other: a GPU
    that failed once fails every program that has used it.

    Args:
        link: the pipe to the parent. It gives the work and the place, then the jobs, each with what
            the clock says; None: no more.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent decides
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    tell = _Teller(link)
    sys.stdout = sys.stderr = lines = _Lines(lambda line: tell(LINE, line))
    send_bars(lambda bar: tell(BAR, bar))
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        tell(AWAKE)
        try:
            work, place = link.recv(), link.recv()
        except Exception as error:  # of any class: something of it cannot be made here
            tell(FAILED, describe_failure(error))
            return
        tell(READY)
        while (order := link.recv()) is not None:
            job, clock = order
            station = Station(place, Clock(**clock), lambda value: tell(NOTE, value))
            failure, value = _do(work, job, station)
            lines.end()
            if failure is None:
                tell(DONE, value)
                continue
            gc.collect()  # its frames held what the next job needs the memory for
            tell(FAILED, failure)
            if not failure.is_known:
                return


def _do(work: Work, job: Any, station: Station) -> tuple[Failure | None, Any]:
    """Does a job. Its error is gone when this returns."""
    try:
        return None, work(job, station)
    except BaseException as error:  # SystemExit too: nothing ends a worker without a word
        return describe_failure(error), None


def describe_failure(error: BaseException) -> Failure:
    """What the parent is told of an error."""
    text = " ".join(str(error).split())
    cause = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, KernelLibError):
        return Failure(cause, is_known=True)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (in {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return Failure(cause + where, details="".join(traceback.format_exception(error)))


class _Teller:
    """Sends to the parent, from any thread."""

    def __init__(self, link: Any) -> None:
        self._link, self._lock = link, threading.Lock()

    def __call__(self, kind: str, value: Any = None) -> None:
        with self._lock:
            self._link.send((kind, value))


class _Lines(io.TextIOBase):
    """A text stream whose lines are handed on, whole."""

    def __init__(self, hand_on: Callable[[str], None]) -> None:
        self._hand_on, self._rest = hand_on, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._hand_on(line.rsplit("\r", 1)[-1])
        return len(text)

    def writable(self) -> bool:
        return True

    def end(self) -> None:
        """Hands on what does not end in a line's end."""
        if self._rest:
            self.write("\n")


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would keep its GPU to itself."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
