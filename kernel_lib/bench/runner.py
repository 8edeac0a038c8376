"""What every way gives: its batches for an epoch, and the seconds that some of them take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kernel_lib.bench.essays import Job
from kernel_lib.bench.meters import Watch, timed
from kernel_lib.bench.models import build_model
from kernel_lib.bench.settings import BenchSettings
from kernel_lib.bench.ways import Way
from kernel_lib.runtime.device import Precision
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask

Rows = NDArray[np.int64]


class Runner(ABC):
    """Trains and predicts in one of the ways.

    Args:
        job: model and texts.
        way: which one.
        settings: of the benchmark.
        device: where.
    """

    has_fgm = True
    batches_cost_alike = False  # then half as many stand for an epoch as well

    def __init__(self, job: Job, way: Way, settings: BenchSettings, device: torch.device) -> None:
        self.job, self.way, self.settings, self.device = job, way, settings, device
        self.examples = job.examples
        self.lengths = [len(example.input_ids) for example in job.examples]
        self.model = build_model(job, attention=way.attention, seed=settings.seed).to(device)
        self.watch = Watch(self.model.backbone)
        self.task = RegressionTask(
            RegressionSettings(
                batch_tokens=settings.batch_size * settings.cap,
                eval_batch_tokens=settings.eval_batch_size * settings.cap,
                max_length=settings.cap,
                precision=way.training_precision,
                fgm_epsilon=0.2,  # for the phase that trains with it
            )
        )

    @abstractmethod
    def training_plan(self) -> list[Rows]:
        """The rows of each batch of an epoch."""

    @abstractmethod
    def inference_plan(self) -> list[Rows]:
        """The rows of each batch that predicting all texts takes."""

    @abstractmethod
    def _predict(self, batches: Sequence[Rows]) -> None:
        """Predicts the rows of these batches of the plan."""

    @abstractmethod
    def _train(self, batches: Sequence[Rows], *, fgm: bool) -> None:
        """An optimizer update from each of these batches of the plan."""

    def predict(self, batches: Sequence[Rows], warm_up: Rows) -> float:
        """Seconds that predicting these batches takes, after another that is not timed."""
        self._predict([warm_up])
        return self._timed(lambda: self._predict(batches))

    def train(self, batches: Sequence[Rows], warm_up: Rows, *, fgm: bool) -> float:
        """Seconds of an update from each of these batches, after another that is not timed."""
        self.model.train()
        self._train([warm_up], fgm=fgm)
        return self._timed(lambda: self._train(batches, fgm=fgm))

    def _timed(self, action: Callable[[], object]) -> float:
        self.watch.clear()
        return timed(action, self.device)

    def _precision(self, name: str) -> Precision:
        return Precision(name, self.device.type)


def representative(batches: Sequence[Rows], count: int, lengths: Sequence[int]) -> list[Rows]:
    """Some of an epoch's batches that stand for all of them, in their order.

    The batches are ranked by the mean length of their rows, the ranking is cut into ``count`` equal
    parts, and of each part the one in the middle is taken.
    """
    means = [float(np.mean([lengths[row] for row in rows])) for rows in batches]
    ranked = np.argsort(means, kind="stable")
    middles = {(2 * part + 1) * len(ranked) // (2 * count) for part in range(count)}
    return [batches[index] for index in sorted(ranked[list(middles)].tolist())]


def in_batches(order: Rows, size: int) -> list[Rows]:
    """So many rows a batch, in order; what is left over at the end is left out."""
    return [order[start : start + size] for start in range(0, len(order) - size + 1, size)]


def largest(batches: Sequence[Rows], lengths: Sequence[int]) -> Rows:
    """The batch with most positions, padding included: what it needs, the others have too."""
    return max(batches, key=lambda rows: len(rows) * max(lengths[row] for row in rows))
