"""A task that fails where a test wants it to, in worker processes only. They import it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pandas as pd

from kernel_lib.errors import TrainingError
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask


class FragileTask(RegressionTask):
    """Fails when it scores a certain row for the second time, so in the fold of this row.

    Args:
        settings: of the run.
        row: the row's id.
        fault: ``die``, ``die once`` or ``raise``.
        folder: a folder to keep count in.
    """

    def __init__(self, settings: RegressionSettings, row: str, fault: str, folder: Path) -> None:
        super().__init__(settings)
        self._row, self._fault, self._folder = row, fault, folder

    def scores(self, oof: pd.DataFrame) -> dict[str, float]:
        scores = super().scores(oof)
        in_a_worker = multiprocessing.parent_process() is not None
        if in_a_worker and self._row in set(oof[self.settings.id_column]):
            times = len(list(self._folder.iterdir()))
            (self._folder / str(times)).touch()
            if times == 1 or (times > 1 and self._fault != "die once"):
                self._fail()
        return scores

    def _fail(self) -> None:
        if self._fault == "raise":
            raise TrainingError("the gradients are not finite")
        os.kill(os.getpid(), signal.SIGKILL)
