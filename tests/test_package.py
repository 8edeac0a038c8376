"""What goes up is all that is needed and nothing else; a build is whole or changes nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from kernel_lib.errors import ArtifactError, BackboneError, DataError, SettingsError
from kernel_lib.offline.upload import account, package, templates, wheel_dataset
from kernel_lib.offline.upload.metadata import check_dataset, check_kernel, needs_dir_mode
from kernel_lib.offline.upload.model_datasets import HASHED, default_name
from kernel_lib.offline.upload.package import (
    build_backbone,
    build_kernel,
    build_library,
    build_weights,
    build_wheels,
)
from kernel_lib.offline.upload.staging import place, staged
from kernel_lib.runtime import wheels
from kernel_lib.runtime.release import RELEASE_RECORD, describe_release
from kernel_lib.runtime.wheels import CarriedWheel
from tests.conftest import ROOT

SECRET = "0123456789abcdef0123456789abcdef"
WHEEL = "small_thing-1.0-py3-none-any.whl"


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*account.SECRET_VARIABLES, "KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


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


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too, by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def release(folder: Path) -> dict:
    return json.loads((folder / "kernel_lib" / RELEASE_RECORD).read_text())


# The library


def test_the_library_is_the_package_without_the_laptops_side(tmp_path: Path) -> None:
    build_library(tmp_path / "built/kernel-lib", "somebody")
    built = content(tmp_path / "built/kernel-lib")
    package_files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "kernel_lib").rglob("*.py")
        if not {"offline", "bench", "blending"} & set(path.parts)
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


# Whole or not at all


def test_an_error_or_an_interrupt_leaves_the_earlier_folder(tmp_path: Path) -> None:
    folder = tmp_path / "essays"
    with staged(folder, kinds=(".txt",)) as new:
        (new / "a.txt").write_text("old")
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), staged(folder, kinds=(".txt",)) as new:
            (new / "a.txt").write_text("half")
            raise error
        assert content(tmp_path) == {"essays/a.txt": b"old"}
    with staged(folder, kinds=(".txt",)) as new:
        (new / "b.txt").write_text("new")
        assert content(folder) == {"a.txt": b"old"}
    assert content(tmp_path) == {"essays/b.txt": b"new"}


def test_what_a_killed_build_left_behind_is_cleared_away(tmp_path: Path) -> None:
    code = (
        "import os, signal; from pathlib import Path; "
        "from kernel_lib.offline.upload.staging import staged\n"
        f"with staged(Path({str(tmp_path / 'essays')!r}), kinds=('.txt',)) as new:\n"
        "    (new / 'a.txt').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT)
    assert len(content(tmp_path)) == 1 and not (tmp_path / "essays").exists()
    with staged(tmp_path / "essays", kinds=(".txt",)) as new:
        (new / "a.txt").write_text("whole")
    assert content(tmp_path) == {"essays/a.txt": b"whole"}


def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=r"could not build .*essays: No space left") as caught,
        staged(tmp_path / "essays", kinds=(".txt",)),
    ):
        raise OSError(28, "No space left on device", "a.txt")
    assert "untouched" in str(caught.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [".hidden", "__pycache__/a.txt", ".git/a.txt", "a.exe", "link"])
def test_hidden_files_caches_links_and_other_kinds_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="has no place in essays"):  # noqa: SIM117
        with staged(tmp_path / "essays", kinds=(".txt", "link", ".hidden")) as new:
            (new / name).parent.mkdir(exist_ok=True)
            if name == "link":
                (new / name).symlink_to("/etc/hostname")
            else:
                (new / name).write_text("x")


def test_a_file_is_linked_where_that_is_possible_and_copied_where_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to("blob")  # as a download cache has it
    place(tmp_path / "model.safetensors", tmp_path / "a/model.safetensors")
    assert (tmp_path / "a/model.safetensors").samefile(tmp_path / "blob")
    assert not (tmp_path / "a/model.safetensors").is_symlink()

    def refuse(*paths: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    place(tmp_path / "model.safetensors", tmp_path / "b/model.safetensors")
    assert not (tmp_path / "b/model.safetensors").samefile(tmp_path / "blob")
    assert (tmp_path / "b/model.safetensors").read_bytes() == b"weights"


# The wheels


def make_wheel(folder: Path, *, name: str = WHEEL, python: str | None = ">=3.8") -> CarriedWheel:
    """A small wheel, and what the library would say of it."""
    distribution, version, *_ = name.split("-")
    info = f"{distribution}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    metadata += f"Requires-Python: {python}\n" if python else ""
    files = {
        f"{distribution}.py": "x = 1\n",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for file, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        lines.append(f"{file},sha256={digest.decode()},{len(text)}\n")
    files[f"{info}/RECORD"] = "".join(lines) + f"{info}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return CarriedWheel(
        requirement=f"{distribution.replace('_', '-')}=={version}",
        wheel=name,
        record_sha256=hashlib.sha256(files[f"{info}/RECORD"].encode()).hexdigest(),
        wheel_sha256=hashlib.sha256((folder / name).read_bytes()).hexdigest(),
    )


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip looks at; it holds the one wheel that the library carries."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    monkeypatch.setattr(wheels, "CARRIED", (make_wheel(tmp_path / "shelf"),))
    return tmp_path / "shelf"


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


# The backbone


def test_a_backbone_has_the_files_that_training_reads_and_no_code(material, tmp_path: Path) -> None:
    source = tmp_path / "DeBERTa_v3 tiny"
    shutil.copytree(material.backbone, source)
    for name in ("modeling.py", ".gitattributes", "README.md", "pytorch_model.bin", "tf_model.h5"):
        (source / name).write_text("x")
    (source / "LICENSE").write_text("MIT")
    (source / "onnx").mkdir()
    (source / "onnx/model.onnx").write_text("x")
    folder = tmp_path / "deberta-v3-tiny"
    build_backbone(source, folder, "somebody", source.name)
    needed = {"config.json", "model.safetensors", "spm.model", "tokenizer_config.json"}
    assert set(content(folder)) == {*needed, "LICENSE", "dataset-metadata.json"}
    assert (folder / "model.safetensors").samefile(source / "model.safetensors")
    values = json.loads((folder / "dataset-metadata.json").read_text())
    assert (values["id"], values["title"]) == ("somebody/deberta-v3-tiny", "DeBERTa_v3 tiny")
    assert check_dataset(folder) == [] and not needs_dir_mode(folder)


def test_a_built_backbone_loads(material, tmp_path: Path) -> None:
    from kernel_lib.model.backbone import load_backbone
    from kernel_lib.model.location import find_backbone
    from kernel_lib.text.tokenizer import build_tokenizer

    build_backbone(material.backbone, tmp_path / "tiny-backbone", "somebody", "tiny-backbone")
    folder = find_backbone(str(tmp_path / "tiny-backbone"))
    assert len(build_tokenizer(folder, keep_newlines=True)) > 100
    assert load_backbone(folder, dropout=0.1).config.hidden_size == 32


def test_the_weights_that_are_taken_are_those_that_training_would_load() -> None:
    from kernel_lib.model.backbone import WEIGHT_FILES
    from kernel_lib.offline.upload.model_datasets import WEIGHTS

    assert WEIGHTS == WEIGHT_FILES


def test_weights_in_shards_come_with_their_index_and_only_from_the_folder(
    material, tmp_path: Path
) -> None:
    source = tmp_path / "sharded"
    shutil.copytree(material.backbone, source)
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    (source / "model-00002-of-00002.safetensors").write_text("x")
    index = source / "model.safetensors.index.json"
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}))
    build_backbone(source, tmp_path / "sharded-backbone", "somebody", "sharded-backbone")
    assert {index.name, *shards} < set(content(tmp_path / "sharded-backbone"))
    for name in ("../secret.safetensors", "model-00003-of-00002.safetensors"):
        (tmp_path / "secret.safetensors").write_text("x")
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(BackboneError, match="which is not in the folder"):
            build_backbone(source, tmp_path / "other-backbone", "somebody", "other-backbone")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", r"has no config\.json"),
        ("spm.model", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_a_folder_that_is_no_whole_backbone_is_refused(
    material, tmp_path: Path, missing: str, words: str
) -> None:
    shutil.copytree(material.backbone, tmp_path / "source")
    (tmp_path / "source" / missing).unlink()
    with pytest.raises(BackboneError, match=words):
        build_backbone(tmp_path / "source", tmp_path / "backbone", "somebody", "backbone")
    assert not (tmp_path / "backbone").exists()


def test_the_folder_around_a_backbone_gets_a_hint(material, tmp_path: Path) -> None:
    shutil.copytree(material.backbone, tmp_path / "around/1")
    with pytest.raises(BackboneError, match=r"Is .*around/1 meant\?"):
        build_backbone(tmp_path / "around", tmp_path / "backbone", "somebody", "backbone")


# The weights of a run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as training leaves it: two folds finished, one begun."""
    from tests.test_artifacts import make_run

    folder = tmp_path / "working/run"
    make_run(folder)
    (folder / "tokenizer").mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "tokenizer" / name).write_text("{}")
    for name in ("folds.csv", "oof.csv", "report.html", "notes.txt", "fold2/log.jsonl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x\n")
    for name in ("fold0/resume.safetensors", "fold2/resume.safetensors", "fold1/.oof.csv.1.tmp"):
        (folder / name).write_text("x")
    return folder


