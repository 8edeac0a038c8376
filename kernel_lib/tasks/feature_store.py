"""What took long to compute from texts, kept in this process for whoever asks for the same."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from kernel_lib.config import digest
from kernel_lib.text.ngrams import NGramCounts

MOST_BYTES = 4 << 30  # a few thousand essays take 4 to 100 MB a result
NAME_BYTES = 8 + sys.getsizeof("n" * 10)  # of an n-gram in a list

Kept = TypeVar("Kept")


class FeatureStore:
    """Keeps results by what they were made of; beyond so many bytes, all together, the one that was
    not asked for longest goes first.

    Folds of a run share them so, and runs that read the same encoder in the same way. It is bound
    by bytes, not by a number: runs take turns at inference, and a store that holds fewer results
    than they need together would never have the one that is asked for.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.seconds = 0.0
        """Spent on making what was not there, by all calls together."""
        self._most_bytes = most_bytes
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
        while len(self._kept) > 1 and sum(map(bytes_of, self._kept.values())) > self._most_bytes:
            self._kept.popitem(last=False)
        found: Kept = self._kept[key]
        return found


def bytes_of(result: Any) -> int:
    """About how much memory a result takes, the names of its n-grams as if all were ten long."""
    if isinstance(result, NGramCounts):
        matrix = result.matrix
        parts = (matrix.data, matrix.indices, matrix.indptr)
        return sum(part.nbytes for part in parts) + len(result.names) * NAME_BYTES
    return int(result.nbytes) if isinstance(result, np.ndarray) else sys.getsizeof(result)


STORE = FeatureStore()
