"""A disk that is really full: a small file system, mounted where only a child process sees it."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from pathlib import Path

import pytest

from kernel_lib.artifacts import open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.training.state import RESUME
from tests.killing import run_to_the_end
from tests.test_kills_training import check_after_the_kill, files_of, train

CLONE_NEWNS, CLONE_NEWUSER, MS_REMOUNT = 0x00020000, 0x10000000, 32
KILOBYTES = (0, 100, 300, 420, 620, 1080, 1500)  # weights are 160, a state up to 650


def mount_disk(folder: Path, kilobytes: int, *, again: bool = False) -> None:
    """Makes ``folder`` a disk of that size, for this process alone; or changes the size."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if not again:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
            raise PermissionError(ctypes.get_errno(), "no namespaces of its own")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    size = f"size={max(4, kilobytes)}k".encode()  # 0 would be no limit
    flags = MS_REMOUNT if again else 0
    if libc.mount(b"disk", str(folder).encode(), b"tmpfs", flags, size) != 0:
        raise PermissionError(ctypes.get_errno(), "a file system cannot be mounted")


def fill(path: Path) -> None:
    """Takes all room that is left."""
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """An empty folder, where such a disk can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        run_to_the_end(mount_disk, folder, 4)
    except AssertionError as error:
        reason = str(error).strip().splitlines()[-1]
        if "PermissionError" not in reason:
            raise
        pytest.skip(f"small file systems are not allowed here: {reason}")
    return folder


def train_on_growing_disks(backbone: Path, data_dir: Path, disk: Path, unbroken: Path) -> None:
    """Begins with no room at all, and goes on with a little more each time."""
    failed = went_on = resumed = 0
    for kilobytes in KILOBYTES:
        mount_disk(disk, kilobytes, again=kilobytes > 0)
        printed = io.StringIO()
        before = finished_folds(disk / "run")
        resumed += bool(list((disk / "run").rglob(RESUME)))
        try:
            with contextlib.redirect_stdout(printed):
                train(backbone, data_dir, disk)
        except ArtifactError as error:
            assert str(error).startswith("could not write run/"), error
            assert "No space left on device" in str(error), error
            assert "free some space and run again" in str(error)
            failed += 1
        else:
            assert finished_folds(disk / "run") == [0, 1]
        check_after_the_kill(disk / "run")
        assert [path for path in (disk / "run").rglob(".*") if path.is_file()] == []
        skipped_saves = printed.getvalue().count("going on without this save")
        went_on += bool(skipped_saves and finished_folds(disk / "run") > before)
    assert failed >= 3 and went_on >= 1 and resumed >= 1, (failed, went_on, resumed)
    assert files_of(disk / "run") == files_of(unbroken)


def finished_folds(folder: Path) -> list[int]:
    return open_run(folder).finished_folds() if (folder / "run.json").exists() else []


def test_training_on_a_full_disk_ends_clearly_and_goes_on_to_the_same_files(
    material, tmp_path: Path, disk: Path
) -> None:
    unbroken = tmp_path / "unbroken"
    unbroken.mkdir()
    run_to_the_end(train, material.backbone, material.competition, unbroken)
    args = (material.backbone, material.competition, disk, unbroken / "run")
    run_to_the_end(train_on_growing_disks, *args)


def predict_on_a_full_disk(run_folder: Path, data_dir: Path, disk: Path) -> None:
    """With the submission of an earlier run on it, and then with room."""
    mount_disk(disk, 16)
    submission, filler = disk / "submission.csv", disk / "filler"
    submission.write_text("what stood there before")
    fill(filler)
    settings = InferenceSettings(
        runs=(str(run_folder),),
        data_dir=str(data_dir),
        submission=str(submission),
        precision="float32",
    )
    with pytest.raises(ArtifactError, match=r"could not write .*submission\.csv: No space left"):
        predict_submission(settings)
    assert sorted(disk.iterdir()) == [filler, submission]
    assert submission.read_text() == "what stood there before"
    filler.unlink()
    predict_submission(settings)
    assert list(disk.iterdir()) == [submission]
    assert submission.read_text().startswith("text_id,")


def test_a_submission_stays_as_it_was_when_the_disk_is_full(trained, material, disk) -> None:
    run_to_the_end(predict_on_a_full_disk, trained(folds=(0,)), material.competition, disk)
