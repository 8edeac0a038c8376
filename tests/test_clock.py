"""The time budget."""

from __future__ import annotations

import time

import pytest

from kernel_lib.runtime.clock import Clock, format_seconds


@pytest.fixture
def moment() -> list[float]:
    """The time, in a list so that a test can move it."""
    return [1000.0]


@pytest.fixture
def clock(moment) -> Clock:
    """A minute's budget on the clock that the test moves."""
    return Clock(60, now=lambda: moment[0])


def test_the_clock_counts_down_from_when_it_was_made(clock, moment) -> None:
    moment[0] += 45
    assert (clock.elapsed_seconds, clock.left_seconds) == (45, 15)


def test_what_just_fits_is_allowed_and_what_is_longer_is_not(clock, moment) -> None:
    moment[0] += 45
    assert clock.allows(15) and not clock.allows(15.1)


def test_an_overdrawn_clock_allows_nothing(clock, moment) -> None:
    moment[0] += 61
    assert clock.left_seconds == -1
    assert not clock.allows(0)


def test_setting_the_wall_clock_back_does_not_give_more_time(monkeypatch) -> None:
    clock = Clock(3600)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert 0 <= clock.elapsed_seconds < 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (750, "12 min 30 s"),
        (3599.7, "1 h 00 min"),
        (3600 * 3 + 5 * 60 + 59, "3 h 05 min"),
        (30 * 3600, "30 h 00 min"),
    ],
)
def test_seconds_read_well(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_clock_can_go_on_where_another_one_stands(moment) -> None:
    first = Clock(60, now=lambda: moment[0])
    moment[0] += 45
    second = Clock(60, used_seconds=first.elapsed_seconds, shared_by=2, now=lambda: moment[0])
    moment[0] += 5
    assert (second.elapsed_seconds, second.left_seconds) == (50, 10)
    assert (first.shared_by, second.shared_by) == (1, 2)
