"""Which fold of which run is predicted next, and what became of those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernel_lib.errors import TrainingError
from kernel_lib.results.members import Member
from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.runtime.crew import Outcome
from kernel_lib.runtime.worker import Failure


@dataclass(frozen=True)
class Visit:
    """A fold of a run, to be predicted with.

    Attributes:
        member: the number of its run, the best one's is 0.
        fold: its number.
        name: what lines call it.
    """

    member: int
    fold: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Prediction:
    """What came of a visit.

    Attributes:
        values: settled; None: the clock ended it.
        seconds: spent on it.
        more_seconds: that it would have taken at the very least.
    """

    values: NDArray[np.float32] | None
    seconds: float
    more_seconds: float = 0.0


class Plan:
    """The visits in their order, and what has become of them.

    Args:
        members: the runs, the best first.
        visits: of folds of these.
        clock: the time budget.
    """

    def __init__(
        self, members: Sequence[Member], visits: Sequence[tuple[Member, int]], clock: Clock
    ) -> None:
        self._members, self._clock = members, clock
        numbers = {id(member): number for number, member in enumerate(members)}
        self._waiting = deque(
            Visit(numbers[id(member)], fold, f"{member.name} fold {fold}")
            for member, fold in visits
        )
        self._failures: dict[Visit, Failure] = {}

    def next_visit(self) -> Visit | None:
        """The next fold that the clock holds; those that it does not hold are skipped, with a line
        that says so. None: there is none, or the time is up."""
        while self._waiting and self._clock.allows(0):
            visit = self._waiting.popleft()
            needed = self._members[visit.member].fold_seconds
            if self._clock.allows(needed):
                return visit
            left = format_seconds(self._clock.left_seconds)
            print(f"{visit}: skipped, needs about {format_seconds(needed)}, {left} left")
        return None

    def count(self, outcome: Outcome) -> bool:
        """Takes note of how a visit ended. One whose process died is tried a second time.

        Returns:
            Whether there is a prediction more than before.
        """
        visit, failure = outcome.job, outcome.failure
        if failure:
            if failure.has_died and visit not in self._failures:
                self._waiting.append(visit)
            self._failures[visit] = failure
            return False
        self._failures.pop(visit, None)
        member, found = self._members[visit.member], outcome.value
        member.fold_seconds = found.seconds + found.more_seconds
        if found.values is None:
            self._print_dropped(visit, found)
            return False
        member.predictions[visit.fold] = found.values
        return True

    def _print_dropped(self, visit: Visit, found: Prediction) -> None:
        if self._clock.allows(0):
            why = f"needs at least {format_seconds(found.more_seconds)} more"
            why += f", {format_seconds(self._clock.left_seconds)} left"
        else:
            why = "the time budget is used up"
        print(f"{visit}: dropped after {format_seconds(found.seconds)}, {why}")

    def print_outcome(self, members: Sequence[Member]) -> None:
        """Prints what the submission is made of and, loudly, what it is not.

        Args:
            members: in the order to name them in.
        """
        total = sum(len(member.folds) for member in members)
        done = sum(len(member.predictions) for member in members)
        failed = len(self._failures)
        reasons = []
        if total - done > failed:
            budget = format_seconds(self._clock.budget_seconds)
            late = total - done - failed
            reasons.append(f"{late} of {total} did not fit in the time budget of {budget}")
        if failed:
            reasons.append(f"{failed} of {total} failed")
        if reasons:
            rest = "the folds that were done"
            if not done:
                rest = "no model's prediction, only the first guess"
            print(f"NOT ALL FOLDS: {' and '.join(reasons)}; the submission holds {rest}")
        print(f"folds used: {'; '.join(map(self._used, members))}")

    def _used(self, member: Member) -> str:
        failed = {visit.fold for visit in self._failures if self._members[visit.member] is member}
        late = set(member.folds) - set(member.predictions) - failed
        parts = [f"{member.name}: {_listed(member.predictions) or 'none'}"]
        parts += [f"({_listed(late)} skipped: time)"] if late else []
        parts += [f"({_listed(failed)} FAILED)"] if failed else []
        return " ".join(parts)

    def raise_failures(self) -> None:
        """Raises TrainingError for what a user can cure, and when nothing at all was predicted.

        A process that died or met an error of another kind has cost its fold, and no more: a
        submission without it is better than none.
        """
        any_done = any(member.predictions for member in self._members)
        told = {v: why for v, why in self._failures.items() if why.is_known or not any_done}
        if told:
            raise TrainingError("; ".join(f"{visit}: {why.cause}" for visit, why in told.items()))


def _listed(folds: Iterable[int]) -> str:
    return " ".join(map(str, sorted(folds)))
