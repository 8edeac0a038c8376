"""One fold over several processes equals one over one, and none of them waits for ever.

Two real processes meet on this machine's loopback by gloo. Sums over processes are made in another
order than sums inside one, so numbers agree to rounding, not bit for bit; between the processes
they are the same bits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import random
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from kernel_lib.artifacts import open_run
from kernel_lib.errors import ArtifactError, SettingsError, TrainingError
from kernel_lib.runtime import distributed
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.distributed import ROOM_NUMBERS, World
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import build_tokenizer
from kernel_lib.training import state
from kernel_lib.training.prediction import TimeIsUp
from kernel_lib.training.record import open_or_begin
from kernel_lib.training.state import read_progress
from tests.conftest import Case, Material, spelling_case
from tests.killing import run_to_the_end
from tests.test_memory import LINEAR, LittleMemory
from tests.test_state import stop_after
from tests.test_update import gradients_at_step, rows, weights

SMALL = {**LINEAR, "batch_size": 3, "gradient_accumulation_steps": 2, "epochs": 2, "max_rows": 39}
"""Odd numbers of rows in the batches; the last of an epoch has one, and one process none."""


def together(target: Callable[..., None], *args: Any, size: int = 2) -> None:
    """Runs ``target(world, *args)`` in each process of a world. A failure of one is raised."""
    port = free_port()
    with ThreadPoolExecutor(size) as threads:
        runs = [
            threads.submit(run_to_the_end, join, rank, size, port, target, args)
            for rank in range(size)
        ]
    for run in runs:
        run.result()


def free_port() -> int:
    """One below those that the system hands out: what runs beside this test cannot be given it."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with socket.socket() as found, contextlib.suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


