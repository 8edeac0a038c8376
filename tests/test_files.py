"""A file is whole or as it was: after an error, on a full disk, after an interrupt."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.files import read_json, replacing, sha256, write_json, write_text


@contextlib.contextmanager
def no_file_longer_than(limit: int) -> Iterator[None]:
    """The system itself refuses to write on, in the middle of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    path.write_text("old")
    return path


def alone(path: Path) -> bool:
    return list(path.parent.iterdir()) == [path]


def test_the_new_content_takes_the_place_of_the_old(old: Path) -> None:
    with replacing(old) as temporary:
        temporary.write_text("new")
        assert old.read_text() == "old"
        assert temporary.parent == old.parent  # a rename across file systems would not be atomic
    assert old.read_text() == "new" and alone(old)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_inside_leaves_the_old_file_and_nothing_else(old: Path, error) -> None:
    with pytest.raises(error), replacing(old) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert old.read_text() == "old" and alone(old)


def test_an_error_inside_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(ValueError), replacing(tmp_path / "new.json") as temporary:
        temporary.write_text("half")
        raise ValueError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_named_and_leaves_the_old_file(old: Path) -> None:
    """What is written to /dev/full meets the kernel's own 'no space left'."""
    with pytest.raises(ArtifactError) as caught, replacing(old) as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_text("new")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert "No space left on device" in str(caught.value) and str(old) in str(caught.value)
    assert "free some space" in str(caught.value)
    assert old.read_text() == "old" and alone(old)
    assert Path("/dev/full").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file size limits as Linux has them")
def test_a_write_that_breaks_off_in_the_middle_leaves_the_old_file(old: Path) -> None:
    with pytest.raises(ArtifactError, match="could not write"), no_file_longer_than(1 << 20):
        write_text(old, "x" * (2 << 20))
    assert old.read_text() == "old" and alone(old)


def test_a_disk_that_is_full_at_the_last_moment_leaves_the_old_file(old: Path, monkeypatch) -> None:
    """Delayed allocation: the space is found missing only when the data is forced to disk."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_text(old, "new")
    assert old.read_text() == "old" and alone(old)


def test_a_folder_that_cannot_be_made_is_the_same_clear_error(old: Path) -> None:
    with pytest.raises(ArtifactError, match="could not write"):
        write_text(old / "fold0" / "log.jsonl", "x")
    assert old.read_text() == "old"


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write_json(tmp_path / "a/b/c.json", {"x": 1})
    assert read_json(tmp_path / "a/b/c.json") == {"x": 1}


def test_text_is_written_as_it_is_with_its_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "t", "a\r\nb\nc\r纠…")
    assert (tmp_path / "t").read_bytes() == "a\r\nb\nc\r纠…".encode()


def test_json_keeps_order_and_reads_back(tmp_path: Path) -> None:
    value = {"z": [1, 0.1, None, True], "a": "…", "m": {"1": -1e-300}}
    write_json(tmp_path / "v.json", value)
    assert read_json(tmp_path / "v.json") == value
    assert list(read_json(tmp_path / "v.json")) == ["z", "a", "m"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe{}"])
def test_damaged_json_is_an_error_with_the_cure(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"run\.json is not JSON.*Copy it again"):
        read_json(tmp_path / "run.json")


def test_missing_json_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json is missing"):
        read_json(tmp_path / "run.json")


def test_sha256_of_known_content(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "f") == hashlib.sha256(b"abc" * 100_000).hexdigest()
