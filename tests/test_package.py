"""What goes up is all that is needed and nothing else; a build is whole or changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.upload import package, templates
from kernel_lib.offline.upload.metadata import check_dataset, check_kernel, needs_dir_mode
from kernel_lib.offline.upload.package import (
    build_kernel,
    build_library,
)
from kernel_lib.runtime.release import RELEASE_RECORD, describe_release
from tests.conftest import ROOT
from tests.uploading import content

pytestmark = pytest.mark.usefixtures("no_account")
SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A copy of the package in a repository of its own, committed."""
    source = tmp_path / "repository/kernel_lib"
    shutil.copytree(ROOT / "kernel_lib", source, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "LICENSE", source.parent)
    git(source.parent, "init", "--quiet")
    (source.parent / ".gitignore").write_text("__pycache__/\nscratch.py\n")
    git(source.parent, "add", ".")
    git(source, "commit", "--quiet", "-m", "all")
    return source


def git(folder: Path, *arguments: str) -> str:
    name = ("-c", "user.name=n", "-c", "user.email=n@localhost", "-c", "commit.gpgsign=false")
    command = ["git", *name, *arguments]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def release(folder: Path) -> dict:
    return json.loads((folder / "kernel_lib" / RELEASE_RECORD).read_text())


# The library


def test_the_library_is_the_package_without_the_laptops_side(tmp_path: Path) -> None:
    build_library(tmp_path / "built/kernel-lib", "somebody")
    built = content(tmp_path / "built/kernel-lib")
    package_files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kernel_lib").rglob("*.py")
        if not {"offline", "bench", "blending", "runs"} & set(path.parts)
    }
    extra = {f"kernel_lib/{RELEASE_RECORD}", "dataset-metadata.json", "LICENSE"}
    assert set(built) == package_files | extra
    assert sum(map(len, built.values())) < 1_000_000
    assert list((tmp_path / "built").iterdir()) == [tmp_path / "built/kernel-lib"]
    assert check_dataset(tmp_path / "built/kernel-lib") == []
    assert needs_dir_mode(tmp_path / "built/kernel-lib")


def test_the_built_library_can_be_imported_alone_and_knows_its_release(
    library: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kernel-lib"
    build_library(folder, "somebody", source=library)
    code = (
        "import kernel_lib.config, kernel_lib.runtime.wheels as w; "
        "from kernel_lib.runtime.release import describe_release as d; print(w.__file__, d())"
    )
    command = [sys.executable, "-B", "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert str(folder) in done.stdout and "files as built" in done.stdout
    assert f"commit {git(library, 'rev-parse', 'HEAD')[:7]})" in done.stdout


def test_the_release_record_names_version_commit_and_every_file(
    library: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "kernel-lib"
    build_library(folder, "somebody", source=library)
    record = release(folder)
    assert (record["commit"], record["changed"]) == (git(library, "rev-parse", "HEAD"), False)
    assert list(record["files"]) == sorted(record["files"])
    assert set(record["files"]) == set(content(folder / "kernel_lib")) - {RELEASE_RECORD}
    for name, written in record["files"].items():
        assert hashlib.sha256((folder / "kernel_lib" / name).read_bytes()).hexdigest() == written
    assert "artifacts.py" in record["files"] and "runtime/files.py" in record["files"]


def test_two_builds_of_one_commit_are_equal_byte_for_byte(library: Path, tmp_path: Path) -> None:
    build_library(tmp_path / "one", "somebody", source=library)
    again = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(library.parent), str(again))
    build_library(tmp_path / "two", "somebody", source=again / "kernel_lib")
    assert content(tmp_path / "one") == content(tmp_path / "two")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("artifacts.py", True),  # edited
        ("new_room/new.py", True),  # not committed
        ("scratch.py", True),  # and even ignored by git
        ("offline/demo.py", False),  # does not travel
        ("__pycache__/a.cpython-312.pyc", False),
        ("../notes.md", False),
    ],
)
def test_a_change_since_the_commit_is_told_if_it_travels(
    library: Path, tmp_path: Path, name: str, changed: bool
) -> None:
    (library / name).parent.mkdir(exist_ok=True)
    with open(library / name, "a") as file:
        file.write("\n")
    build_library(tmp_path / "kernel-lib", "somebody", source=library)
    assert release(tmp_path / "kernel-lib")["changed"] is changed


