"""Wheels are used without installation, and only those that are named, byte for byte."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from kernel_lib.runtime import wheels
from kernel_lib.runtime.files import sha256
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE, input_root
from kernel_lib.runtime.wheels import CARRIED, CarriedWheel, attach_wheels, check_wheel


def record_line(name: str, content: bytes) -> str:
    code = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={code},{len(content)}\n"


def write_wheel(folder: Path, package: str, answer: int = 42) -> Path:
    """A real, if tiny, pure-Python wheel."""
    about = f"{package}-1.0.dist-info"
    files = {
        f"{package}/__init__.py": "from .inner import answer\n",
        f"{package}/inner.py": f"answer = {answer}\n",
        f"{about}/METADATA": f"Name: {package}\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    record = "".join(record_line(name, text.encode()) for name, text in files.items())
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{package}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def extract(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def pinned(wheel: Path) -> CarriedWheel:
    """The line that a wheel would have among the carried ones."""
    name = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        record = archive.read(f"{name}-1.0.dist-info/RECORD")
    return CarriedWheel(
        f"{name}==1.0", wheel.name, hashlib.sha256(record).hexdigest(), sha256(wheel)
    )


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path))
    (tmp_path / "input/datasets/somebody").mkdir(parents=True)
    return tmp_path / "input/datasets/somebody"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A wheel that counts as one of the carried; what is imported from it is forgotten again."""
    made = write_wheel(tmp_path / "made", "tinywheel")
    monkeypatch.setattr(wheels, "CARRIED", (*CARRIED, pinned(made)))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # Kaggle's inputs cannot be written to
    yield made
    for name in [name for name in sys.modules if name.startswith("tinywheel")]:
        del sys.modules[name]
    importlib.invalidate_caches()


# used


@pytest.mark.parametrize("mount", ["", "datasets/me"])
def test_a_wheel_file_is_importable_without_installation(
    inputs: Path, wheel: Path, mount: str, capsys
) -> None:
    folder = input_root() / mount / "wheels"
    folder.mkdir(parents=True)
    there = Path(shutil.copy(wheel, folder))
    assert attach_wheels() == [there]
    assert importlib.import_module("tinywheel").answer == 42
    assert importlib.import_module("tinywheel").__file__.startswith(str(there))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("mount", ["", "datasets/me"])
def test_a_wheel_that_kaggle_extracted_is_importable_too(
    inputs: Path, wheel: Path, mount: str
) -> None:
    extracted = extract(wheel, input_root() / mount / "wheels" / wheel.stem)
    assert attach_wheels() == [extracted]
    assert importlib.import_module("tinywheel").answer == 42
    assert importlib.import_module("tinywheel").__file__.startswith(str(extracted))


def test_what_the_image_has_installed_comes_first_and_nothing_is_added_twice(
    inputs: Path, wheel: Path
) -> None:
    there = Path(shutil.copy(wheel, inputs / wheel.name))
    attach_wheels()
    attach_wheels()
    assert sys.path[-1] == str(there)
    assert sys.path.count(str(there)) == 1


def test_no_inputs_at_all_are_no_error(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path / "nowhere"))
    assert attach_wheels() == []


def test_the_carried_wheel_is_told_from_what_is_none(wheel: Path, tmp_path: Path) -> None:
    assert check_wheel(wheel) == wheels.CARRIED[-1]
    assert check_wheel(extract(wheel, tmp_path / "any name")) == wheels.CARRIED[-1]
    (tmp_path / "empty").mkdir()
    assert check_wheel(tmp_path / "empty") is None


# left alone


def test_wheels_that_are_not_named_stay_off_the_path_and_are_listed(
    inputs: Path, wheel: Path, capsys
) -> None:
    path = list(sys.path)
    strangers = [write_wheel(inputs / "a", f"stranger{number}") for number in range(7)]
    strangers.append(inputs / "b/other-1.0-cp311-cp311-linux_x86_64.whl")
    strangers[-1].parent.mkdir()
    strangers[-1].write_bytes(b"")
    assert attach_wheels() == []
    assert sys.path == path
    (line,) = capsys.readouterr().out.splitlines()
    assert str(strangers[0]) in line and str(strangers[4]) in line and "and 3 more" in line
    assert "kernel_lib/runtime/wheels.py" in line and wheel.name in line


