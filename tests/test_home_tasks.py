"""What a task runs on at home is what its notebooks ask for on Kaggle."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.offline.home_tasks import TASKS, Floor, home_task, task_of
from kernel_lib.offline.rehearsal.stage import NESTED, Source, data_among, declared
from kernel_lib.offline.upload.templates import render
from kernel_lib.tasks.registry import settings_class


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (["fb3_train", "fb3_infer"], "fb3"),
        (["csc_infer"], "csc"),
        (["ner_infer", "ner_train"], "ner"),
        (["csc_train", "blend_infer"], "csc"),
        (["blend_train", "blend_infer"], "fb3"),
        (["fb3_trian"], "fb3"),
        (["csc"], "csc"),
    ],
)
def test_a_notebooks_name_tells_the_task(names: list[str], task: str) -> None:
    assert task_of(names).name == task


def test_notebooks_of_two_tasks_are_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match=r'\(csc, fb3\).*NB="csc_train csc_infer"'):
        task_of(["fb3_train", "csc_infer", "csc_train"])


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'cse'.*did you mean 'csc'"):
        home_task("cse")


@pytest.mark.parametrize("name", TASKS)
def test_its_inputs_are_those_of_the_notebooks_metadata(name: str) -> None:
    inputs = declared(render(f"{name}_train.kernel", owner="someone"))
    places = [Source(*one, Path()).place(NESTED) for one in inputs]
    task = TASKS[name]
    assert {task.data_place, task.backbone_place} < set(places)
    data = data_among(inputs)
    assert data is not None and Source(*data, Path()).place(NESTED) == task.data_place
    assert data_among(declared(render(f"{name}_infer.kernel", owner="someone"))) == data


@pytest.mark.parametrize("name", TASKS)
def test_its_settings_are_settings_of_the_task_and_its_backbone_the_notebooks(name: str) -> None:
    task = TASKS[name]
    for values in (task.demo_settings, task.tiny_settings):
        assert settings_class(name)(**values).n_folds == 2
    assert settings_class(name)().backbone == task.backbone_place.rpartition("/")[2]


def test_a_floor_is_beaten_by_what_is_better_and_by_a_number_only() -> None:
    assert Floor("", 0.5, lower_is_better=True).is_beaten_by(0.4)
    assert not Floor("", 0.5, lower_is_better=True).is_beaten_by(0.5)
    assert Floor("", 0.0, lower_is_better=False).is_beaten_by(0.1)
    assert not Floor("", 0.0, lower_is_better=False).is_beaten_by(0.0)
    for lower in (True, False):
        assert not Floor("", 0.5, lower_is_better=lower).is_beaten_by(math.nan)