def test_a_removed_file_is_a_change_and_a_staged_one_too(library: Path, tmp_path: Path) -> None:
    (library / "metrics/regression.py").unlink()
    build_library(tmp_path / "kernel-lib", "somebody", source=library)
    assert release(tmp_path / "kernel-lib")["changed"] is True
    git(library, "checkout", "--", ".")
    (library / "artifacts.py").write_text("x = 1\n")
    git(library, "add", ".")
    build_library(tmp_path / "kernel-lib", "somebody", source=library)
    assert release(tmp_path / "kernel-lib")["changed"] is True


def test_outside_git_or_in_another_projects_repository_there_is_no_commit(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(library, library.parent / "vendored/kernel_lib")
    (library.parent / ".gitignore").write_text("vendored/\n")
    build_library(tmp_path / "a", "somebody", source=library.parent / "vendored/kernel_lib")
    assert release(tmp_path / "a")["commit"] is None
    shutil.rmtree(library.parent / ".git")
    build_library(tmp_path / "a", "somebody", source=library)
    assert (release(tmp_path / "a")["commit"], release(tmp_path / "a")["changed"]) == (None, False)
    assert "no commit" in describe_release(tmp_path / "a/kernel_lib")
    monkeypatch.setenv("PATH", "")  # no git at all
    build_library(tmp_path / "a", "somebody", source=library)
    assert release(tmp_path / "a")["commit"] is None


@pytest.mark.parametrize("name", ["runtime/core.so", "notes.txt", "model/loop.py~", "a.zip"])
def test_a_file_of_another_kind_is_named_and_nothing_is_built(
    library: Path, tmp_path: Path, name: str
) -> None:
    (library / name).write_text("x")
    with pytest.raises(DataError, match="has no place in kernel-lib") as caught:
        build_library(tmp_path / "built/kernel-lib", "somebody", source=library)
    assert f"kernel_lib/{name}" in str(caught.value)
    assert list((tmp_path / "built").iterdir()) == []


def test_caches_hidden_files_and_an_old_record_stay_behind(library: Path, tmp_path: Path) -> None:
    build_library(tmp_path / "before", "somebody", source=library)
    for name in (
        ".env",
        "runtime/.secret.py",
        ".ipynb_checkpoints/a.py",
        "model/__pycache__/b.pyc",
    ):
        (library / name).parent.mkdir(exist_ok=True)
        (library / name).write_text("x")
    (library / RELEASE_RECORD).write_text("{}")
    build_library(tmp_path / "after", "somebody", source=library)
    assert content(tmp_path / "before") == content(tmp_path / "after")


# Secrets


@pytest.mark.parametrize("place_of_key", ["KAGGLE_KEY", "HF_TOKEN", "WANDB_API_KEY", "kaggle.json"])
def test_the_users_own_key_in_a_file_stops_the_build_and_is_not_shown(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place_of_key: str
) -> None:
    if place_of_key == "kaggle.json":
        (tmp_path / "home/.kaggle").mkdir(parents=True)
        login = {"username": "somebody", "key": SECRET}
        (tmp_path / "home/.kaggle/kaggle.json").write_text(json.dumps(login))
    else:
        monkeypatch.setenv(place_of_key, SECRET)
    build_library(tmp_path / "kernel-lib", "somebody", source=library)
    before = content(tmp_path / "kernel-lib")
    (library / "runtime/login.py").write_text(f'KEY = "{SECRET}"\n')
    with pytest.raises(DataError) as caught:
        build_library(tmp_path / "kernel-lib", "somebody", source=library)
    message = str(caught.value)
    assert "kernel_lib/runtime/login.py" in message and place_of_key in message
    assert SECRET not in message
    assert content(tmp_path / "kernel-lib") == before


# The notebooks


def test_a_kernel_is_the_notebook_and_its_metadata(tmp_path: Path) -> None:
    for name in templates.kernel_names():
        folder = tmp_path / name
        build_kernel(name, folder, "somebody")
        assert set(content(folder)) == {f"{name}.ipynb", "kernel-metadata.json"}
        assert content(folder)[f"{name}.ipynb"] == (ROOT / f"notebooks/{name}.ipynb").read_bytes()
        assert check_kernel(folder) == []


def test_a_notebook_with_outputs_or_internet_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.setattr(templates, "NOTEBOOKS", tmp_path / "notebooks")
    path = tmp_path / "notebooks/fb3_infer.ipynb"
    genuine = json.loads(path.read_text())
    with_output = json.loads(path.read_text())
    cell = next(cell for cell in with_output["cells"] if cell["cell_type"] == "code")
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["secret"]}]
    path.write_text(json.dumps(with_output))
    with pytest.raises(DataError, match="has outputs or an execution count"):
        build_kernel("fb3_infer", tmp_path / "fb3_infer", "somebody")
    genuine["metadata"]["kaggle"]["isInternetEnabled"] = True
    path.write_text(json.dumps(genuine))
    with pytest.raises(DataError, match="isInternetEnabled = true"):
        build_kernel("fb3_infer", tmp_path / "fb3_infer", "somebody")
    assert not (tmp_path / "fb3_infer").exists()
    with pytest.raises(DataError, match="there is no template"):
        build_kernel("fb3_predict", tmp_path / "fb3_predict", "somebody")


