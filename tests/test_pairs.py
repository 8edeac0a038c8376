"""What is pushed says what the edited file says."""

from __future__ import annotations

import shutil
from pathlib import Path

import jupytext
import nbformat
import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.pairs import refuse_unlike_pair
from kernel_lib.offline.upload import templates
from kernel_lib.offline.upload.package import build_kernel
from tests.conftest import ROOT


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ``.ipynb`` of a pair, in a copy of the notebooks."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    monkeypatch.setattr(templates, "NOTEBOOKS", tmp_path / "notebooks")
    return tmp_path / "notebooks/fb3_train.ipynb"


def test_an_edited_setting_that_was_not_brought_over_is_named(
    notebook: Path, tmp_path: Path
) -> None:
    source = notebook.with_suffix(".py")
    text = source.read_text()
    assert "epochs=5" in text
    source.write_text(text.replace("epochs=5", "epochs=3"))
    with pytest.raises(DataError, match=r"fb3_train\.py and .* differ in cell \d+.*make notebooks"):
        build_kernel("fb3_train", tmp_path / "fb3_train", "somebody")
    assert not (tmp_path / "fb3_train").exists()
    source.write_text(text)
    build_kernel("fb3_train", tmp_path / "fb3_train", "somebody")


def test_another_accelerator_and_a_further_cell_are_named(notebook: Path) -> None:
    made = jupytext.read(notebook)
    made.cells.append(nbformat.v4.new_code_cell("1 + 1"))
    nbformat.write(made, notebook)
    with pytest.raises(DataError, match="differ in their number of cells"):
        refuse_unlike_pair(notebook)
    made.metadata["kaggle"]["accelerator"] = "none"
    nbformat.write(made, notebook)
    with pytest.raises(DataError, match=r"differ in metadata\.kaggle"):
        refuse_unlike_pair(notebook)


def test_outputs_are_no_difference_and_a_lone_notebook_has_none(notebook: Path) -> None:
    made = nbformat.read(notebook, as_version=4)
    cell = next(cell for cell in made.cells if cell.cell_type == "code")
    cell.outputs = [nbformat.v4.new_output("stream", text="seen")]
    nbformat.write(made, notebook)
    refuse_unlike_pair(notebook)
    notebook.with_suffix(".py").unlink()
    refuse_unlike_pair(notebook)