FOLD = {"model.safetensors", "config.json", "oof.csv", "log.jsonl", "manifest.json"}


def test_the_weights_are_the_finished_folds_and_what_inference_reads(
    run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "fb3-weights"
    assert default_name(run) == "fb3-weights"
    build_weights(run, folder, "somebody", "fb3-weights")
    files = {"run.json", "folds.csv", "oof.csv", "report.html"}
    files |= {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    files |= {f"fold{fold}/{name}" for fold in (0, 1) for name in FOLD}
    assert set(content(folder)) == {f"run/{name}" for name in files} | {"dataset-metadata.json"}
    assert content(folder)["run/fold1/oof.csv"] == (run / "fold1/oof.csv").read_bytes()
    assert check_dataset(folder) == [] and needs_dir_mode(folder)


def test_the_names_of_the_run_folder_are_those_of_the_library() -> None:
    from kernel_lib import artifacts
    from kernel_lib.offline.upload import model_datasets as ours

    assert (ours.RECORD, ours.MANIFEST, ours.LOG) == (
        artifacts.RUN_RECORD,
        artifacts.MANIFEST,
        artifacts.LOG,
    )
    assert ours.HASHED == (artifacts.WEIGHTS, artifacts.CONFIG, artifacts.OOF)
    assert {Path(name).parent.name for name in ours.RUN_TOKENIZER} == {artifacts.TOKENIZER}


def test_the_built_weights_of_a_real_run_predict_the_same(
    make_case, material, tmp_path: Path
) -> None:
    from kernel_lib.config import InferenceSettings
    from kernel_lib.results.ensemble import predict_submission
    from kernel_lib.results.report import write_report

    trained = make_case().cross_validate()
    build_weights(trained.folder, tmp_path / "fb3-weights", "somebody", "fb3-weights")
    predictions = []
    for folder in (trained.folder, tmp_path / "fb3-weights/run"):
        settings = InferenceSettings(
            runs=(str(folder),),
            data_dir=str(material.competition),
            submission=str(tmp_path / "submission.csv"),
        )
        path = predict_submission(settings)
        predictions.append(np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 7)))
    assert np.array_equal(predictions[0], predictions[1]) and predictions[0].std() > 0
    copy = tmp_path / "copy"  # a report is written into its run folder
    shutil.copytree(tmp_path / "fb3-weights/run", copy)
    from kernel_lib.artifacts import open_run

    assert Path(write_report(open_run(copy))).stat().st_size > 10_000


