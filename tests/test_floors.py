"""The house holds: a file imports only from floors below its own, and importing it is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "kernel_lib"
FLOORS = {
    "errors": 0,
    "config": 1,
    "metrics": 1,
    "runtime": 2,
    "text": 3,
    "model": 3,
    "artifacts": 3,
    "training": 4,
    "tasks": 5,
    "results": 6,
    "bench": 7,
    "blending": 7,
    "runs": 7,
}
OFFLINE_MAY_USE = {"errors", "config", "metrics", "runtime", "offline"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.append(node.module or "")
    return {name.split(".")[1] for name in names if name.startswith("kernel_lib.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_floors_below_or_its_own_room(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        assert imported_rooms(path) == set()
        return
    own = room(path)
    for other in imported_rooms(path) - {own}:
        if own == "offline":
            assert other in OFFLINE_MAY_USE, f"{path} imports {other}"
        else:
            assert other != "offline", f"{path} imports the laptop's side"
            assert FLOORS[other] < FLOORS[own], f"{path} imports {other}, not below it"


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import kernel_lib, sys; assert not {'torch', 'pandas', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_pickle_no_remote_code_and_no_hub(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {"pickle", "joblib", "dill"} & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in {"pickle", "joblib", "dill"}
            if node.module == "torch":
                assert not {"load", "save"} & {alias.name for alias in node.names}
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"to_pickle", "read_pickle"}
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if node.func.attr == "from_pretrained":
                assert ast.literal_eval(given["local_files_only"]) is True
            if node.func.attr in ("from_pretrained", "from_config"):
                # Left out, transformers asks, and a "y" runs the folder's own code.
                assert ast.literal_eval(given["trust_remote_code"]) is False


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_can_be_held_in_the_head(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
