"""The rows that a run was trained on, read again: to score them, or to know them again."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from kernel_lib.artifacts import Run
from kernel_lib.errors import DataError
from kernel_lib.results.members import task_of
from kernel_lib.tasks.base import PredictingTask
from kernel_lib.tasks.registry import restore_task
from kernel_lib.text.batches import Example
from kernel_lib.training.origins import read_folds
from kernel_lib.training.record import examples_fingerprint


@dataclass(frozen=True)
class TrainingRows:
    """Rows as a run saw them.

    Attributes:
        task: of the run, reading from the folder that was given.
        frame: the rows.
        examples: the same, encoded.
        folds: of each example.
        pad_id: the tokenizer's padding id.
    """

    task: PredictingTask
    frame: pd.DataFrame
    examples: list[Example]
    folds: list[int]
    pad_id: int

    def of_fold(self, fold: int) -> list[Example]:
        """What a fold is scored on, as long as it is evaluated."""
        pairs = zip(self.examples, self.folds, strict=True)
        rows = [example for example, at in pairs if at == fold]
        return self.task.cut(rows, training=False)


def read_training_rows(run: Run, data_dir: str) -> TrainingRows:
    """Reads and encodes them.

    Args:
        run: whose.
        data_dir: folder of ``train.csv``; empty: under the inputs.

    Raises:
        ArtifactError: what the run read them with is not there, or gives other results.
        DataError: the data are not those of the run.
    """
    settings = task_of(run).settings.replace(data_dir=data_dir)
    task = restore_task({**run.record, "settings": settings.to_dict()})
    frame = task.read_train()
    examples, pad_id = task.read_unseen(run, frame)
    if examples_fingerprint(examples) != run.record["identity"]["data"]:
        raise DataError(
            f"train.csv in {data_dir or 'the inputs'} is not what {run.folder} was trained on: "
            "other rows, order or values. Give its folder."
        )
    fold_of = read_folds(run)
    ids = {example.row: example.id for example in examples if not example.start}
    folds = [fold_of[ids[example.row]] for example in examples]
    return TrainingRows(task, frame, examples, folds, pad_id)
