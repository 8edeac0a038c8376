"""Windows cover a sequence, and each unit is taken from where it is farthest from a cut."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.text.windows import cut_windows, owner_spans

GRID = [
    (length, size, overlap)
    for length in (*range(0, 40), 97, 128, 509, 510, 511, 1000)
    for size in (1, 2, 3, 7, 10, 16, 128, 510)
    for overlap in {0, 1, 2, size // 4, size // 2, size - 2, size - 1}
    if 0 <= overlap < size
]


def distance(window: tuple[int, int], unit: int, length: int) -> int:
    """How many units of the window lie between a unit and the next cut; the ends are no cuts."""
    start, stop = window
    left = unit - start if start else length
    right = stop - 1 - unit if stop < length else length
    return min(left, right)


def test_the_worked_example() -> None:
    windows = cut_windows(25, size=10, overlap=4)
    assert windows == [(0, 10), (6, 16), (12, 22), (15, 25)]
    assert owner_spans(windows) == [(0, 8), (8, 14), (14, 18), (18, 25)]


@pytest.mark.parametrize("length", [0, 1, 9, 10])
def test_what_fits_is_one_window(length: int) -> None:
    assert cut_windows(length, size=10, overlap=4) == [(0, length)]
    assert owner_spans([(0, length)]) == [(0, length)]


def test_one_unit_more_makes_a_second_full_window() -> None:
    assert cut_windows(11, size=10, overlap=4) == [(0, 10), (1, 11)]


def test_a_last_window_that_is_full_already_is_not_made_twice() -> None:
    assert cut_windows(16, size=10, overlap=4) == [(0, 10), (6, 16)]


def test_windows_cover_are_full_and_share_enough() -> None:
    for length, size, overlap in GRID:
        windows = cut_windows(length, size=size, overlap=overlap)
        case = (length, size, overlap, windows)
        assert windows[0][0] == 0 and windows[-1][1] == length, case
        if length > size:
            assert all(stop - start == size for start, stop in windows), case
        else:
            assert windows == [(0, length)], case
        for left, right in pairwise(windows):
            assert left[0] < right[0] and left[1] - right[0] >= overlap, case
        step = size - overlap  # and there are no more of them than needed
        assert len(windows) == max(1, -(-(length - size) // step) + 1), case


def test_owner_spans_tile_and_are_farthest_from_a_cut() -> None:
    for length, size, overlap in GRID:
        windows = cut_windows(length, size=size, overlap=overlap)
        spans = owner_spans(windows)
        case = (length, size, overlap, windows, spans)
        assert len(spans) == len(windows), case
        assert [unit for start, stop in spans for unit in range(start, stop)] == [*range(length)]
        if length > 200 and size < 100:
            continue  # the same, only slower
        for window, (start, stop) in zip(windows, spans, strict=True):
            for unit in range(start, stop):
                inside = [w for w in windows if w[0] <= unit < w[1]]
                best = max(distance(w, unit, length) for w in inside)
                assert window in inside, case
                assert distance(window, unit, length) == best, (case, unit)
                assert len(windows) == 1 or best >= overlap // 2, (case, unit)


def test_no_windows_own_nothing() -> None:
    assert owner_spans([]) == []


@pytest.mark.parametrize(("size", "overlap"), [(10, 10), (10, 11), (10, -1), (0, 0), (-3, 0)])
def test_windows_that_cannot_be_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(SettingsError, match=f"size {size} cannot overlap by {overlap}"):
        cut_windows(100, size=size, overlap=overlap)
