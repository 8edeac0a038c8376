"""A worker process as its parent sees it."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import types
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.worker import Work, serve

START_METHOD = "spawn"
END_SECONDS = 30.0  # for a process to end when there is nothing left to do


class Seat:
    """A place in the crew, and the process that sits there.

    Attributes:
        job: that it is doing, or will do as soon as it can.
        was_ready: the process got as far as to take a job.
        heard_at: when it last said something.
        why_closed: why it gets no job any more; empty: it does.
    """

    def __init__(self, number: int, place: Any, packed_work: Any) -> None:
        self.number, self.place, self._packed_work = number, place, packed_work
        self.job: Any = None
        self.was_ready = False
        self.heard_at = 0.0
        self.why_closed = ""
        self._process: Any = None
        self._link: Any = None
        self._hung_up = False

    @property
    def is_open(self) -> bool:
        """Whether it can get another job."""
        return not self.why_closed

    def take(self, job: Any, clock: dict[str, Any]) -> None:
        """Gives the process a job; the first one starts it, and is sent when it is ready.

        Args:
            job: the job.
            clock: what the worker's clock is made of.
        """
        self.job, self.heard_at = job, time.monotonic()
        if self._process is None:
            self._start()
        else:
            self.send_job(clock)

    def give_back(self) -> Any:
        """The job, which is over."""
        job, self.job = self.job, None
        return job

    def send_work(self) -> None:
        """Tells the process what its work is."""
        with contextlib.suppress(OSError):  # that it is gone shows when it is listened to
            self._link.send_bytes(self._packed_work)
            self._link.send(self.place)

    def send_job(self, clock: dict[str, Any]) -> None:
        """Tells the process to begin its job; ``clock`` as for :meth:`take`."""
        self.was_ready = True
        with contextlib.suppress(OSError):
            self._link.send((self.job, clock))

    def messages(self) -> Iterator[tuple[str, Any]]:
        """What the process has said since."""
        try:
            while not self._hung_up and self._link.poll():
                message = self._link.recv()
                self.heard_at = time.monotonic()
                yield message
        except (EOFError, OSError):  # the end, also in the middle of a message
            self._hung_up = True

    def signs_of_life(self) -> list[Any]:
        """What to wait for."""
        return [self._process.sentinel, *([] if self._hung_up else [self._link])]

    def is_gone(self) -> bool:
        """Whether the process has ended, and all that it said is read."""
        return self._hung_up

    def how_it_ended(self) -> str:
        """In words."""
        self._process.join(END_SECONDS)
        code = self._process.exitcode
        if code is None:
            return "its process broke off"
        if code >= 0:
            return f"its process ended without a word (exit code {code})"
        hint = ", as the system does when the memory is full" if code == -signal.SIGKILL else ""
        return f"its process was killed ({signal.Signals(-code).name}{hint})"

    def close(self, why: str) -> None:
        """Gives it no job any more, and kills the process, if it is not dead yet."""
        self.why_closed = why
        self._process.kill()
        self._process.join(END_SECONDS)

    def end(self, *, at_once: bool) -> None:
        """Tells the process, if there is one, that there are no more jobs."""
        if self._process is None:
            return
        if at_once:
            self._process.kill()
        with contextlib.suppress(OSError):
            self._link.send(None)

    def has_ended(self) -> bool:
        """Whether the process, if there was one, ends by itself; if not, it is killed."""
        if self._process is None:
            return True
        self._process.join(END_SECONDS)
        by_itself = not self._process.is_alive()
        self._process.kill()
        self._link.close()
        return by_itself

    def _start(self) -> None:
        context: Any = multiprocessing.get_context(START_METHOD)
        self._link, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True)
        with _without_main():
            self._process.start()
        theirs.close()


def pack(work: Work) -> Any:
    """The work as it travels to the workers.

    Raises:
        TrainingError: it holds what another process could not make sense of.
    """
    try:
        with _without_main():
            return ForkingPickler.dumps(work)
    except Exception as error:  # of several classes
        raise TrainingError(
            f"this cannot be sent to worker processes: {error}. They do not know what a notebook "
            "or a script defines itself: put it into a file to be imported, or set devices=1."
        ) from error


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hides the program: a spawned process would import its file, and so run a script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
