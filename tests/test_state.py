"""A fold that was stopped and resumed equals one that was never stopped, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kernel_lib.errors import ArtifactError
from kernel_lib.training.state import RESUME
from kernel_lib.training.task import Machine


class ClockOfSteps:
    """Runs out after a number of looks at it: one a step."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def allows(self, seconds: float) -> bool:
        self.steps -= 1
        return self.steps > 0


def stop_after(trainer, steps: int) -> None:
    machine = trainer.machine
    trainer.machine = Machine(machine.device, machine.precision, ClockOfSteps(steps))


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

    def until_killed(group, fgm) -> float:
        number = next(calls)
        victim._last_save = 0.0 if number == killed_at - 1 else float("inf")  # a save, then none
        if number == killed_at + 1:
            raise KeyboardInterrupt
        return update(group, fgm)

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
