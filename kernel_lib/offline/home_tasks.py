"""The tasks that demo and rehearsal know: what each runs on when the user gives nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernel_lib.config import nearest
from kernel_lib.errors import SettingsError
from kernel_lib.offline.material import (
    TARGETS,
    write_backbone,
    write_competition,
    write_entity_competition,
    write_spelling_backbone,
    write_spelling_competition,
)


@dataclass(frozen=True)
class Floor:
    """What a model must beat.

    Attributes:
        words: what was done in its place.
        score: what that scores.
        lower_is_better: whether a lower score is better.
    """

    words: str
    score: float
    lower_is_better: bool

    def is_beaten_by(self, score: float) -> bool:
        """Whether a score is better; one that is no number is not."""
        return score < self.score if self.lower_is_better else score > self.score


@dataclass(frozen=True)
class HomeTask:
    """A pair of notebooks, ``<name>_train`` and ``<name>_infer``, and what they run on at home.

    Attributes:
        name: of the task; what the notebooks' names begin with.
        material: what is made, for the reader.
        data_place: where the data are mounted under the inputs.
        backbone_place: where the backbone is.
        write_data: makes them: folder, training rows, test rows.
        write_backbone: makes one: its folder, and that of the data.
        demo_rows: training rows that are enough to beat the floor.
        demo_settings: of training; a model this small learns little at a pretrained one's rates.
        tiny_settings: of a training that only runs through everything.
        floor: of a finished run folder.
    """

    name: str
    material: str
    data_place: str
    backbone_place: str
    write_data: Callable[[Path, int, int], None]
    write_backbone: Callable[[Path, Path], None]
    demo_rows: int
    demo_settings: dict[str, Any]
    tiny_settings: dict[str, Any]
    floor: Callable[[Path], Floor]

    @property
    def notebooks(self) -> tuple[str, str]:
        """Their names, in the order in which they run."""
        return f"{self.name}_train", f"{self.name}_infer"


def home_task(name: str) -> HomeTask:
    """The task of that name. Raises SettingsError for an unknown one."""
    if name not in TASKS:
        raise SettingsError(f"there is no task {name!r}: {nearest(name, list(TASKS))}")
    return TASKS[name]


def task_of(notebooks: Sequence[str]) -> HomeTask:
    """The one task of some notebooks; a notebook of one's own belongs to the others' task.

    Raises:
        SettingsError: they are of several tasks.
    """
    found = {name.partition("_")[0] for name in notebooks} & TASKS.keys()
    if len(found) > 1:
        raise SettingsError(
            f"notebooks of several tasks ({', '.join(sorted(found))}) do not go together: they "
            'want other data and another backbone. Take one task at a time, such as NB="'
            + " ".join(TASKS[min(found)].notebooks)
            + '".'
        )
    return TASKS[found.pop() if found else DEFAULT_TASK]


def _write_essays(folder: Path, train_rows: int, test_rows: int) -> None:
    write_competition(folder, train_rows=train_rows, test_rows=test_rows)


def _write_essay_backbone(folder: Path, data: Path) -> None:
    write_backbone(folder, corpus=_texts(data, "full_text"))


def _write_sentences(folder: Path, train_rows: int, test_rows: int) -> None:
    write_spelling_competition(folder, train_rows=train_rows, test_rows=test_rows)


def _write_sentence_backbone(folder: Path, data: Path) -> None:
    write_spelling_backbone(folder, corpus=_texts(data, "target"))


def _write_tagged_sentences(folder: Path, train_rows: int, test_rows: int) -> None:
    write_entity_competition(folder, train_rows=train_rows, test_rows=test_rows)


def _write_tagged_backbone(folder: Path, data: Path) -> None:
    write_backbone(folder, corpus=_texts(data, "tokens"))


def _texts(data: Path, column: str) -> list[str]:
    texts = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)[column]
    return [str(text) for text in texts]


def _predicting_the_mean(run: Path) -> Floor:
    oof = pd.read_csv(run / "oof.csv")
    true = oof[[f"true_{name}" for name in TARGETS]].to_numpy()
    score = np.sqrt(((true - true.mean(axis=0)) ** 2).mean(axis=0)).mean()
    return Floor("predicting the mean", float(score), lower_is_better=True)


def _changing_nothing(run: Path) -> Floor:
    return Floor("changing nothing", 0.0, lower_is_better=False)


def _naming_nothing(run: Path) -> Floor:
    return Floor("naming nothing", 0.0, lower_is_better=False)


DEFAULT_TASK = "fb3"
TASKS = {
    task.name: task
    for task in (
        HomeTask(
            name="fb3",
            material="essays and a tiny DeBERTa-v3-shaped backbone",
            data_place="competitions/feedback-prize-english-language-learning",
            backbone_place="datasets/someone/deberta-v3-base",
            write_data=_write_essays,
            write_backbone=_write_essay_backbone,
            demo_rows=400,
            demo_settings={
                "n_folds": 2,
                "epochs": 6,
                "learning_rate": 3e-3,
                "head_learning_rate": 3e-3,
                "evals_per_epoch": 1,
                "fgm_epsilon": 0.3,
            },
            tiny_settings={"n_folds": 2, "epochs": 2, "max_length": 128, "learning_rate": 0.003},
            floor=_predicting_the_mean,
        ),
        HomeTask(
            name="csc",
            material="Chinese sentences with wrong characters and a tiny BERT",
            data_place="datasets/someone/csc-data",
            backbone_place="datasets/someone/chinese-macbert-base",
            write_data=_write_sentences,
            write_backbone=_write_sentence_backbone,
            demo_rows=600,
            demo_settings={
                "n_folds": 2,
                "epochs": 30,
                "batch_size": 8,
                "max_length": 64,
                "learning_rate": 5e-3,
                "head_learning_rate": 5e-3,
                "layer_decay": 1.0,
                "mask_rate": 0.0,
                "confusion_files": ["confusion.txt"],
            },
            tiny_settings={
                "n_folds": 2,
                "epochs": 2,
                "batch_size": 8,
                "learning_rate": 0.003,
                "confusion_files": ["confusion.txt"],
                "noise_rate": 0.05,
            },
            floor=_changing_nothing,
        ),
        HomeTask(
            name="ner",
            material="sentences with tagged names and a tiny DeBERTa-v3-shaped backbone",
            data_place="datasets/someone/ner-data",
            backbone_place="datasets/someone/deberta-v3-base",
            write_data=_write_tagged_sentences,
            write_backbone=_write_tagged_backbone,
            demo_rows=600,
            demo_settings={
                "n_folds": 2,
                "epochs": 10,
                "batch_size": 8,
                "max_length": 64,
                "window_overlap": 16,
                "learning_rate": 5e-3,
                "head_learning_rate": 5e-3,
                "layer_decay": 1.0,
            },
            tiny_settings={
                "n_folds": 2,
                "epochs": 2,
                "batch_size": 8,
                "max_length": 64,
                "window_overlap": 16,
                "learning_rate": 0.003,
            },
            floor=_naming_nothing,
        ),
    )
}
