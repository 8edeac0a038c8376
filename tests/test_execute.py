"""Executing a notebook: its own folder and process, its outputs kept, its errors passed on."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest

from kernel_lib.offline.execute import NotebookError, execute_notebook, main
from tests.conftest import ROOT


def notebook(folder: Path, *cells: str) -> Path:
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    content.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    path = folder / "a.ipynb"
    nbformat.write(content, path)
    return path


def test_it_runs_in_the_work_folder_with_the_environment_and_this_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = notebook(
        tmp_path,
        "import os, sys\nfrom pathlib import Path\nPath('here.txt').write_text('x')",
        "print(os.environ['A_NAME'], sys.executable)",
    )
    before = path.read_bytes()
    executed = execute_notebook(
        path,
        work_folder=tmp_path / "work",
        executed=tmp_path / "out/a.ipynb",
        environment={"A_NAME": "a value"},
    )
    assert (tmp_path / "work/here.txt").is_file()
    line = f"a value {sys.executable}\n"
    assert executed.cells[1].outputs[0]["text"] == line
    assert nbformat.read(tmp_path / "out/a.ipynb", as_version=4) == executed
    assert line in capsys.readouterr().out  # shown while it ran
    assert path.read_bytes() == before


def test_a_failing_cell_is_named_and_what_was_printed_is_kept(tmp_path: Path) -> None:
    path = notebook(
        tmp_path, "print('so far')", "raise ValueError('train.csv is gone')", "print('never')"
    )
    with pytest.raises(NotebookError, match=r"a\.ipynb: ValueError: train\.csv is gone"):
        execute_notebook(
            path,
            work_folder=tmp_path,
            executed=tmp_path / "out.ipynb",
            environment={},
            show=None,
        )
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert cells[0].outputs[0]["text"] == "so far\n" and not cells[2].outputs


def test_the_command_names_the_notebooks_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["execute", "fb3_trian", str(tmp_path)])
    assert main() == 1
    names = ", ".join(sorted(path.stem for path in (ROOT / "notebooks").glob("*.py")))
    assert f"no notebook 'fb3_trian'; there are {names}" in capsys.readouterr().err


def test_the_command_runs_a_notebook_and_passes_its_error_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kernel_lib.offline.execute.NOTEBOOKS", tmp_path)
    notebook(tmp_path, "print('here')", "1 / 0").rename(tmp_path / "fb3_train.ipynb")
    monkeypatch.setattr(sys, "argv", ["execute", "fb3_train", str(tmp_path / "work")])
    assert main() == 1
    captured = capsys.readouterr()
    assert "here" in captured.out and "ZeroDivisionError" in captured.err
    assert (tmp_path / "work/fb3_train.executed.ipynb").is_file()
