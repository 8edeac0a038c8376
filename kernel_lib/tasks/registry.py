"""The tasks there are, by the name that a run's record keeps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kernel_lib.config import TrainingSettings, nearest
from kernel_lib.errors import ArtifactError
from kernel_lib.tasks.base import PredictingTask
from kernel_lib.tasks.entities import EntityTask
from kernel_lib.tasks.entity_settings import EntitySettings
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.tasks.features import FeatureTask
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_settings import SpellingSettings

TASKS: dict[str, tuple[Callable[[Any], PredictingTask], type[TrainingSettings]]] = {
    RegressionTask.name: (RegressionTask, RegressionSettings),
    FeatureTask.name: (FeatureTask, FeatureSettings),
    SpellingTask.name: (SpellingTask, SpellingSettings),
    EntityTask.name: (EntityTask, EntitySettings),
}


def settings_class(name: str) -> type[TrainingSettings]:
    """The settings of a task. Raises ArtifactError for an unknown name."""
    return _entry(name)[1]


def restore_task(record: dict[str, Any]) -> PredictingTask:
    """The task a run was trained for, with its settings and whatever else ``run.json`` keeps of it.

    Raises:
        ArtifactError: the task is unknown.
        SettingsError: it has settings that are unknown here.
    """
    make, settings = _entry(record["task"])
    task = make(settings.from_dict(record["settings"]))
    task.restore(record)
    return task


def _entry(name: str) -> tuple[Callable[[Any], PredictingTask], type[TrainingSettings]]:
    if name not in TASKS:
        raise ArtifactError(f"the task {name!r} is not known here: {nearest(name, list(TASKS))}")
    return TASKS[name]
