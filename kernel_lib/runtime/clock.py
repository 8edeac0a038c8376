"""The time budget of a run: Kaggle ends a notebook at its limit and keeps what was saved."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """Counts down from a budget, from the moment it is made.

    Args:
        budget_seconds: how long the run may take.
        used_seconds: of it, before this clock was made; another process hands its clock on so.
        shared_by: how many processes spend the budget side by side.
        now: gives the time in seconds; the system's clock that nobody can set back.
    """

    def __init__(
        self,
        budget_seconds: float,
        *,
        used_seconds: float = 0.0,
        shared_by: int = 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.budget_seconds, self.shared_by = budget_seconds, shared_by
        self._now = now
        self._start = now() - used_seconds

    @property
    def elapsed_seconds(self) -> float:
        """Seconds of the budget that are used, from when its first clock was made."""
        return self._now() - self._start

    @property
    def left_seconds(self) -> float:
        """Seconds of the budget that are left; negative when it is overdrawn."""
        return self.budget_seconds - self.elapsed_seconds

    def allows(self, seconds: float) -> bool:
        """Whether something that takes ``seconds`` still fits."""
        return seconds <= self.left_seconds


def format_seconds(seconds: float) -> str:
    """Seconds for a reader: ``45 s``, ``12 min 30 s``, ``3 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