def test_one_flipped_byte_in_any_hashed_file_is_named(run: Path, tmp_path: Path) -> None:
    for name in HASHED:
        path = run / "fold1" / name
        genuine = path.read_bytes()
        path.write_bytes(genuine[:-3] + bytes([genuine[-3] ^ 1]) + genuine[-2:])
        with pytest.raises(ArtifactError, match=r"is not the file that training wrote") as caught:
            build_weights(run, tmp_path / "fb3-weights", "somebody", "fb3-weights")
        assert str(path) in str(caught.value)
        path.write_bytes(genuine)
    build_weights(run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


@pytest.mark.parametrize("name", ["fold0/oof.csv", "tokenizer/tokenizer.json", "run.json"])
def test_a_missing_file_is_named(run: Path, tmp_path: Path, name: str) -> None:
    (run / name).unlink()
    with pytest.raises(ArtifactError, match="is missing") as caught:
        build_weights(run, tmp_path / "fb3-weights", "somebody", "fb3-weights")
    assert name in str(caught.value) and not (tmp_path / "fb3-weights").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run_id": "other"}, "of run other, not fold 1 of abc123"),
        ({"fold": 0}, "holds fold 0"),
        ({"sha256": {}}, "is not a manifest"),
        ({"sha256": None}, "is not a manifest"),
    ],
)
def test_a_manifest_of_something_else_is_refused(
    run: Path, tmp_path: Path, changes: dict, words: str
) -> None:
    path = run / "fold1/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ArtifactError, match=words):
        build_weights(run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


def test_a_hostile_manifest_cannot_name_a_file_outside_its_fold(run: Path, tmp_path: Path) -> None:
    path, outside = run / "fold1/manifest.json", tmp_path / "working/private.txt"
    outside.write_text("x")
    manifest = json.loads(path.read_text())
    manifest["sha256"]["../../private.txt"] = hashlib.sha256(b"x").hexdigest()
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"private\.txt is missing"):
        build_weights(run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


def test_a_run_without_a_finished_fold_is_refused(run: Path, tmp_path: Path) -> None:
    for fold in (0, 1):
        (run / f"fold{fold}/manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no finished fold"):
        build_weights(run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


def test_a_name_that_kaggle_would_not_take_is_refused(run: Path, material, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="6 to 50 characters"):
        build_weights(run, tmp_path / "a", "somebody", "mine")
    with pytest.raises(SettingsError, match="6 to 50 characters"):
        build_backbone(material.backbone, tmp_path / "a", "somebody", "model")


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


def test_the_command_builds_weights_and_notebooks(command, run: Path, tmp_path: Path) -> None:
    status, lines, _ = command("weights", "--owner", "somebody", "--run", str(run))
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
