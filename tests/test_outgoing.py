"""What a dataset's folder sends is counted and listed right."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kernel_lib.offline.upload.outgoing import (
    CONTENTS,
    dataset_entries,
    listed_files,
    write_contents,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Metadata, a file and a tree."""
    for name, size in {"dataset-metadata.json": 9, "LICENSE": 2_000, "run/a/b.bin": 3_000}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / "run/c d.txt").write_bytes(b"")
    return tmp_path


def test_files_travel_alone_and_folders_as_one_archive(folder: Path) -> None:
    assert [str(entry).strip() for entry in dataset_entries(folder)] == [
        "0.002 MB  LICENSE",
        "0.003 MB  run.zip  (run/, 2 files)",
    ]


def test_the_list_names_every_file_that_is_sent_with_its_hash(folder: Path) -> None:
    contents = write_contents(folder)
    assert (folder / CONTENTS).read_bytes() == contents
    expected = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("LICENSE", "run/a/b.bin", "run/c d.txt")
    }
    lines = [line.split("  ", 1) for line in contents.decode().splitlines()]
    assert {name: digest for digest, name in lines} == expected
    assert listed_files(contents) == {*expected, CONTENTS}


def test_the_list_is_the_same_until_a_file_changes(folder: Path) -> None:
    first = write_contents(folder)
    assert write_contents(folder) == first  # the list does not list itself
    (folder / "run/c d.txt").write_bytes(b"1")
    assert write_contents(folder) != first
