"""A folder for upload is whole or not there, and nothing that does not belong there gets in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.offline.upload.staging import place, staged
from tests.conftest import ROOT
from tests.uploading import content

pytestmark = pytest.mark.usefixtures("no_account")


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
