"""Finding inputs in both of Kaggle's mount layouts."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.runtime.paths import (
    KAGGLE_ROOT_VARIABLE,
    find_folder,
    input_folders,
    input_root,
)

SLUG = "feedback-prize-english-language-learning"
FILES = ("train.csv", "test.csv")


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path))
    (tmp_path / "input").mkdir()
    return tmp_path / "input"


def with_files(folder: Path, files=FILES) -> Path:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("id\n1\n")
    return folder


def find(**options) -> Path:
    return find_folder(FILES, name=SLUG, what="competition data", **options)


@pytest.mark.parametrize("mount", [SLUG, f"competitions/{SLUG}", f"datasets/someone/{SLUG}"])
def test_a_competition_is_found_in_every_mount_layout(inputs: Path, mount: str) -> None:
    expected = with_files(inputs / mount)
    with_files(inputs / "other" / "things", files=("train.csv",))
    assert find() == expected


def test_a_folder_of_another_name_is_found_by_its_files(inputs: Path) -> None:
    expected = with_files(inputs / "datasets" / "me" / "my-copy-of-fb3")
    assert find() == expected


def test_the_name_decides_between_several(inputs: Path) -> None:
    with_files(inputs / "fb1")
    expected = with_files(inputs / "competitions" / SLUG)
    assert find() == expected


@pytest.mark.parametrize(
    "mounts", [("one", "two"), (f"datasets/a/{SLUG}", f"datasets/b/{SLUG}", "third")]
)
def test_several_that_fit_equally_are_an_error_that_lists_them(inputs: Path, mounts) -> None:
    folders = [with_files(inputs / mount) for mount in mounts]
    with pytest.raises(DataError) as caught:
        find()
    named = [folder for folder in folders if folder.name == SLUG] or folders
    assert all(str(folder) in str(caught.value) for folder in named)
    assert "data_dir" in str(caught.value)


def test_nothing_found_says_where_it_looked_and_the_cure(inputs: Path) -> None:
    with_files(inputs / SLUG, files=("train.csv",))  # not all of the files
    with pytest.raises(DataError) as caught:
        find()
    assert str(inputs) in str(caught.value) and "attach" in str(caught.value)


def test_no_inputs_at_all_is_the_same_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path / "nowhere"))
    assert list(input_folders()) == []
    with pytest.raises(DataError, match="competition data"):
        find()


def test_a_given_folder_is_the_only_one_looked_at(inputs: Path, tmp_path: Path) -> None:
    with_files(inputs / SLUG)
    expected = with_files(tmp_path / "mine")
    assert find(given=str(expected)) == expected


def test_a_given_folder_without_the_files_is_an_error_though_others_have_them(
    inputs: Path, tmp_path: Path
) -> None:
    with_files(inputs / SLUG)
    mine = with_files(tmp_path / "mine", files=("train.csv",))
    with pytest.raises(DataError, match=r"has no test\.csv"):
        find(given=str(mine))
    with pytest.raises(DataError, match="does not exist"):
        find(given=str(tmp_path / "typo"))


def test_folders_come_shallow_first_to_the_depth_of_kaggle_models_without_hidden_ones(
    inputs: Path,
) -> None:
    deep = inputs / "models/owner/model/framework/variation/1"
    deep.mkdir(parents=True)
    (inputs / "zzz").mkdir()
    (inputs / ".cache" / "x").mkdir(parents=True)
    (inputs / "__pycache__").mkdir()
    folders = list(input_folders())
    assert deep in folders
    assert folders.index(inputs / "zzz") < folders.index(inputs / "models/owner")
    assert not any(part in {".cache", "__pycache__"} for f in folders for part in f.parts)


def test_the_input_root_is_kaggles_unless_the_environment_names_another(monkeypatch) -> None:
    monkeypatch.delenv(KAGGLE_ROOT_VARIABLE, raising=False)
    assert input_root() == Path("/kaggle/input")
