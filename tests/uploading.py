"""What the tests of uploads share: a run as training leaves it, a wheel, and no account."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from pathlib import Path

import pytest

from kernel_lib.offline.upload.account import SECRET_VARIABLES
from kernel_lib.runtime import wheels
from kernel_lib.runtime.wheels import CarriedWheel

WHEEL = "small_thing-1.0-py3-none-any.whl"


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder, hidden ones too, by their path in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of the user's in the environment, and none at home."""
    for name in (*SECRET_VARIABLES, "KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def written_run(tmp_path: Path) -> Path:
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
