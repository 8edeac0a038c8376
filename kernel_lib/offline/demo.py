"""The main job on made-up data: the real notebooks, from ``train.csv`` to a checked submission.

python -m kernel_lib.offline.demo build/demo
python -m kernel_lib.offline.demo build/demo-csc --task csc
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from kernel_lib.config import OVERRIDES_VARIABLE
from kernel_lib.errors import KernelLibError
from kernel_lib.offline.execute import execute_notebook
from kernel_lib.offline.home_tasks import DEFAULT_TASK, TASKS, HomeTask, home_task
from kernel_lib.offline.upload.templates import NOTEBOOKS
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.files import read_json
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE

LIBRARY = Path(__file__).parents[1]
TEST_ROWS = 60


def make_kaggle_tree(
    root: Path, task: HomeTask, *, train_rows: int, test_rows: int = TEST_ROWS
) -> None:
    """A stand-in for ``/kaggle``: library, data and a backbone among its inputs."""
    data = root / "input" / task.data_place
    task.write_data(data, train_rows, test_rows)
    task.write_backbone(root / "input" / task.backbone_place, data)
    shutil.copytree(
        LIBRARY,
        root / "input/datasets/someone/kernel-lib/kernel_lib",
        ignore=shutil.ignore_patterns("__pycache__"),
    )


def run_demo(folder: Path, name: str = DEFAULT_TASK, *, train_rows: int | None = None) -> None:
    """Makes the material, executes the notebook pair on it, and prints what came out.

    Args:
        folder: where all of it goes; emptied first.
        name: of the task.
        train_rows: texts to learn from; None: as many as are needed to beat the floor.

    Raises:
        KernelLibError: a notebook failed, or the model did not beat the floor.
    """
    started = time.monotonic()
    task = home_task(name)
    shutil.rmtree(folder, ignore_errors=True)
    root, work = (folder / "kaggle").resolve(), (folder / "working").resolve()
    print(f"making {root}: {task.material}")
    make_kaggle_tree(root, task, train_rows=train_rows or task.demo_rows)
    settings = (task.demo_settings, {"runs": ["run"]})
    for notebook, changes in zip(task.notebooks, settings, strict=True):
        print(f"\nexecuting notebooks/{notebook}.ipynb")
        execute_notebook(
            NOTEBOOKS / f"{notebook}.ipynb",
            work_folder=work,
            executed=folder / f"{notebook}.executed.ipynb",
            environment={KAGGLE_ROOT_VARIABLE: str(root), OVERRIDES_VARIABLE: json.dumps(changes)},
        )
    _print_outcome(work, task, time.monotonic() - started)


def _print_outcome(work: Path, task: HomeTask, seconds: float) -> None:
    record, floor = read_json(work / "run/run.json"), task.floor(work / "run")
    name, pooled = record["score_name"], record["pooled"]
    score, width = pooled["scores"][name], len(name) + 2
    print(f"\nfold  rows  {name}")
    for entry in record["folds"]:
        print(f"{entry['fold']:>4}{entry['rows']:>6}{entry['scores'][name]:>{width}.4f}")
    print(f" all{pooled['rows']:>6}{score:>{width}.4f}   {floor.words}: {floor.score:.4f}")
    print(f"submission  {work / 'submission.csv'}")
    print(f"report      {work / 'run/report.html'}")
    print(f"done in {format_seconds(seconds)}")
    if not floor.is_beaten_by(score):
        raise KernelLibError(
            f"the model's {name} ({score:.4f}) does not beat {floor.words} ({floor.score:.4f})."
        )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run a pair of notebooks on made-up data.")
    parser.add_argument("folder", type=Path, help="where to work; emptied first")
    parser.add_argument(
        "--task", default=DEFAULT_TASK, help=f"{' or '.join(TASKS)}; default: {DEFAULT_TASK}"
    )
    options = parser.parse_args()
    return exit_status(lambda: run_demo(options.folder, options.task))


if __name__ == "__main__":
    sys.exit(main())
