"""What took long to compute from texts, kept in this process for whoever asks for the same."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kernel_lib.config import digest

MOST_KEPT = 16  # of 4 to 100 MB each for a few thousand essays

Kept = TypeVar("Kept")


class FeatureStore:
    """Keeps results by what they were made of; the one that was not asked for longest goes first.

    Folds of a run share them so, and runs that read the same encoder in the same way.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.seconds = 0.0
        """Spent on making what was not there, by all calls together."""
        self._most = most
        self._kept: OrderedDict[str, Any] = OrderedDict()

    def get(self, made_of: Sequence[Any], make: Callable[[], Kept]) -> Kept:
        """What is kept under these values, or what ``make`` gives; when that raises, nothing is.

        Args:
            made_of: everything the result depends on, ready for JSON.
            make: makes it.
        """
        key = digest(list(made_of))
        if key not in self._kept:
            began = time.monotonic()
            self._kept[key] = make()
            self.seconds += time.monotonic() - began
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        found: Kept = self._kept[key]
        return found


STORE = FeatureStore()
