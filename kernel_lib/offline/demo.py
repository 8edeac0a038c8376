"""The main job on made-up data: the real notebooks, from ``train.csv`` to a checked submission.

python -m kernel_lib.offline.demo build/demo
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from kernel_lib.config import OVERRIDES_VARIABLE
from kernel_lib.errors import KernelLibError
from kernel_lib.offline.execute import execute_notebook
from kernel_lib.offline.material import TARGETS, write_backbone, write_competition
from kernel_lib.offline.upload.templates import NOTEBOOKS
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.files import read_json
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE

LIBRARY = Path(__file__).parents[1]
SETTINGS = {
    # A model this small learns little at the rates of a pretrained one.
    "n_folds": 2,
    "epochs": 6,
    "learning_rate": 3e-3,
    "head_learning_rate": 3e-3,
    "evals_per_epoch": 1,
    "fgm_epsilon": 0.3,
}


def make_kaggle_tree(root: Path, *, train_rows: int = 400, test_rows: int = 60) -> None:
    """A stand-in for ``/kaggle``: library, competition data and a backbone among its inputs."""
    competition = root / "input/competitions/feedback-prize-english-language-learning"
    write_competition(competition, train_rows=train_rows, test_rows=test_rows)
    corpus = pd.read_csv(competition / "train.csv", dtype=str)["full_text"].tolist()
    write_backbone(root / "input/datasets/someone/deberta-v3-base", corpus=corpus)
    shutil.copytree(
        LIBRARY,
        root / "input/datasets/someone/kernel-lib/kernel_lib",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def run_demo(folder: Path, *, train_rows: int = 400) -> None:
    """Makes the material, executes the notebook pair on it, and prints what came out.

    Args:
        folder: where all of it goes; emptied first.
        train_rows: essays to learn from; a few hundred are needed to beat the mean.

    Raises:
        KernelLibError: a notebook failed, or the model did not beat predicting the mean.
    """
    started = time.monotonic()
    shutil.rmtree(folder, ignore_errors=True)
    root, work = (folder / "kaggle").resolve(), (folder / "working").resolve()
    print(f"making {root}: essays and a tiny DeBERTa-v3-shaped backbone")
    make_kaggle_tree(root, train_rows=train_rows)
    for name, changes in (("fb3_train", SETTINGS), ("fb3_infer", {"runs": ["run"]})):
        print(f"\nexecuting notebooks/{name}.ipynb")
        execute_notebook(
            NOTEBOOKS / f"{name}.ipynb",
            work_folder=work,
            executed=folder / f"{name}.executed.ipynb",
            environment={KAGGLE_ROOT_VARIABLE: str(root), OVERRIDES_VARIABLE: json.dumps(changes)},
        )
    _print_outcome(work, time.monotonic() - started)


def _print_outcome(work: Path, seconds: float) -> None:
    record = read_json(work / "run/run.json")
    score = record["pooled"]["scores"]["mcrmse"]
    oof = pd.read_csv(work / "run/oof.csv")
    true = oof[[f"true_{name}" for name in TARGETS]].to_numpy()
    floor = float(np.sqrt(((true - true.mean(axis=0)) ** 2).mean(axis=0)).mean())
    print("\nfold  rows  mcrmse")
    for entry in record["folds"]:
        print(f"{entry['fold']:>4}{entry['rows']:>6}{entry['scores']['mcrmse']:>8.4f}")
    print(f" all{record['pooled']['rows']:>6}{score:>8.4f}   predicting the mean: {floor:.4f}")
    print(f"submission  {work / 'submission.csv'}")
    print(f"report      {work / 'run/report.html'}")
    print(f"done in {format_seconds(seconds)}")
    if score >= floor:
        raise KernelLibError(f"the model ({score:.4f}) does not beat the mean ({floor:.4f}).")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run the FB3 notebook pair on made-up essays.")
    parser.add_argument("folder", type=Path, help="where to work; emptied first")
    folder = parser.parse_args().folder
    return exit_status(lambda: run_demo(folder))


if __name__ == "__main__":
    sys.exit(main())
