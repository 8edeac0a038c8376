"""Every task can be made again from what a run's record keeps of it."""

from __future__ import annotations

import json

import pytest

from kernel_lib.config import TrainingSettings
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.tasks.base import PredictingTask
from kernel_lib.tasks.registry import TASKS, restore_task, settings_class

RESOURCES = {
    "fb3": {},
    "fb3_features": {"encoders": []},
    "csc": {},
    "ner": {"labels": ["O", "B-PER", "I-PER"]},
}


@pytest.mark.parametrize("name", TASKS)
def test_a_task_comes_back_with_its_settings(name: str) -> None:
    settings = settings_class(name)(seed=7, folds=(0, 2), max_length=96)
    record = json.loads(
        json.dumps({"task": name, "settings": settings.to_dict(), "resources": RESOURCES[name]})
    )
    task = restore_task(record)
    assert isinstance(task, PredictingTask) and isinstance(settings, TrainingSettings)
    assert task.settings == settings and type(task.settings) is settings_class(name)
    assert task.name == name
    json.dumps(settings.result_values())


def test_names_and_kinds_tell_tasks_apart() -> None:
    tasks = [make(settings()) for make, settings in TASKS.values()]
    kinds = {task.name: task.kind for task in tasks}
    assert len(kinds) == len(tasks) and kinds["fb3"] == kinds.pop("fb3_features")  # they blend
    assert len(set(kinds.values())) == len(kinds)
    for task in tasks:
        assert task.name and task.score_name and isinstance(task.lower_is_better, bool)
        assert task.passes >= 1 and not any(task.resources().values())


def test_unknown_tasks_and_settings_are_refused() -> None:
    with pytest.raises(
        ArtifactError, match=r"the task 'cse' is not known here: did you mean 'csc'"
    ):
        settings_class("cse")
    with pytest.raises(SettingsError, match="unknown setting 'loss' of SpellingSettings"):
        restore_task({"task": "csc", "settings": {"loss": "mse"}})