def test_another_wheel_under_the_right_name_stays_off_the_path(
    inputs: Path, wheel: Path, capsys
) -> None:
    other = write_wheel(inputs, "tinywheel", answer=666)
    assert other.name == wheel.name
    assert attach_wheels() == []
    assert str(other) not in sys.path
    assert str(other) in capsys.readouterr().out


def test_the_right_wheel_under_another_name_stays_off_the_path(inputs: Path, wheel: Path) -> None:
    there = shutil.copy(wheel, inputs / "numpy-9.9-py3-none-any.whl")
    assert attach_wheels() == []
    assert there not in sys.path


def test_a_wheel_with_an_entry_more_is_another_wheel(inputs: Path, wheel: Path) -> None:
    there = Path(shutil.copy(wheel, inputs / wheel.name))
    with zipfile.ZipFile(there, "a") as archive:
        archive.writestr("extra.py", "")
    assert check_wheel(there) is None


def swap(folder: Path) -> None:
    (folder / "tinywheel/inner.py").write_text("answer = 43\n")


def swap_with_its_line(folder: Path) -> None:
    """The hash in ``RECORD`` is made to fit; then ``RECORD`` is not the pinned one."""
    record = folder / "tinywheel-1.0.dist-info/RECORD"
    name, content = "tinywheel/inner.py", b"answer = 43\n"
    lines = [line for line in record.read_text().splitlines(True) if not line.startswith(name)]
    record.write_text(record_line(name, content) + "".join(lines))
    (folder / name).write_bytes(content)


def remove(folder: Path) -> None:
    (folder / "tinywheel/inner.py").unlink()


def become_a_folder(folder: Path) -> None:
    remove(folder)
    (folder / "tinywheel/inner.py").mkdir()


def link_a_package(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "extra").symlink_to(folder.parent / "elsewhere")


def link_to_nothing(folder: Path) -> None:
    remove(folder)
    (folder / "tinywheel/inner.py").symlink_to("nowhere")


def add(name: str):
    def change(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")

    change.__name__ = f"add {name}"
    return change


@pytest.mark.parametrize(
    "change",
    [
        swap,
        swap_with_its_line,
        remove,
        become_a_folder,
        link_a_package,
        link_to_nothing,
        add("extra.py"),
        add("sitecustomize.py"),
        add("extra.so"),
        add("extra.cpython-312-x86_64-linux-gnu.so"),
        add("extra.pyc"),
        add("tinywheel/extra.py"),
        add("tinywheel/__pycache__/inner.cpython-312.pyc"),
        add("extra-1.0.dist-info/entry_points.txt"),
    ],
    ids=lambda change: change.__name__,
)
def test_an_extracted_wheel_must_be_exactly_its_record(
    inputs: Path, wheel: Path, change, capsys
) -> None:
    extracted = extract(wheel, inputs / wheel.stem)
    assert check_wheel(extracted) is not None
    change(extracted)
    assert check_wheel(extracted) is None
    assert attach_wheels() == []
    assert str(extracted) not in sys.path
    assert str(extracted) in capsys.readouterr().out


# the pins


def test_each_pin_is_of_a_pure_wheel_of_the_version_that_requirements_ask_for() -> None:
    requirements = (Path(__file__).parents[1] / "requirements.txt").read_text().splitlines()
    for carried in CARRIED:
        assert carried.requirement in requirements
        name, version = carried.requirement.split("==")
        assert carried.wheel == f"{name.replace('-', '_')}-{version}-py3-none-any.whl"
        assert {len(carried.record_sha256), len(carried.wheel_sha256)} == {64}


def test_the_installed_iterative_stratification_is_the_pinned_one(tmp_path: Path) -> None:
    """What pip unpacked here, without what pip added, in the order of the wheel."""
    about = "iterative_stratification-0.1.9.dist-info"
    added = {f"{about}/{name}" for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")}
    files = {
        str(file): file.locate()
        for file in importlib.metadata.files("iterative-stratification") or ()
        if str(file) not in added and file.suffix != ".pyc"
    }
    record = ""
    for name in sorted(files, key=lambda name: (name.startswith(about), name)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[name], tmp_path / name)
        record += record_line(name, (tmp_path / name).read_bytes())
    (tmp_path / about / "RECORD").write_text(f"{record}{about}/RECORD,,\n")
    assert check_wheel(tmp_path) == CARRIED[0]
