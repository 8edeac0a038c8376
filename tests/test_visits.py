"""Which fold of which run is predicted next, and what is told of those that were not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernel_lib.errors import TrainingError
from kernel_lib.results.members import Member, in_rounds
from kernel_lib.results.visits import Plan, Prediction, Visit
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.crew import Outcome
from kernel_lib.runtime.worker import Failure

KILLED = Failure("its process was killed (SIGKILL)", has_died=True)
BROKEN = Failure("RuntimeError: the GPU fell off (in somewhere.py:1)")
KNOWN = Failure("TrainingError: not finite", is_known=True)


@pytest.fixture
def members() -> list[Member]:
    """Two runs, the better one with two folds."""
    task: Any = None
    folder: Any = Path()
    return [
        Member("a", [], dict.fromkeys((0, 1), folder), task),
        Member("b", [], {3: folder}, task),
    ]


@pytest.fixture
def moment() -> list[float]:
    """The time, in a list so that a test can move it."""
    return [0.0]


@pytest.fixture
def plan(members: list[Member], moment: list[float]) -> Plan:
    return Plan(members, in_rounds(members), Clock(100, now=lambda: moment[0]))


def predicted(visit: Visit | None, seconds: float = 10) -> Outcome:
    return Outcome(visit, Prediction(np.zeros((2, 1), np.float32), seconds))


def test_several_visits_can_be_under_way_at_once(plan: Plan, members: list[Member]) -> None:
    first, second, third = (plan.next_visit() for _ in range(3))
    assert [str(v) for v in (first, second, third)] == ["a fold 0", "b fold 3", "a fold 1"]
    assert plan.next_visit() is None
    assert plan.count(predicted(second)) and plan.count(predicted(third))
    assert list(members[0].predictions) == [1] and list(members[1].predictions) == [3]


def test_what_a_fold_took_decides_about_the_next_of_its_run(
    plan: Plan, moment: list[float], capsys
) -> None:
    first, _ = plan.next_visit(), plan.next_visit()
    moment[0] = 60
    plan.count(predicted(first, 60))
    assert plan.next_visit() is None
    assert capsys.readouterr().out == "a fold 1: skipped, needs about 1 min 00 s, 40 s left\n"


def test_a_visit_whose_process_died_comes_back_once(plan: Plan, members: list[Member]) -> None:
    first = plan.next_visit()
    assert not plan.count(Outcome(first, failure=KILLED))
    rest = [plan.next_visit() for _ in range(3)]
    assert rest[-1] == first
    assert not plan.count(Outcome(first, failure=KILLED))
    assert plan.next_visit() is None
    plan.count(predicted(rest[0]))
    plan.raise_failures()  # there is a submission


def test_the_second_try_counts(plan: Plan, members: list[Member], capsys) -> None:
    for _ in range(3):
        visit = plan.next_visit()
        plan.count(predicted(visit) if str(visit) != "a fold 0" else Outcome(visit, failure=KILLED))
    assert plan.count(predicted(plan.next_visit()))
    plan.print_outcome(members)
    assert capsys.readouterr().out == "folds used: a: 0 1; b: 3\n"


def test_what_was_left_out_is_told_with_the_reason(
    plan: Plan, members: list[Member], moment: list[float], capsys
) -> None:
    first, second = plan.next_visit(), plan.next_visit()
    plan.count(Outcome(first, failure=BROKEN))
    plan.count(predicted(second))
    moment[0] = 101
    assert plan.next_visit() is None
    plan.print_outcome(members)
    out = capsys.readouterr().out
    assert out == (
        "NOT ALL FOLDS: 1 of 3 did not fit in the time budget of 1 min 40 s and 1 of 3 failed; the "
        "submission holds the folds that were done\n"
        "folds used: a: none (1 skipped: time) (0 FAILED); b: 3\n"
    )
    plan.raise_failures()


@pytest.mark.parametrize("failure", [KILLED, BROKEN, KNOWN])
def test_when_nothing_was_predicted_the_causes_are_raised(plan: Plan, failure: Failure) -> None:
    plan.count(Outcome(plan.next_visit(), failure=failure))
    with pytest.raises(TrainingError) as caught:
        plan.raise_failures()
    assert str(caught.value) == f"a fold 0: {failure.cause}"


def test_what_a_user_can_cure_is_raised_when_all_else_is_done(plan: Plan) -> None:
    first, second, third = (plan.next_visit() for _ in range(3))
    plan.count(Outcome(first, failure=KNOWN))
    plan.count(Outcome(second, failure=BROKEN))
    plan.count(predicted(third))
    with pytest.raises(TrainingError) as caught:
        plan.raise_failures()
    assert str(caught.value) == "a fold 0: TrainingError: not finite"