def join(rank: int, size: int, port: int, target: Callable[..., None], args: tuple) -> None:
    """What a child runs: torchrun's environment, then the target."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", GLOO_SOCKET_IFNAME="lo")
    distributed.PATIENCE = timedelta(seconds=240)  # less than a child may take
    target(World.enter(), *args)


def case_of(settings: dict[str, Any], **changes: Any) -> Case:
    """The same case in another process."""
    task = RegressionTask(RegressionSettings(**{**settings, **changes}))
    frame = task.read_train()
    tokenizer = build_tokenizer(Path(task.settings.backbone), keep_newlines=True)
    return Case(task, task.encode(frame, tokenizer), task.folds(frame), tokenizer)


def trainer_of(case: Case, world: World, **options: Any) -> Any:
    """A trainer in each process; the first one begins the run folder that they share."""
    if world.is_first:
        backbone = Path(case.task.settings.backbone)
        open_or_begin(case.task, case.examples, case.folds, case.tokenizer, backbone)
    world.any(False)
    return case.trainer(world=world, **options)


def settings_of(case: Case) -> dict[str, Any]:
    return case.task.settings.to_dict()


def noting_losses(trainer) -> list[float]:
    """Fills with the loss of each update."""
    losses: list[float] = []
    update = trainer.updater.update

    def noting(*args: Any) -> float:
        losses.append(update(*args))
        return losses[-1]

    trainer.updater.update = noting
    return losses


def train_a_fold(world: World, settings: dict[str, Any], folder: Path) -> None:
    trainer = trainer_of(case_of(settings), world)
    losses = noting_losses(trainer)
    result = trainer.train()
    save_file(weights(trainer), folder / f"{world.rank}.safetensors")
    result.oof.to_csv(folder / f"{world.rank}.csv", index=False)
    record = {"losses": losses, "history": result.history, "random": torch.rand(4).tolist()}
    (folder / f"{world.rank}.json").write_text(json.dumps(record))


def without_seconds(history: list[dict]) -> list[dict]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


@pytest.mark.parametrize("changes", [{"fgm_epsilon": 0.2}, {"batch_tokens": 100}])
def test_two_processes_train_as_one(make_case, tmp_path: Path, changes) -> None:
    case = make_case(**{**SMALL, **changes})
    trainer = case.trainer()
    start = weights(trainer)
    losses, result = noting_losses(trainer), trainer.train()
    together(train_a_fold, settings_of(case), tmp_path)
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["losses"] == second["losses"]
    assert without_seconds(first["history"]) == without_seconds(second["history"])
    assert first["losses"] == pytest.approx(losses, rel=1e-6)
    assert first["history"][-1]["scores"] == pytest.approx(result.history[-1]["scores"], rel=1e-6)
    assert first["random"] != second["random"]

    one, other = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    moved = 0.0
    for name, value in weights(trainer).items():
        assert torch.equal(one[name], other[name]), name
        assert torch.allclose(one[name], value, atol=1e-6), name
        moved = max(moved, float((value - start[name]).abs().max()))
    assert moved > 1e-3
    assert (tmp_path / "0.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    found, expected = pd.read_csv(tmp_path / "0.csv", dtype={"text_id": str}), result.oof
    assert found["text_id"].tolist() == expected["text_id"].tolist()
    numbers = expected.columns.drop("text_id")
    assert np.allclose(found[numbers], expected[numbers], atol=1e-6)


def stop_and_resume(world: World, settings: dict[str, Any], folder: Path) -> None:
    """An unbroken fold and one that is stopped twice end with the same bits."""
    unbroken = trainer_of(case_of(settings, output_dir=str(folder / "a")), world)
    expected = unbroken.train()
    case = case_of(settings, output_dir=str(folder / "b"))
    for steps in (3, 2):
        trainer = trainer_of(case, world)
        stop_after(trainer, steps if world.is_first else 10**9)
        assert trainer.train() is None
        assert trainer.state.progress.updates
        torch.manual_seed(999)
    resumed = trainer_of(case, world)
    result = resumed.train()
    for name, value in weights(unbroken).items():
        assert torch.equal(value, weights(resumed)[name]), name
    assert result.oof.equals(expected.oof)
    (folder / f"{world.rank}.json").write_text(json.dumps(torch.rand(4).tolist()))
    save_file(weights(resumed), folder / f"{world.rank}.safetensors")


def test_resumed_equals_unbroken_though_each_process_drops_out_its_own(
    make_case, tmp_path: Path
) -> None:
    case = make_case(**SMALL, dropout=0.2, evals_per_epoch=2)
    together(stop_and_resume, settings_of(case), tmp_path)
    drawn = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert drawn[0] != drawn[1]
    one, other = (load_file(tmp_path / f"{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def update_gradients(trainer, group) -> list[torch.Tensor]:
    """What the optimizer sees of an update of these batches."""
    seen = gradients_at_step(trainer)
    trainer.updater.update(group, trainer.updater.make_fgm())
    return seen


GROUPS = [[[0]], [[0], [1, 2, 3]], [[*range(7)], [7, 8], [9]]]


def save_gradients(world: World, settings: dict[str, Any], folder: Path) -> None:
    case = case_of(settings)
    for number, group in enumerate(GROUPS):
        trainer = trainer_of(case, world)
        gradients = update_gradients(trainer, [rows(*batch) for batch in group])
        ratio = torch.tensor(trainer.state.progress.fgm_ratio)
        found = {str(index): gradient for index, gradient in enumerate(gradients)}
        save_file({"ratio": ratio, **found}, folder / f"{number}.{world.rank}.safetensors")


def test_a_process_without_a_row_gives_nothing_and_takes_part(make_case, tmp_path: Path) -> None:
    case = make_case(fgm_epsilon=0.5, max_grad_norm=1e9)
    together(save_gradients, settings_of(case), tmp_path)
    for number, group in enumerate(GROUPS):
        trainer = case.trainer()
        expected = update_gradients(trainer, [rows(*batch) for batch in group])
        one, other = (load_file(tmp_path / f"{number}.{rank}.safetensors") for rank in (0, 1))
        for index, gradient in enumerate(expected):
            assert torch.equal(one[str(index)], other[str(index)])
            assert torch.allclose(one[str(index)], gradient, atol=1e-6)
        assert float(one["ratio"]) == pytest.approx(trainer.state.progress.fgm_ratio, rel=1e-4)


# In one of two processes: what fails, and how many of its rows memory then holds at once.
FAILURES = [
    (1, {"forward": (1,)}, 2),
    (0, {"backward": (2,)}, 2),  # the adversarial pass of the first batch
    (1, {"backward": (3,)}, 2),
    (1, {"forward": (4,)}, 2),
    (0, {"forward": (5,)}, 2),  # of the last batch, in which the other process has no row
    (1, {"rows": 1}, 1),
]


def run_out_of_memory(world: World, settings: dict[str, Any], folder: Path) -> None:
    case, group = case_of(settings), [rows(*range(8)), rows(8, 9, 10), rows(11)]
    for number, (where, failing, limit) in enumerate(FAILURES):
        trainer = trainer_of(case, world)
        if world.rank == where:
            LittleMemory(trainer.model, **failing)
        gradients = update_gradients(trainer, group)
        assert trainer.state.progress.rows_at_once == limit, number
        found = {str(index): gradient for index, gradient in enumerate(gradients)}
        save_file(found, folder / f"{number}.{world.rank}.safetensors")
    trainer = trainer_of(case, world)
    if world.is_first:
        LittleMemory(trainer.model, rows=0)
    with pytest.raises(TrainingError, match="memory is full at"):
        trainer.train()


def test_a_full_memory_of_one_process_halves_the_parts_of_all(make_case, tmp_path: Path) -> None:
    case = make_case(fgm_epsilon=0.5, max_grad_norm=1e9)
    together(run_out_of_memory, settings_of(case), tmp_path)
    group = [rows(*range(8)), rows(8, 9, 10), rows(11)]
    expected = update_gradients(case.trainer(), group)
    for number in range(len(FAILURES)):
        one, other = (load_file(tmp_path / f"{number}.{rank}.safetensors") for rank in (0, 1))
        for index, gradient in enumerate(expected):
            assert torch.equal(one[str(index)], other[str(index)])
            assert torch.allclose(one[str(index)], gradient, atol=1e-5)


def skip_an_update(world: World, settings: dict[str, Any], folder: Path) -> None:
    case = case_of(settings)
    for precision in ("float32", "fp16"):
        trainer = trainer_of(case, world, precision=precision)
        fgm, true_loss = trainer.updater.make_fgm(), trainer.task._loss
        progress, start = trainer.state.progress, weights(trainer)
        if not world.is_first:
            trainer.task._loss = lambda *args, of=true_loss: of(*args) * math.inf
        trainer.updater.update([rows(0, 1, 2)], fgm)
        assert (progress.updates, progress.skipped) == (0, 1)
        assert all(torch.equal(value, start[name]) for name, value in weights(trainer).items())
        trainer.task._loss = true_loss
        trainer.updater.update([rows(0, 1, 2)], fgm)
        assert (progress.updates, progress.skipped) == (1, 1)
        scaler = torch.tensor(trainer.state.scaler.get_scale())
        found = {**weights(trainer), "scaler": scaler}
        save_file(found, folder / f"{precision}.{world.rank}.safetensors")


def test_an_update_that_overflows_in_one_process_is_skipped_by_all(
    make_case, tmp_path: Path
) -> None:
    together(skip_an_update, settings_of(make_case()), tmp_path)
    for precision in ("float32", "fp16"):
        one, other = (load_file(tmp_path / f"{precision}.{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert float(one["scaler"]) == 2.0**15


class FullDisk:
    """Takes the place of what writes tensors."""

    def __call__(self, tensors, path, metadata=None) -> None:
        raise ArtifactError(f"could not write {path}: No space left on device.")


def follow_the_first_clock(world: World, settings: dict[str, Any], folder: Path) -> None:
    over = Clock(0.0)
    for name, rank_without_time in (("a", 1), ("b", 0)):
        trainer = trainer_of(case_of(settings, output_dir=str(folder / name)), world)
        if world.rank == rank_without_time:
            trainer.machine = dataclasses.replace(trainer.machine, clock=over)
        assert (trainer.train() is None) == (rank_without_time == 0)
        assert trainer.resume_path.is_file() == (rank_without_time == 0)
    progress = read_progress(trainer.resume_path, trainer.run.id)
    assert progress.updates == trainer.state.progress.updates == 1

    evaluator = trainer.evaluator
    with pytest.raises(TimeIsUp):  # in both processes, though only one has no time
        evaluator.predict(trainer.model, over if world.rank == 1 else Clock(3600))

    if world.is_first:
        state.save_tensors = FullDisk()
    with pytest.raises(ArtifactError, match=r"could not write .*resume\.safetensors"):
        trainer.state.save(trainer.resume_path, trainer.run.id)


def test_time_is_up_or_a_disk_full_for_all_or_for_none(make_case, tmp_path: Path) -> None:
    together(follow_the_first_clock, settings_of(make_case(fgm_epsilon=0.0)), tmp_path)


def of_other_lengths(evaluator) -> list[Example]:
    """Its examples, the shortest first."""
    return [
        dataclasses.replace(example, input_ids=example.input_ids[: 5 + 9 * number])
        for number, example in enumerate(evaluator.valid[:6])
    ]


def predict_few(
    world: World,
    settings: dict[str, Any],
    folder: Path,
    material: Material,
    spelling: dict[str, Any],
) -> None:
    trainer = trainer_of(case_of(settings), world)
    evaluator, valid = trainer.evaluator, of_other_lengths(trainer.evaluator)
    for count in (1, 2, 5):
        evaluator.valid = valid[:count]
        np.save(folder / f"{count}.{world.rank}.npy", evaluator.predict(trainer.model))
    trainer = trainer_of(spelling_case(material, **spelling), world)
    np.save(folder / f"tokens.{world.rank}.npy", trainer.evaluator.predict(trainer.model))


def test_each_process_predicts_a_share_and_gets_all_in_order(
    make_case, make_spelling_case, spelling_material, tmp_path: Path
) -> None:
    case = make_case()
    by_token = make_spelling_case(max_rows=15, output_dir=str(tmp_path / "spelling"))
    together(predict_few, settings_of(case), tmp_path, spelling_material, settings_of(by_token))
    trainer = by_token.trainer()
    lengths = [len(example.input_ids) for example in trainer.evaluator.valid]
    expected = trainer.evaluator.predict(trainer.model)
    one, other = (np.load(tmp_path / f"tokens.{rank}.npy") for rank in (0, 1))
    assert len(set(lengths)) > 1 and len(one) == sum(lengths)
    assert np.array_equal(one, other) and np.allclose(one[:, 0], expected[:, 0], atol=1e-6)
    assert (one[:, 1] == expected[:, 1]).mean() > 0.99  # but for near ties
    trainer = case.trainer()
    evaluator, valid = trainer.evaluator, of_other_lengths(trainer.evaluator)
    assert len({len(example.input_ids) for example in valid}) == 6
    alone = []
    for example in valid:
        evaluator.valid = [example]
        alone.append(evaluator.predict(trainer.model))
    for count in (1, 2, 5):
        expected = np.concatenate(alone[:count])
        one, other = (np.load(tmp_path / f"{count}.{rank}.npy") for rank in (0, 1))
        assert np.array_equal(one, other)
        assert np.allclose(one, expected, atol=1e-6)
        assert count == 1 or not np.allclose(one[0], one[1], atol=1e-4)


def train_until_one_dies(world: World, settings: dict[str, Any], folder: Path) -> None:
    trainer = trainer_of(case_of(settings, checkpoint_seconds=1e-9), world)
    update, calls = trainer.updater.update, iter(range(100))

    def dying(*args: Any) -> float:
        if next(calls) == 2 and not world.is_first:
            raise KeyboardInterrupt
        return update(*args)

    trainer.updater.update = dying
    try:
        trainer.train()
    except RuntimeError as error:  # the first one's: it does not wait for ever
        (folder / "error").write_text(str(error))
    except KeyboardInterrupt:
        return
    progress = read_progress(trainer.resume_path, trainer.run.id)
    (folder / "saved").write_text(str(progress.updates))


def test_when_a_process_dies_the_others_end_and_what_was_saved_stands(
    make_case, tmp_path: Path
) -> None:
    case = make_case(batch_size=4, fgm_epsilon=0.0)
    together(train_until_one_dies, settings_of(case), tmp_path)
    assert "gloo" in (tmp_path / "error").read_text()
    assert (tmp_path / "saved").read_text() == "2"


def refuse_to_write(source: Path, target: Path) -> None:
    raise AssertionError(f"another process than the first one writes {target}")


def cross_validate_together(world: World, settings: dict[str, Any], other: bool) -> None:
    case = case_of(settings)
    if other and not world.is_first:
        case.examples[0].target[0] += 0.5
    if other:
        with pytest.raises(ArtifactError, match=r"do not see the same run in .*/run: they have"):
            case.cross_validate()
        return
    if not world.is_first:
        os.replace = refuse_to_write
    for _ in range(2):  # the second time the first process is alone and finds all done
        try:
            run = case.cross_validate()
        except SystemExit as end:
            assert end.code == 0 and not world.is_first
            return
    assert world.is_first and "WORLD_SIZE" not in os.environ
    assert run.finished_folds() == [0, 1]


def test_a_run_of_two_processes_is_that_of_one(make_case, tmp_path: Path) -> None:
    small = {**SMALL, "epochs": 1}
    expected = make_case(**small, output_dir=str(tmp_path / "a")).cross_validate()
    case = make_case(**small)
    together(cross_validate_together, settings_of(case), False)
    run = open_run(tmp_path / "run")
    assert run.id == expected.id
    names = [
        sorted(path.relative_to(folder) for path in folder.rglob("*"))
        for folder in (run.folder, expected.folder)
    ]
    assert names[0] == names[1]
    assert run.record["pooled"]["scores"] == pytest.approx(
        expected.record["pooled"]["scores"], rel=1e-6
    )


def test_processes_with_other_data_are_refused(make_case) -> None:
    together(cross_validate_together, settings_of(make_case()), True)


def tell_each_other(world: World) -> None:
    rank, size = world.rank, world.size
    assert (size, world.is_first, world.device.type) == (3, rank == 0, "cpu")
    assert [world.any(rank == at) for at in range(size)] == [True] * size
    assert not world.any(False)
    assert world.any_of([rank == 2, False, rank == 0]) == [True, False, True]
    assert [world.decide(rank == at) for at in range(size)] == [True, False, False]

    many = [torch.full((n,), rank + 1.0) for n in (1, ROOM_NUMBERS - 1, 5, ROOM_NUMBERS + 1, 2)]
    turned = torch.arange(6.0).view(2, 3).mT * (rank + 1)
    world.sum_([*many, turned])
    assert all((tensor == 6).all() for tensor in many)
    assert torch.equal(turned, torch.arange(6.0).view(2, 3).mT * 6)
    world.sum_([])

    copied = [torch.full((2, 2), float(rank)), torch.tensor(rank)]
    world.copy_first_(copied)
    assert not any(tensor.any() for tensor in copied)

    everything = np.arange(14, dtype=np.float32).reshape(7, 2)
    for total in (7, 6, 4, 1):
        mine = world.share(everything[:total])
        more = np.concatenate([mine, np.full((1, 2), np.nan, np.float32)])
        assert np.array_equal(world.gather_shares(more, total), everything[:total])
    if rank:
        assert sys.stdout.name == os.devnull
    try:
        world.leave()
    except SystemExit as end:
        assert rank and end.code == 0
    else:
        assert rank == 0 and World.enter() == World.single()


def test_what_processes_tell_each_other() -> None:
    together(tell_each_other, size=3)


def test_a_process_alone_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    world = World.enter()
    assert world == World.single() and world.is_first
    tensor = torch.ones(2)
    world.sum_([tensor])
    world.copy_first_([tensor])
    assert tensor.tolist() == [1, 1] and world.gather(tensor) == [tensor]
    numbers = np.arange(3)
    assert np.array_equal(world.share(numbers), numbers)
    assert np.array_equal(world.gather_shares(numbers, 3), numbers)
    assert (world.any(True), world.decide(False), world.any_of([])) == (True, False, [])
    world.leave()


def test_half_an_environment_is_an_error_that_names_the_rest(monkeypatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SettingsError, match=r"not LOCAL_RANK, MASTER_ADDR, MASTER_PORT\. Start"):
        World.enter()


def test_more_processes_than_gpus_is_an_error_with_the_cure(monkeypatch) -> None:
    place = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}
    for name, value in (*place.items(), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed, "pick_devices", lambda: [torch.device("cuda", 0)])
    with pytest.raises(SettingsError, match=r"process 1 .* with 1 usable GPUs\. Set"):
        World.enter()
