"""A backbone is found under the inputs by its name, in either mount layout, and never on a hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kernel_lib.errors import BackboneError
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE


@pytest.fixture
def inputs(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path / "kaggle"))
    (tmp_path / "kaggle/input").mkdir(parents=True)
    return tmp_path / "kaggle/input"


def with_config(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "mount",
    [
        "deberta-v3-base",
        "datasets/someone/deberta-v3-base",
        "models/microsoft/deberta-v3-base/pytorch/default/1",
        "debertas/deberta-v3-base",
    ],
)
def test_a_backbone_is_found_by_name_in_every_mount_layout(inputs: Path, mount: str) -> None:
    expected = with_config(inputs / mount)
    with_config(inputs / "deberta-v3-large")
    assert find_backbone("deberta-v3-base") == expected
    assert find_backbone("microsoft/deberta-v3-base") == expected
    assert find_backbone(str(expected)) == expected


def test_a_hub_name_is_told_that_nothing_is_downloaded(inputs: Path) -> None:
    with pytest.raises(BackboneError) as caught:
        find_backbone("microsoft/deberta-v3-base")
    message = str(caught.value)
    assert "hub name" in message and "nothing is ever downloaded" in message
    assert str(inputs) in message and "Attach" in message


def test_a_name_that_is_no_hub_name_gets_no_lecture_about_hubs(inputs: Path) -> None:
    with pytest.raises(BackboneError, match="Attach") as caught:
        find_backbone("deberta-v3-base")
    assert "hub name" not in str(caught.value)


def test_a_name_that_fits_several_folders_lists_them(inputs: Path) -> None:
    one = with_config(inputs / "a/deberta-v3-base")
    two = with_config(inputs / "b/deberta-v3-base")
    with pytest.raises(BackboneError, match="several") as caught:
        find_backbone("deberta-v3-base")
    assert str(one) in str(caught.value) and str(two) in str(caught.value)


def test_a_part_with_a_config_of_its_own_is_not_a_second_backbone(inputs: Path) -> None:
    folder = with_config(inputs / "datasets/somebody/all-minilm-l6-v2")
    with_config(folder / "1_Pooling")
    assert find_backbone("all-minilm-l6-v2") == folder


def test_a_models_folder_above_its_version_is_the_version(material, tmp_path) -> None:
    shutil.copytree(material.backbone, tmp_path / "deberta-v3-base/1")
    assert find_backbone(str(tmp_path / "deberta-v3-base")) == tmp_path / "deberta-v3-base/1"
    shutil.copytree(material.backbone, tmp_path / "deberta-v3-base/2")
    with pytest.raises(BackboneError, match=r"no config\.json, and 2 of its folders do"):
        find_backbone(str(tmp_path / "deberta-v3-base"))
