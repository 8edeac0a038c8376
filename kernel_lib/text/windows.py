"""Cutting a long sequence into overlapping windows, and which window answers for which unit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from kernel_lib.errors import SettingsError


def cut_windows(length: int, *, size: int, overlap: int) -> list[tuple[int, int]]:
    """Windows ``[start, stop)`` that cover ``0..length``, in order.

    All are ``size`` long, the last one moved back until it is full; a sequence that fits into one
    window, or is empty, gets the one window ``(0, length)``. A length of 25 with size 10 and
    overlap 4 gives ``[(0, 10), (6, 16), (12, 22), (15, 25)]``.

    Args:
        length: units (characters, tokens, words) in the sequence.
        size: the most units in a window.
        overlap: the fewest units that neighbours share.

    Raises:
        SettingsError: ``size`` is not positive, or ``overlap`` negative or not below ``size``.
    """
    if size < 1 or not 0 <= overlap < size:
        raise SettingsError(
            f"windows of size {size} cannot overlap by {overlap}: the size must be positive and "
            "the overlap from 0 to size - 1."
        )
    if length <= size:
        return [(0, length)]
    starts = [*range(0, length - size, size - overlap), length - size]
    return [(start, start + size) for start in starts]


def owner_spans(windows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """For each window the part ``[start, stop)`` of the sequence that is taken from it.

    Each unit is taken from the window in which it is farthest from a cut: neighbours meet in the
    middle of what they share, so at least half of the overlap lies between a unit and the next cut.
    The begin and the end of the sequence are no cuts. The parts tile the sequence: ``[(0, 10),
    (6, 16), (12, 22), (15, 25)]`` gives ``[(0, 8), (8, 14), (14, 18), (18, 25)]``.

    Args:
        windows: what :func:`cut_windows` gave.
    """
    if not windows:
        return []
    borders = [(left[1] + right[0]) // 2 for left, right in pairwise(windows)]
    return list(zip([windows[0][0], *borders], [*borders, windows[-1][1]], strict=True))