# The command


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    """Runs the command with some arguments; its status, lines and errors."""
    monkeypatch.setattr(templates, "BUILD", tmp_path / "build")

    def run_command(*arguments: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["package", *arguments])
        status = package.main()
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return run_command


def test_the_command_builds_every_dataset_and_says_so_in_a_line_each(
    command, shelf: Path, material, tmp_path: Path
) -> None:
    status, lines, err = command(
        *("dataset", "--owner", "somebody", "--backbone", str(material.backbone)),
        *("--name", "deberta-v3-base"),
    )
    assert (status, err) == (0, "")
    assert [line.split()[-1].rpartition("/")[2] for line in lines[:-1]] == [
        "kernel-lib",
        "kernel-lib-wheels",
        "deberta-v3-base",
    ]
    assert " MB " in lines[0] and " files " in lines[0]
    assert lines[-1] == "3 files and folders checked, no problem"
    assert len(list((tmp_path / "build/datasets").iterdir())) == 3


def test_the_command_builds_weights_and_notebooks(
    command, written_run: Path, tmp_path: Path
) -> None:
    status, lines, _ = command("weights", "--owner", "somebody", "--run", str(written_run))
    assert status == 0 and lines[0].endswith("fb3-weights")
    assert lines[1] == "1 file or folder checked, no problem"
    status, lines, _ = command("kernels", "--owner", "somebody")
    assert status == 0 and len(lines) == len(templates.kernel_names()) + 1
    values = json.loads((tmp_path / "build/kernels/fb3_infer/kernel-metadata.json").read_text())
    assert values["kernel_sources"] == ["somebody/fb3-train"]
    status, lines, _ = command("kernels", "--owner", "somebody", "--name", "fb3_train")
    assert status == 0 and len(lines) == 2


def test_without_a_name_the_command_goes_on_with_a_stand_in(command, tmp_path: Path) -> None:
    status, lines, _ = command("kernels")
    assert status == 0 and "OWNER=" in lines[0]
    values = json.loads((tmp_path / "build/kernels/fb3_train/kernel-metadata.json").read_text())
    assert values["id"] == "your-kaggle-name/fb3-train"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("weights",), "SettingsError: which run? Add RUN="),
        (("weights", "--run", "nowhere"), "ArtifactError: nowhere/run.json is missing"),
        (("dataset", "--name", "deberta-v3-base"), "add BACKBONE="),
        (("kernels", "--owner", "my name"), "is no Kaggle user name"),
        (("kernels", "--name", "fb3_predict"), "there is no template"),
    ],
)
def test_a_command_that_cannot_be_done_is_one_line(
    command, shelf: Path, arguments: tuple[str, ...], words: str
) -> None:
    status, _, err = command(*arguments)
    assert status == 1 and words in err and len(err.splitlines()) == 1
