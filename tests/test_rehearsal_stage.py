"""The inputs stand where Kaggle mounts them, whole, and without links that lead nowhere."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.rehearsal import stage
from kernel_lib.offline.rehearsal.leftovers import open_up, remove
from kernel_lib.offline.rehearsal.stage import (
    FLAT,
    NESTED,
    Source,
    copy_inputs,
    data_among,
    declared,
    find_sources,
    refuse_same_place,
)

MODEL = "google/gemma-2/PyTorch/2b-it/3"


def source(kind: str, name: str, folder: Path = Path("/nowhere")) -> Source:
    return Source(kind, name, folder)


# where


@pytest.mark.parametrize(
    ("kind", "name", "nested", "flat"),
    [
        ("competition", "my-contest", "competitions/my-contest", "my-contest"),
        ("dataset", "me/kernel-lib", "datasets/me/kernel-lib", "kernel-lib"),
        ("notebook", "me/fb3-train", "notebooks/me/fb3-train", "fb3-train"),
        ("model", MODEL, "models/google/gemma-2/pytorch/2b-it/3", "gemma-2/pytorch/2b-it/3"),
    ],
)
def test_each_kind_has_its_place_in_both_layouts(
    kind: str, name: str, nested: str, flat: str
) -> None:
    assert source(kind, name).place(NESTED) == nested
    assert source(kind, name).place(FLAT) == flat


def test_versions_are_left_off_but_for_a_models() -> None:
    metadata = {
        "competition_sources": ["my-contest"],
        "dataset_sources": ["me/data/12", "me/other"],
        "kernel_sources": ["me/fb3-train/3"],
        "model_sources": [MODEL],
        "title": "nothing of this",
    }
    assert declared(metadata) == [
        ("competition", "my-contest"),
        ("dataset", "me/data"),
        ("dataset", "me/other"),
        ("notebook", "me/fb3-train"),
        ("model", MODEL),
    ]
    assert declared({}) == []


@pytest.mark.parametrize(
    ("first", "second", "layout"),
    [
        (("dataset", "me/data"), ("dataset", "you/data"), FLAT),
        (("competition", "data"), ("dataset", "me/data"), FLAT),
        (("dataset", "me/gemma-2"), ("model", MODEL), FLAT),
        (("dataset", "me/data"), ("dataset", "me/data"), NESTED),
    ],
)
def test_two_inputs_at_one_place_are_refused_with_both_names(
    first: tuple[str, str], second: tuple[str, str], layout: str
) -> None:
    between = ("dataset", "me/gemma-2-9b")
    sources = [source(*one) for one in (first, between, second)]
    for several in (sources, sources[::-1]):
        with pytest.raises(DataError, match=r"would both be mounted at") as caught:
            refuse_same_place(several, layout)
        assert first[1] in str(caught.value) and second[1] in str(caught.value)
    if layout == FLAT:
        refuse_same_place(sources, NESTED)


# what


@pytest.fixture
def found(tmp_path: Path) -> Any:
    """Finds the sources of some metadata among folders ``data``, ``backbone``, ``sets/...``."""
    for name in ("data", "backbone", "sets/kernel-lib", "sets/deberta", "out"):
        (tmp_path / name).mkdir(parents=True)

    def find(backbone: bool = True, attached: Any = (), **metadata: list[str]) -> list[Source]:
        return find_sources(
            {"id": "me/fb3-infer", **metadata},
            attached=attached,
            data=tmp_path / "data",
            backbone=tmp_path / "backbone" if backbone else None,
            datasets=tmp_path / "sets",
            outputs={"fb3-train": tmp_path / "out"},
            instead={"test.csv": tmp_path / "test.csv"},
        )

    return find


def test_each_input_is_stood_in_for_by_what_was_built_or_given(found, tmp_path: Path) -> None:
    sources = found(
        competition_sources=["any-contest"],
        dataset_sources=["me/kernel-lib", "you/deberta/4", "you/another"],
        kernel_sources=["me/fb3-train"],
        model_sources=[MODEL],
    )
    assert [one.folder.relative_to(tmp_path.resolve()).as_posix() for one in sources] == [
        *("data", "sets/kernel-lib", "sets/deberta", "backbone", "out", "backbone")
    ]
    assert [dict(one.instead) for one in sources] == [
        {"test.csv": tmp_path / "test.csv"},
        *[{}] * 5,
    ]


def test_attached_folders_are_datasets_and_stand_in_for_notebooks_that_did_not_run(
    found, tmp_path: Path
) -> None:
    folders = [tmp_path / "fine tuned/run", tmp_path / "Blend_1"]
    for folder in folders:
        folder.mkdir(parents=True)
    sources = found(kernel_sources=["me/fb3-train", "me/not-run"], attached=folders)
    assert [(one.kind, one.name, one.folder) for one in sources] == [
        ("notebook", "me/fb3-train", (tmp_path / "out").resolve()),
        ("dataset", "me/fine-tuned", folders[0].resolve()),
        ("dataset", "me/blend-1", folders[1].resolve()),
    ]
    with pytest.raises(DataError, match=r"reads the notebook me/not-run.*give ATTACH="):
        found(kernel_sources=["me/not-run"])


def test_an_attached_folder_that_is_not_there_or_cannot_be_a_dataset_is_named(
    found, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"ATTACH= names .*nowhere: there is no such folder"):
        found(attached=[tmp_path / "nowhere"])
    (tmp_path / "svr").mkdir()
    with pytest.raises(DataError, match=r"ATTACH= names .*svr\. Rename it: .*6 to"):
        found(attached=[tmp_path / "svr"])


def test_without_a_competition_a_dataset_of_data_is_stood_in_for_by_the_data(
    found, tmp_path: Path
) -> None:
    (tmp_path / "sets/csc-data").mkdir()  # built, but the test shown is another one
    names = ["me/kernel-lib", "me/csc-data/2", "you/more-data"]
    sources = found(dataset_sources=names)
    assert [one.folder.name for one in sources] == ["kernel-lib", "data", "backbone"]
    assert [set(one.instead) for one in sources] == [set(), {"test.csv"}, set()]
    assert sources[1].place(NESTED) == "datasets/me/csc-data"
    beside = found(competition_sources=["any-contest"], dataset_sources=["me/csc-data"])
    assert [one.folder.name for one in beside] == ["data", "csc-data"]
    assert [set(one.instead) for one in beside] == [{"test.csv"}, set()]


@pytest.mark.parametrize(
    ("inputs", "data"),
    [
        ([], None),
        ([("dataset", "me/data"), ("dataset", "me/database")], None),
        ([("notebook", "me/make-data"), ("dataset", "me/b-data")], ("dataset", "me/b-data")),
        ([("dataset", "me/b-data"), ("competition", "a")], ("competition", "a")),
    ],
)
def test_the_data_are_known_by_their_kind_or_name(inputs: list, data: Any) -> None:
    assert data_among(inputs) == data


def test_data_that_are_not_there_are_asked_for(found, tmp_path: Path) -> None:
    (tmp_path / "data").rmdir()
    with pytest.raises(DataError, match=r"reads the dataset me/csc-data.*: give DATA=") as caught:
        found(dataset_sources=["me/csc-data"])
    assert "BACKBONE=" not in str(caught.value)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"dataset_sources": ["me/kernel-lib-wheels"]},
            "reads the dataset me/kernel-lib-wheels, and nothing here stands in for it: run make "
            "dataset, which makes .*kernel-lib-wheels",
        ),
        ({"kernel_sources": ["me/other"]}, "rehearse that notebook too, before this one"),
    ],
)
def test_the_kits_own_datasets_and_other_notebooks_are_not_replaced_by_a_backbone(
    found, metadata: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        found(**metadata)
    assert "BACKBONE=" not in str(caught.value)


@pytest.mark.parametrize("metadata", [{"dataset_sources": ["x/y"]}, {"model_sources": [MODEL]}])
def test_without_a_backbone_it_is_asked_for(found, metadata: dict) -> None:
    with pytest.raises(DataError, match="give BACKBONE="):
        found(backbone=False, **metadata)


def test_a_dataset_may_be_called_as_a_template_that_has_no_name_of_its_own(found) -> None:
    (one,) = found(dataset_sources=["me/backbone"])
    assert one.folder.name == "backbone"


# links


def parts(one: Source) -> dict[str, str]:
    return {name: str(path) for name, path in one.parts()}


def test_a_folder_without_links_is_shown_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/sub/a.txt").touch()
    changed = Source("competition", "c", tmp_path / "data", {"test.csv": tmp_path / "made.csv"})
    assert list(changed.parts()) == [
        ("", tmp_path / "data"),
        ("test.csv", tmp_path / "made.csv"),
    ]


def test_the_links_of_a_hubs_cache_are_followed_piece_by_piece(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub/snapshots/1"
    (tmp_path / "hub/blobs").mkdir(parents=True)
    (tmp_path / "hub/blobs/abc").write_text("weights")
    (snapshot / "plain").mkdir(parents=True)
    (snapshot / "plain/a.txt").touch()
    (snapshot / "onnx").mkdir()
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    (snapshot / "onnx/model.onnx").symlink_to("../../../blobs/abc")
    (snapshot / "gone").symlink_to("nowhere")
    (snapshot / "folder").symlink_to(tmp_path / "hub/blobs")
    (snapshot / "round").symlink_to(snapshot)
    (snapshot / "onnx/up").symlink_to("..")
    here = str(tmp_path)
    assert parts(source("dataset", "me/d", snapshot)) == {
        "folder": f"{here}/hub/blobs",
        "model.safetensors": f"{here}/hub/blobs/abc",
        "onnx/model.onnx": f"{here}/hub/blobs/abc",
        "plain": f"{here}/hub/snapshots/1/plain",
    }


def test_a_test_file_that_is_a_link_gives_way_to_the_made_up_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "real.csv").touch()
    for name in ("test.csv", "train.csv"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "real.csv")
    one = Source("competition", "c", tmp_path / "data", {"test.csv": tmp_path / "made.csv"})
    assert list(one.parts()) == [
        ("train.csv", tmp_path / "real.csv"),
        ("test.csv", tmp_path / "made.csv"),
    ]


# copied


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_copies_are_read_only_and_what_they_are_copied_from_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "LINKED_BYTES", 100)
    data = tmp_path / "data"
    (data / "sub folder").mkdir(parents=True)
    for name, size in (("test.csv", 9), ("sub folder/small", 100), ("sub folder/large", 101)):
        (data / name).write_bytes(b"x" * size)
        (data / name).chmod(0o640)
    os.mkfifo(data / "pipe")
    listening = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(data)
    listening.bind("socket")
    (tmp_path / "made.csv").write_text("made up")
    (data / "sub folder").chmod(0o555)
    data.chmod(0o555)
    one = Source("competition", "c", data, {"test.csv": tmp_path / "made.csv"})
    copy_inputs([one, source("dataset", "me/d", data)], tmp_path / "input", FLAT)
    listening.close()
    made = tmp_path / "input/c"
    assert (made / "test.csv").read_text() == "made up"
    assert (tmp_path / "input/d/test.csv").read_text() == "x" * 9
    assert sorted(path.name for path in made.iterdir()) == ["sub folder", "test.csv"]
    assert mode(made) == mode(made / "sub folder") == 0o555
    assert mode(made / "sub folder/small") == mode(made / "test.csv") == 0o444
    assert not (made / "sub folder/small").is_symlink()
    large = made / "sub folder/large"
    assert large.is_symlink() and large.read_bytes() == b"x" * 101
    assert mode(data / "sub folder/large") == mode(data / "test.csv") == 0o640
    remove(tmp_path / "input")
    assert not (tmp_path / "input").exists()
    assert (data / "sub folder/large").is_file()
    open_up(data)  # for who clears up after the tests


def test_the_message_about_places_names_the_layout() -> None:
    twice = [source("dataset", "me/data"), source("dataset", "you/data")]
    with pytest.raises(DataError, match=re.escape("mounted at data (flat layout)")):
        refuse_same_place(twice, FLAT)
