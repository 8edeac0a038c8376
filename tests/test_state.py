"""A fold that was stopped and resumed equals one that was never stopped, bit for bit."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.clock import Clock
from kernel_lib.training.state import RESUME, read_progress


class ClockOfSteps(Clock):
    """Runs out after a number of looks at it: one before a step, one a batch of an evaluation."""

    def __init__(self, steps: int) -> None:
        super().__init__(3600)
        self.steps = steps

    def allows(self, seconds: float) -> bool:
        self.steps -= 1
        return self.steps > 0


def stop_after(trainer, steps: int) -> None:
    trainer.machine = dataclasses.replace(trainer.machine, clock=ClockOfSteps(steps))


def without_seconds(history: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


@pytest.mark.parametrize("precision", ["float32", "fp16"])
@pytest.mark.parametrize("stops", [[1], [3], [5], [2, 1, 4]])
def test_resumed_equals_unbroken(make_case, tmp_path: Path, precision: str, stops) -> None:
    changes = {
        "dropout": 0.2,  # so that random states matter
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "epochs": 2,
        "evals_per_epoch": 2,
        "keep": "best",
        "fgm_epsilon": 0.2,
    }
    unbroken = make_case(**changes, output_dir=str(tmp_path / "a")).trainer(precision=precision)
    expected = unbroken.train()
    assert expected is not None and unbroken.state.progress.updates > 5

    case = make_case(**changes, output_dir=str(tmp_path / "b"))
    for steps in stops:
        trainer = case.trainer(precision=precision)
        stop_after(trainer, steps)
        assert trainer.train() is None
        torch.manual_seed(999)  # another session begins with other random states
    resumed = case.trainer(precision=precision)
    result = resumed.train()

    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert resumed.state.scaler.state_dict() == unbroken.state.scaler.state_dict()
    assert result.oof.equals(expected.oof)
    assert without_seconds(result.history) == without_seconds(expected.history)
    assert result.seconds > 0


@pytest.mark.parametrize("killed_at", [3, 6, 9])
def test_killed_between_two_saves_equals_unbroken(
    make_case, tmp_path: Path, killed_at: int
) -> None:
    changes = {"dropout": 0.2, "batch_size": 2, "epochs": 1, "evals_per_epoch": 2, "keep": "best"}
    unbroken = make_case(**changes, output_dir=str(tmp_path / "a")).trainer()
    expected = unbroken.train()

    case = make_case(**changes, output_dir=str(tmp_path / "b"))
    victim = case.trainer()
    update, calls = victim._update, iter(range(1, 100))

    def until_killed(group, fgm, following) -> float:
        number = next(calls)
        victim._last_save = -math.inf if number == killed_at - 1 else math.inf  # a save, then none
        if number == killed_at + 1:
            raise KeyboardInterrupt
        return update(group, fgm, following)

    victim._update = until_killed
    with pytest.raises(KeyboardInterrupt):
        victim.train()
    assert victim.state.progress.updates == killed_at

    resumed = case.trainer()
    result = resumed.train()
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert result.oof.equals(expected.oof)
    assert without_seconds(result.history) == without_seconds(expected.history)


def test_a_state_of_another_run_is_refused(make_case, tmp_path: Path) -> None:
    trainer = make_case(output_dir=str(tmp_path / "a")).trainer()
    trainer.state.save(tmp_path / RESUME, "another")
    with pytest.raises(ArtifactError, match="saved by run another"):
        trainer.state.load(tmp_path / RESUME, trainer.run.id)


def test_a_truncated_state_is_refused_with_the_file_named(make_case, tmp_path: Path) -> None:
    trainer = make_case().trainer()
    path = tmp_path / RESUME
    trainer.state.save(path, trainer.run.id)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=RESUME):
        trainer.state.load(path, trainer.run.id)


def test_the_state_holds_the_predictions_of_the_weights_to_keep(make_case, tmp_path: Path) -> None:
    case = make_case(keep="best")
    trainer = case.trainer()
    for score in (0.2, 0.1, 0.3):
        with torch.no_grad():
            trainer.model.head.bias += score
        trainer.task.scores = lambda oof, score=score: {"mcrmse": score}
        trainer.evaluator.evaluate(trainer.state)
        if score == 0.1:
            best = trainer.evaluator.predict(trainer.model)
    trainer.state.save(tmp_path / RESUME, trainer.run.id)
    another = case.trainer()
    another.state.load(tmp_path / RESUME, trainer.run.id)
    assert np.array_equal(another.state.predictions, best)
    result = another.evaluator.result(another.state)
    assert np.array_equal(another.evaluator.predict(another.model), best)
    assert np.array_equal(
        result.oof[[c for c in result.oof if c.startswith("pred_")]].to_numpy(),
        another.task.clip(best),
    )


def test_where_a_fold_stands_can_be_read_without_its_weights(make_case, tmp_path: Path) -> None:
    trainer = make_case().trainer()
    assert read_progress(tmp_path / RESUME, trainer.run.id) is None
    trainer.state.progress.epoch, trainer.state.progress.batch = 2, 3
    trainer.state.progress.rows_at_once = 4
    trainer.state.save(tmp_path / RESUME, trainer.run.id)
    found = read_progress(tmp_path / RESUME, trainer.run.id)
    assert (found.batches_done([10, 10]), found.rows_at_once) == (23, 4)
    with pytest.raises(ArtifactError, match="saved by run"):
        read_progress(tmp_path / RESUME, "another")
    (tmp_path / RESUME).write_bytes(b"no state")
    with pytest.raises(ArtifactError, match=r"resume\.safetensors is damaged"):
        read_progress(tmp_path / RESUME, trainer.run.id)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"state": "[]"},
        {"state": "{}"},
        {"state": '{"run_id": "a", "progress": {"unknown": 1}}'},
        {"state": "[" * 100_000},
    ],
    ids=["none", "a list", "empty", "unknown progress", "endless brackets"],
)
def test_a_state_without_what_it_should_say_is_one_clear_error(tmp_path, metadata) -> None:
    path = tmp_path / "resume.safetensors"
    save_file({"a": torch.zeros(1)}, path, metadata=metadata)
    with pytest.raises(ArtifactError, match=r"is damaged .* Delete it to begin the fold anew"):
        read_progress(path, "a")
