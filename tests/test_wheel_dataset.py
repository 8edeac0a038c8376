"""The wheels that travel: those that the library names, each with its SHA-256, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.upload import wheel_dataset
from kernel_lib.offline.upload.metadata import check_dataset, needs_dir_mode
from kernel_lib.offline.upload.package import (
    build_wheels,
)
from kernel_lib.runtime import wheels
from kernel_lib.runtime.wheels import CarriedWheel
from tests.uploading import WHEEL, content, make_wheel

pytestmark = pytest.mark.usefixtures("no_account")


def test_the_wheels_are_those_that_the_library_names_and_no_others(
    shelf: Path, tmp_path: Path
) -> None:
    make_wheel(shelf, name="other_thing-1.0-py3-none-any.whl")
    folder = tmp_path / "kernel-lib-wheels"
    build_wheels(folder, "somebody")
    assert set(content(folder)) == {WHEEL, "dataset-metadata.json"}
    assert content(folder)[WHEEL] == (shelf / WHEEL).read_bytes()
    assert check_dataset(folder) == [] and not needs_dir_mode(folder)


def test_a_genuine_wheel_is_not_downloaded_again_and_an_altered_one_is(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kernel-lib-wheels"
    build_wheels(folder, "somebody")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    build_wheels(folder, "somebody_else")
    assert b"somebody_else" in content(folder)["dataset-metadata.json"]
    (folder / WHEEL).write_bytes(b"altered")
    with pytest.raises(DataError, match=r"could not download small-thing==1\.0"):
        build_wheels(folder, "somebody")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    build_wheels(folder, "somebody")
    assert content(folder)[WHEEL] == (shelf / WHEEL).read_bytes()


def test_a_failed_download_is_one_clear_message_and_leaves_what_stood_there(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(DataError) as caught:
        build_wheels(tmp_path / "built/kernel-lib-wheels", "somebody")
    message = str(caught.value)
    assert "No matching distribution" in message and WHEEL in message
    assert len(message.splitlines()) == 1
    assert list((tmp_path / "built").iterdir()) == []


def test_a_wheel_of_another_content_or_name_is_refused(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_wheel(shelf, python=">=3.9")  # the same name, other bytes
    with pytest.raises(DataError, match="is not the one whose hash"):
        build_wheels(tmp_path / "a", "somebody")
    (carried,) = wheels.CARRIED
    renamed = CarriedWheel(**{**vars(carried), "wheel": "small_thing-1.0-py2.py3-none-any.whl"})
    monkeypatch.setattr(wheels, "CARRIED", (renamed,))
    with pytest.raises(DataError, match=f"came as {WHEEL}, not as small_thing-1.0-py2"):
        build_wheels(tmp_path / "a", "somebody")
    assert not (tmp_path / "a").exists()


def test_a_wheel_for_one_machine_is_refused_before_any_download(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried = make_wheel(shelf, name="small_thing-1.0-cp312-cp312-linux_x86_64.whl")
    monkeypatch.setattr(wheels, "CARRIED", (carried,))
    monkeypatch.setattr(wheel_dataset, "_download", None)
    with pytest.raises(DataError, match="only pure wheels"):
        build_wheels(tmp_path / "a", "somebody")


@pytest.mark.parametrize(
    ("python", "excluded"),
    [(">=3.8,<3.13", "3.13"), (">=3.11,!=3.12.*", "3.12"), ("<3.12", "3.12, 3.13"), (None, "")],
)
def test_a_wheel_that_excludes_a_python_of_kaggles_is_refused(
    tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch, python: str, excluded: str
) -> None:
    carried = make_wheel(tmp_path / "kernel-lib-wheels", python=python)  # there already
    monkeypatch.setattr(wheels, "CARRIED", (carried,))
    if not excluded:
        build_wheels(tmp_path / "kernel-lib-wheels", "somebody")
        return
    with pytest.raises(DataError, match=f"which excludes {excluded}: "):
        build_wheels(tmp_path / "kernel-lib-wheels", "somebody")
