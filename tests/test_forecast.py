"""What a fold is expected to take, and when it is left to another session."""

from __future__ import annotations

import pytest

from kernel_lib.config import TrainingSettings
from kernel_lib.runtime.clock import Clock
from kernel_lib.training.forecast import (
    GO_ON,
    KNOWN_AFTER_UPDATES,
    Pace,
    about,
    projection,
    reason_not_to_begin,
)
from kernel_lib.training.state import Progress

MINUTE, HOUR = 60, 3600


def stopped_clock(left_seconds: float) -> Clock:
    return Clock(left_seconds, now=lambda: 0.0)


def pace_after(updates: int, *, batches: int = 1000) -> Pace:
    pace = Pace(batches=batches, evaluations=4, evaluation_batches=10)
    for _ in range(updates):
        pace.count_update(2, 3.0)
    return pace


def test_the_first_update_warms_up_and_does_not_count() -> None:
    pace = pace_after(0)
    pace.count_update(2, 100.0)
    assert pace.batch_seconds == 50.0  # nothing better is known
    for _ in range(3):
        pace.count_update(2, 3.0)
    assert pace.batch_seconds == 1.5 and pace.update_seconds == 3.0


def test_an_evaluation_is_guessed_from_training_until_one_is_measured() -> None:
    pace = pace_after(3)
    assert pace.evaluation_seconds == 15.0
    pace.count_evaluation(40.0)
    pace.count_update(2, 3.0)
    assert pace.evaluation_seconds == 40.0


def test_a_fold_is_its_batches_and_evaluations() -> None:
    pace = pace_after(5)
    assert pace.fold_seconds == 1000 * 1.5 + 4 * 15.0
    half_done = Progress(history=[{}, {}])
    assert pace.left_seconds(half_done, 500) == 500 * 1.5 + 2 * 15.0


@pytest.mark.parametrize(("batches", "needed"), [(100, KNOWN_AFTER_UPDATES), (2000, 20)])
def test_the_pace_is_known_after_ten_updates_and_a_fiftieth_of_the_fold(batches, needed) -> None:
    assert not pace_after(needed - 1, batches=batches).is_known
    assert pace_after(needed, batches=batches).is_known


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (
            500 * MINUTE,
            "fold 0 takes about 38 min more, all 4 folds 2 h 32 min; the budget has 8 h 20 min "
            "left",
        ),
        (
            80 * MINUTE,
            "THE TIME BUDGET IS TOO SHORT: fold 0 takes about 38 min more, all 4 folds "
            "2 h 32 min; the budget has 1 h 20 min left. 2 of 4 folds will be finished; "
            f"then {GO_ON}",
        ),
        (
            20 * MINUTE,
            "THE TIME BUDGET IS TOO SHORT: fold 0 takes about 38 min more, all 4 folds "
            "2 h 32 min; the budget has 20 min left. Fold 0 will be stopped and saved before its "
            f"end; then {GO_ON}",
        ),
    ],
)
def test_the_projection_says_what_will_be_reached_and_what_to_do(left: float, expected) -> None:
    a_fold = 38 * MINUTE
    found = projection(
        0, fold_seconds=a_fold, left_seconds=a_fold, folds=4, clock=stopped_clock(left)
    )
    assert found == expected


def test_the_projection_of_the_last_fold_speaks_of_it_alone() -> None:
    found = projection(3, fold_seconds=HOUR, left_seconds=90, folds=1, clock=stopped_clock(HOUR))
    assert found == "fold 3 takes about 1 min 30 s more; the budget has 1 h 00 min left"


class NothingFinished:
    """A run with a fold that was only begun."""

    def finished_folds(self) -> list[int]:
        return []


@pytest.mark.parametrize(("left", "begun"), [(29.0, False), (31.0, True)])
def test_what_is_done_of_a_fold_is_counted_in_batches_of_unlike_epochs(left, begun: bool) -> None:
    """2 + 4 + 1 of 2 + 4 + 4 batches took 70 s: the last 3 take 30 s."""
    saved = Progress(epoch=2, batch=1, seconds=70.0)
    reason = reason_not_to_begin(
        NothingFinished(),
        saved,
        batches=(2, 4, 4),
        settings=TrainingSettings(),
        longest_seconds=0.0,
        clock=Clock(100.0, now=iter([0.0, *[100.0 - left] * 9]).__next__),
    )
    assert (reason == "") == begun
    assert begun or "the rest of it takes about 30 s and 29 s are left" in reason


@pytest.mark.parametrize(("left", "begun"), [(59.0, False), (61.0, True)])
def test_of_a_fold_begun_before_the_batches_with_two_passes_count_twice(left, begun: bool) -> None:
    """4 batches took 40 s, one pass each; the 3 that are left take two."""
    reason = reason_not_to_begin(
        NothingFinished(),
        Progress(epoch=1, batch=2, seconds=40.0),
        batches=(2, 5),
        settings=TrainingSettings(awp="two_pass", fgm_epsilon=0.0, awp_start_epoch=1.4),
        longest_seconds=0.0,
        clock=Clock(100.0, now=iter([0.0, *[100.0 - left] * 9]).__next__),
    )
    assert (reason == "") == begun
    assert begun or "the rest of it takes about 1 min 00 s" in reason


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.4, "4 s"), (119, "1 min 59 s"), (131, "2 min"), (2475, "41 min"), (9130, "2 h 32 min")],
)
def test_times_to_plan_with_are_rounded(seconds: float, expected: str) -> None:
    assert about(seconds) == expected


@pytest.mark.parametrize(
    ("folds", "left", "expected"),
    [
        (4, 500, "fold 0 takes about 38 min more, all 4 folds 1 h 16 min; the budget has 8 h 20 m"),
        (5, 500, "all 5 folds 1 h 54 min"),
        (1, 500, "fold 0 takes about 38 min more; the budget"),
        (4, 70, "TOO SHORT: fold 0 takes about 38 min more, all 4 folds 1 h 16 min; the budget h"),
        (4, 70, "2 of 4 folds will be finished"),
        (5, 80, "4 of 5 folds will be finished"),
        (3, 20, "Fold 0 will be stopped and saved before its end"),
    ],
)
def test_two_folds_at_a_time_take_half_as_long(folds: int, left: int, expected: str) -> None:
    line = projection(
        0,
        fold_seconds=38 * MINUTE,
        left_seconds=38 * MINUTE,
        folds=folds,
        clock=Clock(left * MINUTE, shared_by=2, now=lambda: 0.0),
    )
    assert expected in line
