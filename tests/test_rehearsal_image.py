"""What counts as being on Kaggle's image, and that a wheel brings back what does not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from kernel_lib.errors import DataError
from kernel_lib.offline.rehearsal import image
from kernel_lib.offline.rehearsal.image import (
    IMAGE,
    KERNEL,
    differences,
    hidden_modules,
    read_image,
)
from tests.conftest import NO_NETWORK, ROOT
from tests.test_wheels import record_line

# the list


def test_a_line_is_a_requirement_or_a_remark(tmp_path: Path) -> None:
    (tmp_path / "image.txt").write_text(
        "# a remark\n\nScikit_Learn==1.6.1  # seen\ntorch\nnumba>=0.2,!=0.3\n", encoding="utf-8"
    )
    found = read_image(tmp_path / "image.txt")
    assert {name: str(one.specifier) for name, one in found.items()} == {
        "scikit-learn": "==1.6.1",
        "torch": "",
        "numba": "!=0.3,>=0.2",
    }


def test_a_line_that_is_none_is_named_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "image.txt").write_text("torch\n==1.0\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"image\.txt:2: '==1\.0' is no requirement"):
        read_image(tmp_path / "image.txt")


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image\.txt is missing"):
        read_image(tmp_path / "image.txt")


# what is hidden


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that some packages are installed, with the modules and requirements given."""

    def pretend(modules: dict[str, list[Any]], requires: dict[str, list[str]]) -> None:
        def look_up(name: str) -> list[str] | None:
            if name not in requires:
                raise importlib.metadata.PackageNotFoundError(name)
            return requires[name] or None

        monkeypatch.setattr(importlib.metadata, "packages_distributions", lambda: modules)
        monkeypatch.setattr(importlib.metadata, "requires", look_up)

    return pretend


def test_only_what_no_package_of_the_image_brings_is_hidden(installed) -> None:
    installed(
        {"numpy": ["numpy"], "onlyhere": ["Only_Here"], "deep": ["deep"], "torch": ["torch"]},
        {"numpy": ["middle>=1"], "middle": ["Deep"], "deep": [], "only-here": ["numpy"]},
    )
    assert hidden_modules(["numpy"]) == {"onlyhere": "Only_Here"}


def test_requirements_that_go_round_in_a_circle_end(installed) -> None:
    installed({"a": ["a"], "b": ["b"], "c": ["c"]}, {"a": ["b"], "b": ["a"], "c": ["a"]})
    assert hidden_modules(["a"]) == {"c": "c"}


def test_an_extra_counts_where_it_is_asked_for(installed) -> None:
    """As datasets asks for fsspec[http], which brings aiohttp."""
    needs = {"fsspec": ["aiohttp; extra == 'http'", "nowhere; extra == 'smb'"], "other": []}
    modules = {name: [name] for name in ("fsspec", "aiohttp", "nowhere", "yarl")}
    needs |= {"aiohttp": ["yarl"], "yarl": [], "nowhere": []}
    installed(modules, {**needs, "datasets": ["fsspec[http]>=1"]})
    assert hidden_modules(["datasets"]) == {"nowhere": "nowhere"}
    installed(modules, {**needs, "datasets": ["fsspec"]})
    assert set(hidden_modules(["datasets"])) == {"aiohttp", "nowhere", "yarl"}


def test_a_requirement_of_another_system_brings_nothing(installed) -> None:
    needs = {"numpy": ["winonly; sys_platform == 'no-such-system'"], "winonly": []}
    installed({"winonly": ["winonly"]}, needs)
    assert hidden_modules(["numpy"]) == {"winonly": "winonly"}


def test_a_module_that_packages_share_is_there_with_one_of_them(installed) -> None:
    installed({"google": ["google-auth", "protobuf"], "mine": ["x", "y"]}, {"protobuf": []})
    assert hidden_modules(["protobuf"]) == {"mine": "x"}


def test_an_installation_without_a_name_is_left_out(installed) -> None:
    """As an interrupted pip leaves one."""
    installed({"half": [None], "other": [None, "laptop"], "both": [None, "numpy"]}, {})
    assert hidden_modules(["numpy"]) == {"other": "laptop"}


def test_here_the_stratifier_is_hidden_and_nothing_that_a_notebook_needs() -> None:
    hidden = hidden_modules(read_image(IMAGE))
    assert hidden["iterstrat"] == "iterative-stratification"
    needed = {
        *("numpy", "pandas", "torch", "transformers", "tokenizers", "safetensors", "sklearn"),
        *("google", "setuptools", "pkg_resources", "_distutils_hack", "pip", "tqdm", "matplotlib"),
        *("ipykernel", "IPython", "zmq", "psutil", "yaml", "regex", "requests", "sentencepiece"),
        *("sympy", "networkx", "jinja2", "fsspec", "filelock", "packaging", "debugpy"),
    }
    assert needed & set(hidden) == set()


def test_what_the_kernel_of_a_notebook_needs_is_there(installed) -> None:
    installed({"zmq": ["pyzmq"]}, {KERNEL[0]: ["pyzmq>=1"], "pyzmq": []})
    assert hidden_modules([]) == {}


# versions


def test_other_versions_are_told_and_unknown_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"numpy": "2.4.0", "pandas": "2.2.2", "scipy": "1.17.0rc1"}

    def version(name: str) -> str:
        if name not in here:
            raise importlib.metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    there = {"numpy": "numpy==2.0.2", "pandas": "pandas==2.2.2", "scipy": "scipy", "torch": "torch"}
    found = differences({name: Requirement(line) for name, line in there.items()})
    assert found == ["numpy 2.4.0 (image ==2.0.2)"]
    assert set(image.COMPARED) <= set(read_image())


# the way back


def unpacked_again(folder: Path) -> Path:
    """The wheel of iterative-stratification as Kaggle extracts it, from what pip installed here."""
    about = "iterative_stratification-0.1.9.dist-info"
    added = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
    files = {
        str(file): file.locate()
        for file in importlib.metadata.files("iterative-stratification") or ()
        if file.suffix != ".pyc" and file.name not in added
    }
    record = ""
    for name in sorted(files, key=lambda name: (name.startswith(about), name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(files[name]), folder / name)
        record += record_line(name, (folder / name).read_bytes())
    (folder / about / "RECORD").write_text(f"{record}{about}/RECORD,,\n")
    return folder


IMPORT_TWICE = """
try:
    import iterstrat
except ImportError as error:
    print(error)
from kernel_lib.runtime.wheels import attach_wheels
print(*attach_wheels())
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
import iterstrat
print(iterstrat.__file__)
"""


def test_a_hidden_package_is_imported_from_the_genuine_wheel_that_is_attached(
    tmp_path: Path,
) -> None:
    wheel = unpacked_again(tmp_path / "kaggle/input/datasets/me/kernel-lib-wheels/stratification")
    config = {
        "log": str(tmp_path / "attempts.jsonl"),
        "refuse": False,
        "hidden": hidden_modules(read_image()),
        "site_folders": [path for path in sys.path if Path(path).name == "site-packages"],
    }
    (tmp_path / "guard.json").write_text(json.dumps(config))
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(NO_NETWORK), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "KERNEL_LIB_GUARD": str(tmp_path / "guard.json"),
        "KERNEL_LIB_KAGGLE_ROOT": str(tmp_path / "kaggle"),
    }
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_TWICE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "No module named 'iterstrat'",
        str(wheel),
        str(wheel / "iterstrat/__init__.py"),
    ]
