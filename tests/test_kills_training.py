"""Training killed at any moment: nothing corrupt, and the next run ends with the same files."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.numpy import load_file

from kernel_lib.artifacts import CONFIG, OOF, WEIGHTS, open_run, read_manifest
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from kernel_lib.text.tokenizer import build_tokenizer
from kernel_lib.training.crossval import cross_validate
from kernel_lib.training.state import RESUME
from tests.killing import killed_runs, run_and_kill, run_to_the_end

KILLS = 20


def train(backbone: Path, data_dir: Path, work: Path) -> None:
    """What the children run: two folds, the state saved after every update, into ``work/run``."""
    os.chdir(work)
    settings = RegressionSettings(
        backbone=str(backbone),
        data_dir=str(data_dir),
        n_folds=2,
        epochs=2,
        evals_per_epoch=2,
        max_length=64,
        dropout=0.2,  # so that random states matter
        learning_rate=1e-3,
        head_learning_rate=1e-3,
        keep="best",
        precision="float32",
        checkpoint_seconds=1e-9,
    )
    task = RegressionTask(settings)
    frame = task.read_train()
    tokenizer = build_tokenizer(backbone, keep_newlines=True)
    cross_validate(task, task.encode(frame, tokenizer), task.folds(frame), tokenizer)


def train_and_die_at(backbone: Path, data_dir: Path, work: Path, name: str, moved: bool) -> None:
    """The same, killed when a file of that name is whole, before or after it takes its place."""
    replace = os.replace

    def dying(source: Path, target: Path) -> None:
        if str(target).endswith(name) and not moved:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if str(target).endswith(name):
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = dying  # in this child only
    train(backbone, data_dir, work)


@dataclass(frozen=True)
class Unbroken:
    """Makes the arguments of a run in a folder of its own; what an unbroken run leaves, and when.

    Attributes:
        make_args: from the name of a try.
        files: what it leaves, by name.
        seconds: it takes.
    """

    make_args: Callable[[Any], tuple[Path, Path, Path]]
    files: dict[str, Any]
    seconds: float


@pytest.fixture(scope="module")
def unbroken(material, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    root = tmp_path_factory.mktemp("kills")

    def make_args(name: Any) -> tuple[Path, Path, Path]:
        work = root / str(name)
        work.mkdir()
        return material.backbone, material.competition, work

    files = []
    for name in ("first", "second"):  # the first one also starts the server and reads cold files
        args = make_args(name)
        seconds = run_to_the_end(train, *args)
        files.append(files_of(args[-1] / "run"))
    assert files[0] == files[1]
    return Unbroken(make_args, files[0], seconds)


def files_of(folder: Path) -> dict[str, Any]:
    """Every file by name: its bytes, or what JSON says but for seconds and memory."""
    content: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.name in ("run.json", "manifest.json"):
            content[name] = without_seconds(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            lines = path.read_text().splitlines()
            content[name] = [without_seconds(json.loads(line)) for line in lines]
        else:
            content[name] = path.read_bytes()
    return content


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        drop = ("seconds", "peak_memory_bytes")
        return {key: without_seconds(part) for key, part in value.items() if key not in drop}
    return [without_seconds(part) for part in value] if isinstance(value, list) else value


def check_after_the_kill(folder: Path) -> None:
    """What can be seen is whole; only hidden files may be half-written."""
    for path in (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".jsonl":
            assert [json.loads(line) for line in path.read_text().splitlines()]
        elif path.suffix == ".csv":
            assert len(pd.read_csv(path)) in (19, 21, 40)
        else:
            assert path.suffix == ".safetensors", path
            assert load_file(path)
    if (folder / "run.json").exists():
        run = open_run(folder)
        for fold in run.finished_folds():
            read_manifest(run, fold, check=(WEIGHTS, CONFIG, OOF))


def check_the_run_after(args: tuple[Any, ...], unbroken: Unbroken) -> None:
    """It ends like the one that was never killed, and clears up."""
    run_to_the_end(train, *args[:3])
    found = files_of(args[2] / "run")
    assert found.keys() == unbroken.files.keys()
    for name, content in unbroken.files.items():
        assert found[name] == content, name


def test_twenty_kills_at_random_moments_change_nothing(unbroken: Unbroken) -> None:
    states = []
    for args in killed_runs(
        train, unbroken.make_args, count=KILLS, within_seconds=unbroken.seconds, seed=3
    ):
        folder = args[2] / "run"
        check_after_the_kill(folder)
        states.append(sorted(path.parent.name for path in folder.rglob(RESUME)))
        check_the_run_after(args, unbroken)
    assert len(states) == KILLS
    assert ["fold0"] in states and ["fold1"] in states  # in the middle of both


@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("tokenizer/tokenizer.json", False),
        ("run.json", False),
        (RESUME, False),
        (WEIGHTS, True),
        ("fold0/manifest.json", False),
        ("fold0/manifest.json", True),  # the state of a finished fold is still there
    ],
)
def test_a_kill_between_two_files_changes_nothing(
    unbroken: Unbroken, name: str, moved: bool
) -> None:
    args = unbroken.make_args(f"{Path(name).name}-{moved}")
    assert run_and_kill(train_and_die_at, *args, name, moved, after_seconds=60)
    folder = args[2] / "run"
    temporary = list(folder.rglob(".*.tmp"))
    assert len(temporary) == (0 if moved else 1)
    check_after_the_kill(folder)
    check_the_run_after(args, unbroken)
