"""What a notebook's first line says of the library, and inference of the image."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel_lib import __version__
from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.device import versions
from kernel_lib.runtime.files import sha256
from kernel_lib.runtime.release import RELEASE_RECORD, compare_versions, describe_release
from tests.conftest import ROOT

COMMIT = "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d"
NAMES = ("__init__.py", "errors.py", "training/loop.py", "training/state.py")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A built library of four files."""
    folder = tmp_path / "kernel_lib"
    for name in NAMES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    write_record(folder)
    return folder


def write_record(folder: Path, **changes) -> None:
    record = {
        "version": "0.1.0",
        "commit": COMMIT,
        "changed": False,
        "files": {name: sha256(folder / name) for name in NAMES},
        **changes,
    }
    (folder / RELEASE_RECORD).write_text(json.dumps(record))


# the release


def test_a_library_as_built_is_named_by_version_commit_and_files(package: Path) -> None:
    assert describe_release(package) == "kernel_lib 0.1.0 (commit 1a2b3c4), 4 files as built"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"changed": True}, "(commit 1a2b3c4 with changes)"),
        ({"commit": None}, "(no commit)"),
        ({"version": "2.5"}, "kernel_lib 2.5 (commit"),
    ],
)
def test_the_line_says_what_it_was_built_from(package: Path, changes, expected: str) -> None:
    write_record(package, **changes)
    assert expected in describe_release(package)


def test_an_edited_file_is_named_and_no_error(package: Path) -> None:
    (package / "training/loop.py").write_text("# mended on Kaggle\n")
    line = describe_release(package)
    assert line.endswith(", 3 files as built, 1 file edited since: training/loop.py")


def test_a_file_that_was_added_is_named(package: Path) -> None:
    (package / "tasks").mkdir()
    (package / "tasks/mine.py").write_text("")
    line = describe_release(package)
    assert line.endswith(", 4 files as built, 1 file added: tasks/mine.py")


def test_of_many_edited_files_some_are_named_and_all_are_counted(package: Path) -> None:
    for name in NAMES:
        (package / name).write_text("other")
    line = describe_release(package)
    assert line.endswith(
        "4 files edited since: __init__.py, errors.py, training/loop.py and 1 more"
    )
    assert "\n" not in line


def test_pythons_own_cache_does_not_count(package: Path) -> None:
    (package / "training/__pycache__").mkdir()
    (package / "training/__pycache__/loop.cpython-312.pyc").write_bytes(b"x")
    assert describe_release(package).endswith("4 files as built")


def test_a_missing_file_is_an_error_with_the_usual_cause(package: Path) -> None:
    (package / "training/loop.py").unlink()
    with pytest.raises(ArtifactError) as caught:
        describe_release(package)
    message = str(caught.value)
    assert f"{package} lacks 1 file of the 4 that were built: training/loop.py" in message
    assert "--dir-mode zip" in message and "sub-folders" in message


def test_a_lost_sub_folder_is_the_same_error(package: Path) -> None:
    for path in list((package / "training").iterdir()):
        path.unlink()
    (package / "training").rmdir()
    with pytest.raises(ArtifactError, match=r"2 files of the 4.*loop\.py, training/state\.py"):
        describe_release(package)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"version": "1", "commit": null, "changed": false}', "7"]
)
def test_a_damaged_record_is_an_artifact_error(package: Path, content: str) -> None:
    (package / RELEASE_RECORD).write_text(content)
    with pytest.raises(ArtifactError, match=r"RELEASE\.json"):
        describe_release(package)


@pytest.mark.parametrize("files", [None, 7, ["errors.py"], "errors.py"])
def test_a_record_with_an_unreadable_list_is_an_artifact_error(package: Path, files) -> None:
    write_record(package, files=files)
    with pytest.raises(ArtifactError, match="not what a build writes"):
        describe_release(package)


def test_a_checkout_says_that_it_is_one(tmp_path: Path) -> None:
    assert describe_release(tmp_path) == f"kernel_lib {__version__} (a checkout)"


def test_without_a_folder_the_imported_library_is_described() -> None:
    assert describe_release() == describe_release(ROOT / "kernel_lib")


# the drift


TRAINED = {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "numpy": "2.4.1"}


def test_the_same_versions_are_no_drift() -> None:
    assert compare_versions(TRAINED, dict(TRAINED)) == "versions: as in training"
    assert compare_versions(versions(), versions()) == "versions: as in training"


def test_differences_are_named_packages_first_then_python() -> None:
    here = {**TRAINED, "python": "3.12.13", "transformers": "5.0.0", "numpy": "2.0.2"}
    assert compare_versions(TRAINED, here) == (
        "versions differ from training: transformers 5.23.0 -> 5.0.0, numpy 2.4.1 -> 2.0.2; "
        "python 3.11 -> 3.12"
    )


def test_python_alone_may_differ_and_its_last_digits_do_not_count() -> None:
    assert compare_versions(TRAINED, {**TRAINED, "python": "3.13.0"}) == (
        "versions differ from training: python 3.11 -> 3.13"
    )
    assert "as in training" in compare_versions(TRAINED, {**TRAINED, "python": "3.11.9"})


def test_a_package_that_is_absent_here_is_said_and_one_that_is_new_is_not() -> None:
    here = {name: version for name, version in TRAINED.items() if name != "numpy"}
    assert compare_versions(TRAINED, here).endswith("numpy 2.4.1 -> absent")
    assert compare_versions(here, TRAINED) == "versions: as in training"


@pytest.mark.parametrize("then", [{}, None, [], "5.0"])
def test_a_record_without_versions_is_said_to_have_none(then) -> None:
    assert compare_versions(then, TRAINED) == "versions: the training did not record them"
