"""Folds side by side: the same files as one after the other, and what is left when one fails.

The workers are forked from a server that has imported everything, to begin at once; the notebooks'
test has them spawned, as they are in earnest.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kernel_lib.artifacts import WEIGHTS, open_run
from kernel_lib.errors import ArtifactError, TrainingError
from kernel_lib.runtime import seat
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.files import sha256
from kernel_lib.training import crossval
from kernel_lib.training.state import RESUME
from kernel_lib.training.tracking import Tracker
from tests.fragile import FragileTask

FOLDS = 3


@pytest.fixture(autouse=True)
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    import tests.killing  # noqa: F401  it tells the server what to import

    monkeypatch.setattr(seat, "START_METHOD", "forkserver")


@pytest.fixture(autouse=True)
def one_thread_each() -> Any:
    """Two here are one for each of two workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make(make_case, tmp_path: Path) -> Callable[..., Any]:
    """A case with dropout, so that random states matter, and two evaluations a fold."""

    def make_one(name: str, **changes: Any) -> Any:
        settings = {"n_folds": FOLDS, "dropout": 0.2, "evals_per_epoch": 2, "devices": 2}
        return make_case(output_dir=str(tmp_path / name), **{**settings, **changes})

    return make_one


@pytest.fixture(scope="module")
def trained() -> list[Path]:
    """The run folder that the first test trained in one process."""
    return []


@pytest.fixture
def one(make, trained: list[Path]) -> Path:
    """A run folder, its folds trained one after the other in this process."""
    if not trained:
        torch.set_num_threads(1)
        trained.append(make("one", devices=1).cross_validate().folder)
        torch.set_num_threads(2)
    return trained[0]


def hashes(folder: Path) -> dict[int, str]:
    return {
        fold: sha256(folder / f"fold{fold}" / WEIGHTS) for fold in open_run(folder).finished_folds()
    }


def fragile(case: Any, fold: int, fault: str, folder: Path) -> Any:
    """The case with a task that fails in a fold."""
    folder.mkdir()
    row = next(e.id for e, at in zip(case.examples, case.folds, strict=True) if at == fold)
    task = FragileTask(case.task.settings, row, fault, folder)
    return dataclasses.replace(case, task=task)


class NotingTracker(Tracker):
    def __init__(self) -> None:
        self.records: list[dict[str, Any]] = []

    def log(self, record: dict[str, Any]) -> None:
        self.records.append(record)


def test_two_workers_leave_the_same_files_as_one_process(
    make, one, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    tracker = NotingTracker()
    monkeypatch.setattr(crossval, "make_tracker", lambda *_, **__: tracker)
    run = make("two").cross_validate()
    out, err = capsys.readouterr()
    assert hashes(run.folder) == hashes(one) and len(hashes(one)) == FOLDS
    assert (run.folder / "oof.csv").read_text() == (one / "oof.csv").read_text()
    names = [
        sorted(path.relative_to(folder) for path in folder.rglob("*"))
        for folder in (one, run.folder)
    ]
    assert names[0] == names[1]
    assert json.loads((run.folder / "run.json").read_text())["pooled"]["rows"] == 40
    assert sorted(record["fold"] for record in tracker.records) == [0, 0, 1, 1, 2, 2]

    assert "device cpu, cpu  precision float32\n" in out
    for fold in range(FOLDS):
        lines = [line for line in out.splitlines() if line.startswith(f"fold {fold}")]
        assert sum(" mcrmse " in line for line in lines) == 2
        assert f"fold {fold}: 100% " in err
    assert out.count("pooling and head  ") == 1


def test_a_fold_whose_worker_was_killed_goes_on_in_another(
    make, one, tmp_path: Path, capsys
) -> None:
    case = make("run", checkpoint_seconds=1e-9)
    run = fragile(case, 0, "die once", tmp_path / "faults").cross_validate()
    assert hashes(run.folder) == hashes(one)
    out = capsys.readouterr().out
    assert "fold 0: FAILED: its process was killed (SIGKILL" in out
    assert "fold 0: tried a second time\n" in out


def test_a_fold_that_fails_costs_no_other_and_is_told_at_the_end(
    make, one, tmp_path: Path, capsys
) -> None:
    with pytest.raises(TrainingError) as caught:
        fragile(make("run"), 0, "raise", tmp_path / "faults").cross_validate()
    message = str(caught.value)
    assert message.startswith("fold 0 failed: TrainingError: the gradients are not finite. Fin")
    assert f"saved in {tmp_path / 'run'}: 1, 2. Run again to train the rest." in message
    run = open_run(tmp_path / "run")
    assert hashes(run.folder) == {fold: hashes(one)[fold] for fold in (1, 2)}
    assert [entry["fold"] for entry in run.record["folds"]] == [1, 2]
    assert "fold 0: FAILED: TrainingError: the gradients" in capsys.readouterr().out

    torch.set_num_threads(1)
    make("run").cross_validate()  # a single fold is left: trained in this process
    out = capsys.readouterr().out
    assert "device cpu  " in out and "fold 2: finished before, mcrmse" in out
    assert hashes(run.folder) == hashes(one)


def test_a_fold_that_kills_every_worker_is_told_with_what_is_left(make, tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as caught:
        fragile(make("run"), 0, "die", tmp_path / "faults").cross_validate()
    message = str(caught.value)
    assert message.startswith("fold 0 failed: its process was killed (SIGKILL")
    assert "if the memory was full, devices=1 needs less" in message
    finished = open_run(tmp_path / "run").finished_folds()
    assert 0 not in finished and f": {', '.join(map(str, finished))}. Run" in message


def test_the_clock_of_all_ends_each_with_its_state_saved(make, one, tmp_path: Path) -> None:
    assert make("run").cross_validate(clock=Clock(0.0)).finished_folds() == []
    states = [path.parent.name for path in (tmp_path / "run").glob(f"fold*/{RESUME}")]
    assert sorted(states) == ["fold0", "fold1"]
    assert hashes(make("run").cross_validate().folder) == hashes(one)


def test_what_is_damaged_is_said_before_any_fold_is_begun(make, tmp_path: Path) -> None:
    make("run", folds=(2,)).cross_validate()
    (tmp_path / "run/fold2" / WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="fold2"):
        make("run").cross_validate()
    assert not (tmp_path / "run/fold0").exists()
