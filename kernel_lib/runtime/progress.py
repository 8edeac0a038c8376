"""Progress bars that read well in a terminal and do not flood Kaggle's log.

A process that works for another shows no bar itself: it sends the bar's state, and the other shows
the bars of all of them in one line.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from tqdm import tqdm

WIDTH = 100  # characters of a line

_send_elsewhere: Callable[[BarState], object] | None = None


def progress_bar(total: int, description: str, *, done: int = 0, unit: str = "batch") -> Any:
    """A bar with counts, speed and time left, on standard error.

    Kaggle's batch runs keep every redrawing as a line of the log, so there the bar moves only
    twice a minute.

    Args:
        total: how many steps the whole takes.
        description: stands before the bar.
        done: steps that an earlier session has done.
        unit: what a step is.
    """
    if _send_elsewhere:
        return SentBar(total, description, done=done, unit=unit, send=_send_elsewhere)
    return tqdm(
        total=total,
        desc=description,
        initial=done,
        unit=unit,
        mininterval=_redraw_seconds(),
        file=sys.stderr,
        dynamic_ncols=False,
        ncols=WIDTH,
    )


def send_bars(send: Callable[[BarState], object]) -> None:
    """From now on the bars of this process are shown by another, which ``send`` tells of them."""
    global _send_elsewhere
    _send_elsewhere = send


@dataclass(frozen=True)
class BarState:
    """A bar at a moment.

    Attributes:
        description: stands before the bar.
        total: how many steps the whole takes.
        done: so many are done,
        before: and so many of these in an earlier session.
        seconds: since the bar began.
        unit: what a step is.
        note: stands behind the bar.
        closed: it will not change any more.
    """

    description: str
    total: int
    done: int
    before: int
    seconds: float
    unit: str
    note: str
    closed: bool

    def texts(self) -> tuple[str, str, str]:
        """The bar, shorter and shorter: ``fold 0:  35% 120/340 [01:10<02:09, 1.71 batch/s, loss
        0.1234, best 0.5]``, ``fold 0:  35% 120/340 [01:10<02:09, loss 0.1234]``, ``fold 0:  35%``.
        """
        here = self.done - self.before
        rate = here / self.seconds if self.seconds > 0 else 0.0
        left = tqdm.format_interval((self.total - self.done) / rate) if rate else "?"
        speed = ""
        if rate:
            speed = f"{rate:.2f} {self.unit}/s" if rate >= 1 else f"{1 / rate:.2f} s/{self.unit}"
        times = f"{tqdm.format_interval(self.seconds)}<{left}"
        start = f"{self.description}: {100 * self.done // max(1, self.total):3d}%"
        inside = (
            ", ".join(filter(None, parts))
            for parts in ((times, speed, self.note), (times, self.note.split(",")[0]))
        )
        long, middle = (f"{start} {self.done}/{self.total} [{text}]" for text in inside)
        return long, middle, start


class SentBar:
    """What of tqdm's bar is used here, for one that another process shows."""

    def __init__(
        self,
        total: int,
        description: str,
        *,
        done: int,
        unit: str,
        send: Callable[[BarState], object],
    ) -> None:
        self.n = done
        self._total, self._description, self._unit = total, description, unit
        self._before, self._note, self._send = done, "", send
        self._began = time.monotonic()
        self._closed = False
        self._sent = -1.0
        self._tell()

    def update(self, n: int = 1) -> None:
        """So many steps more are done."""
        self.n += n
        if time.monotonic() - self._sent >= 0.5:
            self._tell()

    def set_postfix_str(self, note: str, refresh: bool = True) -> None:
        """What stands behind the bar; goes with the next step unless ``refresh``."""
        self._note = note
        if refresh:
            self._tell()

    def write(self, line: str) -> None:
        """Prints a line."""
        print(line)

    def close(self) -> None:
        """Ends it."""
        if not self._closed:
            self._closed = True
            self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _tell(self) -> None:
        self._sent = time.monotonic()
        self._send(
            BarState(
                description=self._description,
                total=self._total,
                done=self.n,
                before=self._before,
                seconds=self._sent - self._began,
                unit=self._unit,
                note=self._note,
                closed=self._closed,
            )
        )


class JointBars:
    """The bars of several processes, in one line on standard error.

    One line, since a notebook's output and Kaggle's log know how to go back to its beginning, but
    not how to go up to another one.
    """

    def __init__(self) -> None:
        self._bars: dict[int, BarState] = {}
        self._drawn_at = -1e9
        self._width = 0  # of what stands there now

    def show(self, key: int, bar: BarState) -> None:
        """Takes a bar's new state.

        Args:
            key: of the process; the bars stand in this order.
            bar: where it is; one that is closed stays as a line of its own.
        """
        if bar.closed:
            self.remove(key)
            self.clear()
            print(bar.texts()[0], file=sys.stderr, flush=True)
            return
        self._bars[key] = bar
        if time.monotonic() - self._drawn_at >= _redraw_seconds():
            self._draw()

    def remove(self, key: int) -> None:
        """Forgets the bar of a process that is gone."""
        self._bars.pop(key, None)

    def write(self, line: str) -> None:
        """Prints a line; the bars come back below it."""
        self.clear()
        print(line, flush=True)

    def clear(self) -> None:
        """Makes room for a line that somebody prints."""
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
            self._width = 0

    def close(self) -> None:
        """Takes the bars away."""
        self._bars.clear()
        self.clear()

    def _draw(self) -> None:
        bars = [self._bars[key].texts() for key in sorted(self._bars)]
        lines = ["  ".join(texts) for texts in zip(*bars, strict=True)]
        text = next((line for line in lines if len(line) <= WIDTH), lines[-1][:WIDTH])
        sys.stderr.write("\r" + text.ljust(self._width))
        sys.stderr.flush()
        self._width, self._drawn_at = len(text), time.monotonic()


def _redraw_seconds() -> float:
    return 30.0 if os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch" else 0.5
