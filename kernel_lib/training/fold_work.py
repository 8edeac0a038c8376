"""One fold from the pretrained weights to its folder, in this process or in a worker's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from kernel_lib.artifacts import Run, finish_fold
from kernel_lib.runtime.device import keep_freed_memory, pick_precision, seed_everything
from kernel_lib.runtime.distributed import World
from kernel_lib.runtime.peak_memory import PeakMemory
from kernel_lib.runtime.worker import Station
from kernel_lib.text.batches import Example
from kernel_lib.text.order import training_order
from kernel_lib.training.cost import FoldCost
from kernel_lib.training.loop import FoldTrainer
from kernel_lib.training.memory import release_memory
from kernel_lib.training.optimizer import groups_table
from kernel_lib.training.origins import Origins
from kernel_lib.training.prediction import TokenLimit
from kernel_lib.training.task import FoldResult, Machine, Task
from kernel_lib.training.tracking import Tracker


@dataclass(frozen=True)
class FoldJob:
    """A fold to be trained.

    Attributes:
        fold: its number.
        folds_to_finish: how many are to be held against the budget, as for ``FoldTrainer``.
        shows_groups: whether the optimizer's groups are printed.
    """

    fold: int
    folds_to_finish: int
    shows_groups: bool

    def __str__(self) -> str:
        return f"fold {self.fold}"


@dataclass(frozen=True)
class FoldWork:
    """Trains folds of a run; what a process has to know for it. A fold is computed alike in any.

    Attributes:
        task: with the settings.
        examples: all rows, with targets.
        folds: the fold of each row, ``(rows,)``.
        tokenizer: that made the examples.
        backbone: folder of the pretrained encoder.
        run: the run folder.
        limit: what memory was found to hold, here, by the folds before.
        world: the processes that train each fold together, this one alone as a rule.
        origins: soft labels that are learned from instead, weights to begin with.
    """

    task: Task
    examples: Sequence[Example]
    folds: NDArray[np.int64]
    tokenizer: PreTrainedTokenizerFast
    backbone: Path
    run: Run
    limit: TokenLimit = field(default_factory=TokenLimit)
    world: World = field(default_factory=World.single)
    origins: Origins = field(default_factory=Origins)

    def __call__(self, job: FoldJob, station: Station) -> float | None:
        """Trains a fold and saves it.

        Returns:
            The seconds that it took, in all sessions together; None when the clock ran out, with
            its state saved.
        """
        keep_freed_memory()
        device = station.place.occupy()
        precision = pick_precision(self.task.settings.precision, device)
        machine = Machine(device, precision, station.clock, self.world, self.limit)
        seconds = self._train(job, machine, _NotingTracker(station))
        release_memory(device)
        return seconds

    def batches(self, fold: int) -> tuple[int, ...]:
        """How many batches each epoch of a fold has."""
        return training_order(self._train_rows(fold), self.task.settings, fold=fold).counts

    def _train(self, job: FoldJob, machine: Machine, tracker: Tracker) -> float | None:
        memory = PeakMemory(machine.device)
        train = self._train_rows(job.fold)
        seed_everything(self.task.settings.seed + job.fold)
        model = self.task.build_model(self.backbone, self.tokenizer, train)
        # Also where a saved state follows: what the settings pull towards is as it was.
        self.origins.put_weights(model, job.fold)
        trainer = FoldTrainer(
            self.task,
            model,
            run=self.run,
            fold=job.fold,
            train=train,
            valid=self._valid_rows(job.fold),
            pad_id=int(self.tokenizer.pad_token_id),
            machine=machine,
            tracker=tracker,
            folds_to_finish=job.folds_to_finish,
        )
        if job.shows_groups:
            print(groups_table(trainer.groups))
        result = trainer.train()
        if result is None:
            return None
        if self.world.is_first:
            cost = FoldCost.of(trainer.model, trainer.groups, memory.peak_bytes())
            print(f"fold {job.fold}: {cost}")
            self._save(job.fold, trainer, result, cost)
        self.world.wait()  # from here on it is finished for all
        return result.seconds

    def _train_rows(self, fold: int) -> list[Example]:
        rows = self.origins.train_rows(self.examples, self.folds, fold)
        return self.task.cut(rows, training=True)

    def _valid_rows(self, fold: int) -> list[Example]:
        rows = [e for e, at in zip(self.examples, self.folds, strict=True) if at == fold]
        return self.task.cut(rows, training=False)

    def _save(self, fold: int, trainer: FoldTrainer, result: FoldResult, cost: FoldCost) -> None:
        task = self.task
        backbone: Any = trainer.model.backbone
        summary: dict[str, Any] = {
            "score_name": task.score_name,
            "score": result.scores.get(task.score_name),
            "scores": result.scores,
            "rows": len(result.oof),
            "epoch": result.epoch,
            "seconds": round(result.seconds, 1),
            "precision": trainer.machine.precision.name,
            "cost": cost.record(),
        }
        oof = result.oof.copy()
        oof.insert(1, "fold", fold)
        finish_fold(
            self.run,
            fold,
            model=task.finished(trainer.model),
            backbone_config=json.loads(backbone.config.to_json_string(use_diff=False)),
            oof=oof,
            log="".join(json.dumps(record) + "\n" for record in result.history),
            summary=summary,
        )
        trainer.resume_path.unlink(missing_ok=True)


class _NotingTracker(Tracker):
    """Hands the records to the process that keeps the real tracker."""

    def __init__(self, station: Station) -> None:
        self._note = station.note

    def log(self, record: dict[str, Any]) -> None:
        self._note(record)
