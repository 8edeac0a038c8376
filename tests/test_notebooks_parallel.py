"""The training notebook with two worker processes, spawned from a real kernel as on Kaggle."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat

from kernel_lib.artifacts import open_run
from tests.test_notebooks import SMALL, execute, kaggle

__all__ = ["kaggle"]  # a fixture


def test_a_notebook_shows_what_two_workers_do(kaggle: Path, tmp_path: Path) -> None:
    execute("fb3_train", kaggle, tmp_path / "train", **SMALL, devices=2)
    assert open_run(tmp_path / "train/run").finished_folds() == [0, 1]
    cells = nbformat.reads(tmp_path.joinpath("train.ipynb").read_text("utf-8"), 4).cells
    (cell,) = [cell for cell in cells if "cross_validate(" in cell.source]
    shown = {"stdout": "", "stderr": ""}
    for output in cell.outputs:
        shown[output["name"]] += output["text"]
    for fold in (0, 1):
        assert f"fold {fold}: on cpu\n" in shown["stdout"]
        assert f"\nfold {fold}  epoch 1.00/1  loss " in shown["stdout"]
        assert f"fold {fold}: 100% 3/3 [" in shown["stderr"]
    assert "Traceback" not in json.dumps(shown)
