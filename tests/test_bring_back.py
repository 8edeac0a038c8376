"""A notebook edited on Kaggle comes back into its .py, header untouched, only when asked to."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline import bring_back
from kernel_lib.offline.bring_back import edited_source
from tests.conftest import ROOT


@pytest.fixture
def edited(tmp_path: Path) -> Path:
    """fb3_train as Kaggle's editor gives it back: a line changed, other metadata, an empty cell."""
    notebook = nbformat.read(ROOT / "notebooks/fb3_train.ipynb", as_version=4)
    settings = next(
        cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])
    )
    settings.source = settings.source.replace("max_length=512", "max_length=768")
    settings.metadata["_kg_hide-input"] = True
    notebook.metadata["kaggle"] = {"accelerator": "none", "dockerImageVersionId": 1}
    notebook.cells.append(nbformat.v4.new_code_cell(""))
    path = tmp_path / "edited.ipynb"
    nbformat.write(notebook, path)
    return path


def test_only_the_edited_line_differs(edited: Path) -> None:
    source = ROOT / "notebooks/fb3_train.py"
    old, new = source.read_text().splitlines(), edited_source(edited, source).splitlines()
    assert len(old) == len(new)
    different = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
    assert [b.split(",")[0].strip() for _, b in different] == ["max_length=768"]


@pytest.mark.parametrize("write", [False, True])
def test_the_command_shows_the_diff_and_writes_only_when_told(
    edited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, write: bool
) -> None:
    source = tmp_path / "fb3_train.py"
    source.write_text((ROOT / "notebooks/fb3_train.py").read_text())
    monkeypatch.setattr(bring_back, "NOTEBOOKS", tmp_path)
    arguments = ["bring_back", "fb3_train", str(edited), *(["--write"] if write else [])]
    monkeypatch.setattr(sys, "argv", arguments)
    assert bring_back.main() == 0
    out = capsys.readouterr().out
    assert "\n-    max_length=512" in out and "\n+    max_length=768" in out
    assert ("max_length=768" in source.read_text()) == write


def test_what_is_no_notebook_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("print(1)")
    with pytest.raises(DataError, match="not a notebook"):
        edited_source(tmp_path / "a.ipynb", ROOT / "notebooks/fb3_train.py")
    with pytest.raises(DataError, match="does not exist"):
        edited_source(tmp_path / "b.ipynb", ROOT / "notebooks/fb3_train.py")
