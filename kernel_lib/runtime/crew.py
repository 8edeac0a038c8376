"""Jobs shared out over worker processes, a place each; one that fails takes no other with it.

The processes are spawned: one that has used a GPU or threads cannot be forked safely. Nothing is
shared between them but a pipe each to the parent, so any of them may be killed at any moment.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, Self

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.runtime.progress import JointBars
from kernel_lib.runtime.seat import END_SECONDS, Seat, pack
from kernel_lib.runtime.worker import (
    AWAKE,
    BAR,
    DONE,
    FAILED,
    LINE,
    NOTE,
    READY,
    Failure,
    Station,
    Work,
)

# A worker that says nothing for so long, before its first job or after the time is up, hangs.
SILENT_SECONDS = 600.0
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        job: the job.
        value: what the work returned.
        failure: why there is nothing; None: there is.
    """

    job: Any
    value: Any = None
    failure: Failure | None = None


NextJob = Callable[[], Any]
"""Gives the next job whenever a worker is free; None: there is none, for now."""


class Alone:
    """Does the jobs in this process, one after the other; an error is simply raised.

    Args:
        work: does a job.
        place: where.
        clock: the time budget.
        note: takes what the work notes.
    """

    def __init__(
        self, work: Work, place: Any, *, clock: Clock, note: Callable[[Any], object]
    ) -> None:
        self._work, self._station = work, Station(place, clock, note)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def outcomes(self, next_job: NextJob) -> Iterator[Outcome]:
        """Each job's outcome, before the next one is asked for."""
        while (job := next_job()) is not None:
            yield Outcome(job, self._work(job, self._station))


class Crew:
    """Does the jobs in worker processes, as many at a time as there are places.

    To be used in a ``with`` block: whatever ends it, the processes end with it.

    Args:
        work: does a job; it, the jobs and what it returns travel to other processes and back.
        places: one for each worker, such as its device.
        clock: the time budget of all of them together.
        name: what lines call a job; every line that it prints begins so.
        note: takes what the work notes.

    Raises:
        TrainingError: the work cannot be sent to another process.
    """

    def __init__(
        self,
        work: Work,
        places: Sequence[Any],
        *,
        clock: Clock,
        name: Callable[[Any], str],
        note: Callable[[Any], object],
    ) -> None:
        self._clock, self._name, self._note = clock, name, note
        self._bars = JointBars()
        packed = pack(work)
        self._seats = [Seat(number, place, packed) for number, place in enumerate(places)]
        self._returned: deque[Any] = deque()  # jobs of workers that did not even start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for seat in self._seats:
            seat.end(at_once=kind is not None or seat.job is not None)
        for seat in self._seats:
            if not seat.has_ended():
                self._bars.write(
                    f"the worker on {seat.place} did not end within {format_seconds(END_SECONDS)} "
                    "though all was done; killed"
                )
        self._bars.close()

    def outcomes(self, next_job: NextJob) -> Iterator[Outcome]:
        """Each job's outcome as it comes, until no job or no worker is left.

        A worker that dies or raises what is no :class:`KernelLibError` gets no other job. When one
        does not even start, its job goes to the others.

        Raises:
            TrainingError: no worker can be started at all.
        """
        self._hand_out(next_job)
        while any(seat.job is not None for seat in self._seats):
            for outcome in self._hear():
                if outcome:
                    self._bars.clear()
                    yield outcome
                self._hand_out(next_job)

    def _hand_out(self, next_job: NextJob) -> None:
        self._bars.clear()  # it may print
        for seat in self._seats:
            if seat.is_open and seat.job is None:
                job = self._returned.popleft() if self._returned else next_job()
                if job is None:
                    return
                seat.take(job, self._time())
                self._bars.write(f"{self._name(job)}: on {seat.place}")
        if not any(seat.is_open or seat.was_ready for seat in self._seats):
            causes = "; ".join(f"{seat.place}: {seat.why_closed}" for seat in self._seats)
            raise TrainingError(
                f"no worker process can be started ({causes}). Set devices=1 to do without."
            )

    def _hear(self) -> Iterator[Outcome | None]:
        """Waits until a worker says something, or is gone, and deals with it.

        Yields:
            The outcome of each job that is over; None for one that is to be done by another worker.
        """
        busy = [seat for seat in self._seats if seat.job is not None]
        connection.wait([thing for seat in busy for thing in seat.signs_of_life()], LOOK_SECONDS)
        for seat in busy:
            outcome = self._listen_to(seat)
            if seat.job is None:
                yield outcome

    def _listen_to(self, seat: Seat) -> Outcome | None:
        """Takes what a worker has said since; the outcome of its job, if that has ended."""
        for kind, value in seat.messages():
            if kind == AWAKE:
                seat.send_work()
            elif kind == READY:
                seat.send_job(self._time())
            elif kind == LINE:
                self._bars.write(self._marked(seat.job, value))
            elif kind == BAR:
                self._bars.show(seat.number, value)
            elif kind == NOTE:
                self._note(value)
            elif kind == DONE:
                return Outcome(seat.give_back(), value)
            elif kind == FAILED:
                return self._failed(seat, value)
        silent = time.monotonic() - seat.heard_at > SILENT_SECONDS
        if silent and not (seat.was_ready and self._clock.allows(0)):
            cause = f"its process said nothing for {format_seconds(SILENT_SECONDS)}"
            return self._failed(seat, Failure(cause))
        if seat.is_gone():
            return self._failed(seat, Failure(seat.how_it_ended(), has_died=True))
        return None

    def _failed(self, seat: Seat, failure: Failure) -> Outcome | None:
        """The outcome of a job that failed; None for one that was not begun."""
        self._bars.remove(seat.number)
        job = seat.give_back()
        if not (failure.is_known and seat.was_ready):
            seat.close(failure.cause)
        if not seat.was_ready:
            self._returned.append(job)
            self._bars.write(f"no worker on {seat.place}: {failure.cause}")
            return None
        self._bars.write(f"{self._name(job)}: FAILED: {failure.cause}")
        if failure.details:
            print(failure.details, file=sys.stderr, flush=True)
        return Outcome(job, failure=failure)

    def _time(self) -> dict[str, Any]:
        """What a worker's clock is made of: the same budget, used up to now."""
        return {
            "budget_seconds": self._clock.budget_seconds,
            "used_seconds": self._clock.elapsed_seconds,
            "shared_by": len(self._seats),
        }

    def _marked(self, job: Any, line: str) -> str:
        name = self._name(job)
        return line if line.startswith(name) else f"{name}: {line}"


def hire(
    work: Work,
    places: Sequence[Any],
    *,
    clock: Clock,
    name: Callable[[Any], str],
    note: Callable[[Any], object] = print,
) -> Alone | Crew:
    """A worker for each place; for a single one this process itself. The arguments are a crew's."""
    if len(places) == 1:
        return Alone(work, places[0], clock=clock, note=note)
    return Crew(work, places, clock=clock, name=name, note=note)
