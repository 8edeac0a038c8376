"""This kit's way, through the very functions that its notebooks call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch

from kernel_lib.bench.runner import Rows, Runner
from kernel_lib.runtime.clock import Clock
from kernel_lib.text.order import inference_batches, training_order
from kernel_lib.training.optimizer import make_optimizer, make_schedule, parameter_groups
from kernel_lib.training.prediction import predict
from kernel_lib.training.state import Progress, TrainingState
from kernel_lib.training.task import Machine
from kernel_lib.training.update import Updater

MANY_UPDATES = 10_000


class KitRunner(Runner):
    """Batches of like length, autocast in training and inference, FGM on the used rows."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._updater: Updater | None = None
        self._fgm: Any = None

    def training_plan(self) -> list[Rows]:
        return training_order(self.examples, self.task.settings, fold=0).batches(0)

    def inference_plan(self) -> list[Rows]:
        return inference_batches(self.lengths, batch_tokens=self.task.settings.eval_batch_tokens)

    def _predict(self, batches: Sequence[Rows]) -> None:
        predict(
            self.model,
            [self.examples[row] for rows in batches for row in rows],
            pad_id=self.job.pad_id,
            batch_tokens=self.task.settings.eval_batch_tokens,
            device=self.device,
            precision=self._precision(self.way.inference_precision),
        )

    def _train(self, batches: Sequence[Rows], *, fgm: bool) -> None:
        if self._updater is None:
            self._updater = self._make_updater()
        if fgm and self._fgm is None:
            self._fgm = self._updater.make_fgm()
        groups = [[rows] for rows in batches]
        for group, following in zip_longest(groups, groups[1:], fillvalue=()):
            self._updater.update(group, self._fgm if fgm else None, following)

    def _make_updater(self) -> Updater:
        precision = self._precision(self.way.training_precision)
        optimizer = make_optimizer(
            parameter_groups(self.model, self.task.settings), self.task.settings
        )
        state = TrainingState(
            model=self.model,
            optimizer=optimizer,
            schedule=make_schedule(
                optimizer, total_updates=MANY_UPDATES, settings=self.task.settings
            ),
            scaler=torch.amp.GradScaler(self.device.type, enabled=precision.needs_scaler),
            progress=Progress(),
        )
        return Updater(
            self.task,
            state,
            fold=0,
            train=self.examples,
            pad_id=self.job.pad_id,
            machine=Machine(self.device, precision, Clock(float("inf"))),
        )
