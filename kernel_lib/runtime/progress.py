"""Progress bars that read well in a terminal and do not flood Kaggle's log."""

from __future__ import annotations

import os
import sys
from typing import Any

from tqdm import tqdm


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
    batch_run = os.environ.get("KAGGLE_KERNEL_RUN_TYPE") == "Batch"
    return tqdm(
        total=total,
        desc=description,
        initial=done,
        unit=unit,
        mininterval=30.0 if batch_run else 0.5,
        file=sys.stderr,
        dynamic_ncols=False,
        ncols=100,
    )
