"""The training loop against the textbook, and against what public notebooks get wrong."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kernel_lib.errors import ArtifactError, TrainingError
from kernel_lib.runtime.clock import Clock
from kernel_lib.text import order
from kernel_lib.training.forecast import KNOWN_AFTER_UPDATES
from kernel_lib.training.task import Machine
from kernel_lib.training.update import PROBE_EVERY_UPDATES


def test_updates_are_counted_after_accumulation_and_the_partial_one_at_the_end_counts(
    make_case,
) -> None:
    trainer = make_case(batch_size=4, gradient_accumulation_steps=2, epochs=2).trainer()
    batches = -(-len(trainer.train_examples) // 4)
    trainer.train()
    assert trainer.state.progress.updates == 2 * -(-batches // 2)
    assert trainer.state.schedule.last_epoch == trainer.state.progress.updates
    assert all(group["lr"] == pytest.approx(0, abs=1e-9) for group in trainer.groups)


def test_the_loop_trains_on_batches_of_like_length(make_case) -> None:
    trainer = make_case(batch_size=4).trainer()
    lengths = np.array([len(example.input_ids) for example in trainer.train_examples])
    spread = [np.ptp(lengths[batch]) for (batch,) in trainer._accumulation_groups(0)]
    ends = np.sort(lengths)
    assert sum(spread) <= sum(ends[at : at + 4].max() - ends[at] for at in range(0, len(ends), 4))


@pytest.mark.parametrize("batch_tokens", [0, 200])
def test_the_order_of_the_rows_follows_seed_fold_and_epoch(
    make_case, tmp_path: Path, batch_tokens: int
) -> None:
    seen = set()
    for seed, fold in ((42, 0), (42, 1), (43, 0)):
        changes = {"seed": seed, "epochs": 2, "batch_tokens": batch_tokens}
        trainer = make_case(**changes, output_dir=str(tmp_path / str(seed))).trainer(fold)
        orders = [
            tuple(int(row) for (batch,) in trainer._accumulation_groups(epoch) for row in batch)
            for epoch in (0, 1, 0)
        ]
        assert orders[0] == orders[2]
        seen.update(orders)
    assert len(seen) == 6


@pytest.fixture
def make_uneven(make_case, monkeypatch: pytest.MonkeyPatch):
    """Makes a case of many lengths, in small buckets: epochs cut by tokens have unlike counts."""
    monkeypatch.setattr(order, "BUCKET_BATCHES", 3)

    def make(**changes):
        case = make_case(**changes)
        case.examples[:] = [
            dataclasses.replace(example, input_ids=example.input_ids[: 4 + 7 * (number % 9)])
            for number, example in enumerate(case.examples)
        ]
        return case

    return make


BY_TOKENS = {"batch_tokens": 100, "evals_per_epoch": 2, "fgm_epsilon": 0.0, "seed": 1}


def test_batches_cut_by_tokens_are_counted_right_everywhere(make_uneven) -> None:
    trainer = make_uneven(**BY_TOKENS, epochs=4, gradient_accumulation_steps=2).trainer()
    counts = trainer.order.counts
    assert len(set(counts)) > 1  # or this test tells nothing
    taken: list[int] = []
    bar_total = trainer.pace.batches
    update = trainer.updater.update

    def noting(group, *others):
        assert trainer.state.progress.batches_done(counts) == sum(taken)
        taken.append(len(group))
        assert all(len(b) == 1 or padded(trainer, b) <= 100 for b in group)
        return update(group, *others)

    trainer.updater.update = noting
    result = trainer.train()
    assert sum(taken) == sum(counts) == bar_total
    assert len(taken) == sum(-(-count // 2) for count in counts) == trainer.state.progress.updates
    assert trainer.state.schedule.last_epoch == len(taken)
    assert all(group["lr"] == pytest.approx(0, abs=1e-9) for group in trainer.groups)
    epochs = [record["epoch"] for record in result.history]
    assert epochs[1::2] == [1.0, 2.0, 3.0, 4.0]
    assert epochs[::2] == pytest.approx([0.5, 1.5, 2.5, 3.5], abs=2 / min(counts))


def padded(trainer, batch) -> int:
    return len(batch) * max(
        -(-len(trainer.train_examples[row].input_ids) // 8) * 8 for row in batch
    )


def test_batches_cut_by_tokens_also_go_on_where_they_stopped(make_uneven, tmp_path: Path) -> None:
    changes = {**BY_TOKENS, "epochs": 3, "dropout": 0.2, "fgm_epsilon": 0.2}
    unbroken = make_uneven(**changes, output_dir=str(tmp_path / "a")).trainer()
    expected = unbroken.train()
    assert len(set(unbroken.order.counts)) > 1
    case = make_uneven(**changes, output_dir=str(tmp_path / "b"))
    result, sessions = None, 0
    while result is None and sessions < 20:
        resumed = SlowTime().slow_down(case.trainer(), 20.0)
        result, sessions = resumed.train(), sessions + 1
    assert 2 < sessions < 20
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert result.oof.equals(expected.oof)


def test_each_update_knows_what_comes_next(make_case) -> None:
    trainer = make_case(batch_size=4, epochs=2).trainer()
    seen = []
    update = trainer.updater.update

    def noting(group, fgm, following):
        seen.append((group, following))
        return update(group, fgm, following)

    trainer.updater.update = noting
    trainer.train()
    count = trainer.order.counts[0]
    assert len(seen) == 2 * count
    for number, (_, following) in enumerate(seen):
        if (number + 1) % count:  # between epochs there is an evaluation
            assert following is seen[number + 1][0]
        else:
            assert len(following) == 0


def test_one_scaler_serves_the_whole_fold(make_case) -> None:
    trainer = make_case(epochs=2).trainer(precision="fp16")
    trainer.train()
    assert trainer.state.progress.skipped == 0
    in_a_row = trainer.state.scaler.state_dict()["_growth_tracker"]
    assert in_a_row == trainer.state.progress.updates  # a new scaler would count from 0


def test_a_full_gpu_is_said_with_the_cure(make_case) -> None:
    trainer = make_case().trainer()

    def full(outputs, targets):
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer.task._loss = full
    with pytest.raises(TrainingError, match=r"memory is full.* one text at a time.*checkpointing"):
        trainer.train()


def test_a_save_that_finds_the_disk_full_does_not_stop_training(
    make_case, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_case(checkpoint_seconds=1e-9, fgm_epsilon=0).trainer()

    def full(path, run_id) -> None:
        raise ArtifactError("could not write resume.safetensors: No space left on device.")

    monkeypatch.setattr(trainer.state, "save", full)
    assert trainer.train() is not None
    assert "going on without this save. could not write" in capsys.readouterr().out


def test_the_share_of_fgm_is_in_the_record(make_case) -> None:
    case = make_case(batch_size=2, epochs=1, fgm_epsilon=0.2)
    assert len(case.examples) // 2 // 2 >= PROBE_EVERY_UPDATES
    assert case.trainer().train().history[0]["fgm_ratio"] > 0


def test_the_clock_stops_a_fold_with_its_state_saved(make_case) -> None:
    trainer = make_case().trainer()
    trainer.machine = Machine(trainer.machine.device, trainer.machine.precision, Clock(0.0))
    assert trainer.train() is None
    assert trainer.resume_path.is_file()
    assert trainer.state.progress.updates == 1


class SlowTime:
    """A time that only a model's passes and saves move on, so that a test knows what is late.

    Args:
        pass_seconds: of a forward pass, in training and evaluation.
        save_seconds: of a save of the state.
    """

    def __init__(self, *, pass_seconds: float = 1.0, save_seconds: float = 0.0) -> None:
        self.moment, self.pass_seconds, self.save_seconds = 0.0, pass_seconds, save_seconds
        self.saves: list[float] = []
        self.passes: list[bool] = []

    def slow_down(self, trainer, budget_seconds: float):
        """The trainer, on a new clock of this time."""
        clock = Clock(budget_seconds, now=lambda: self.moment)
        machine = dataclasses.replace(trainer.machine, clock=clock)
        trainer.machine = trainer.evaluator.machine = machine
        trainer._last_save = trainer._last_tick = 0.0
        trainer.model.register_forward_pre_hook(self._work)
        self._save = trainer.state.save
        trainer.state.save = self._slow_save
        return trainer

    def _work(self, model, inputs) -> None:
        self.moment += self.pass_seconds
        self.passes.append(model.training)

    def _slow_save(self, path, run_id) -> None:
        self.saves.append(self.moment)
        self.moment += self.save_seconds
        self._save(path, run_id)


A_BATCH = 2.0  # a pass for the clean loss, one for FGM's


@pytest.mark.parametrize("keep", ["last", "best"])
def test_sessions_of_any_length_end_in_time_and_together_equal_an_unbroken_one(
    make_case, tmp_path: Path, keep: str
) -> None:
    changes = {"epochs": 2, "evals_per_epoch": 2, "eval_batch_tokens": 11 * 64, "keep": keep}
    unbroken = make_case(**changes, output_dir=str(tmp_path / "a")).trainer()
    expected = unbroken.train()
    for budget in (2.0, 2.5, 4.0, 7.0, 11.0):
        case = make_case(**changes, output_dir=str(tmp_path / f"{budget}"))
        result, begins_with = None, []
        while result is None and len(begins_with) < 20:
            time = SlowTime()
            resumed = time.slow_down(case.trainer(), budget)
            result = resumed.train()
            begins_with.append("training" if time.passes[0] else "evaluation")
            assert time.moment <= budget + A_BATCH, budget
        assert len(begins_with) > 1, budget
        for name, value in unbroken.model.state_dict().items():
            assert torch.equal(value, resumed.model.state_dict()[name]), (budget, name)
        assert [r["scores"] for r in result.history] == [r["scores"] for r in expected.history]
        assert result.oof.equals(expected.oof), budget


def test_the_save_at_the_end_is_in_time_once_it_is_known_how_long_one_takes(make_case) -> None:
    time = SlowTime(save_seconds=3.0)
    trainer = make_case(epochs=9, checkpoint_seconds=4.0).trainer()
    assert time.slow_down(trainer, 30.0).train() is None
    assert len(time.saves) > 2
    assert 30.0 - A_BATCH < time.moment <= 30.0


def test_no_evaluation_is_begun_that_would_end_too_late(make_case) -> None:
    case = make_case(epochs=3, eval_batch_tokens=1, fgm_epsilon=0)
    whole = SlowTime()
    whole.slow_down(case.trainer(), 1e9).train()
    an_epoch = whole.passes[: len(whole.passes) // 3]
    time = SlowTime()
    trainer = time.slow_down(case.trainer(), 2 * len(an_epoch) - 1)
    assert trainer.train() is None
    updates = [training for training in an_epoch if training]
    assert time.passes == an_epoch + updates  # the second evaluation, measured by the first, is not
    assert trainer.state.progress.evaluation_due


def test_a_session_too_short_for_the_evaluation_that_is_due_says_so(make_case, capsys) -> None:
    case = make_case(batch_size=32, eval_batch_tokens=1)
    assert SlowTime().slow_down(case.trainer(), 1.0).train() is None
    before = case.trainer().resume_path.read_bytes()
    again = SlowTime()
    assert again.slow_down(case.trainer(), 3.0).train() is None
    assert again.moment <= 3.0 + 1.0
    assert again.saves == [] and case.trainer().resume_path.read_bytes() == before
    assert "too short for the evaluation that is due" in capsys.readouterr().out


def test_early_on_a_line_says_once_whether_the_budget_is_enough(make_case, capsys) -> None:
    case = make_case(batch_size=2, epochs=3, fgm_epsilon=0.2)
    trainer = SlowTime().slow_down(case.trainer(), 300.0)
    batches, evaluation = sum(trainer.order.counts), 1.0
    assert len(trainer.train_examples) // 2 == PROBE_EVERY_UPDATES - 1 == KNOWN_AFTER_UPDATES - 1
    trainer.folds_to_finish = 3
    trainer.train()
    lines = [line for line in capsys.readouterr().out.splitlines() if "takes about" in line]
    left = 2 / 3 * (batches * A_BATCH + 3 * evaluation)
    assert lines == [
        f"fold 0 takes about {left:.0f} s more, all 3 folds 3 min; the budget has 5 min left"
    ]


def test_a_full_disk_at_the_end_of_the_time_is_an_error_only_when_all_is_lost(
    make_case, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    case = make_case()

    def full(path, run_id) -> None:
        raise ArtifactError("could not write resume.safetensors: No space left on device.")

    for is_saved in (False, True):
        trainer = SlowTime(save_seconds=0).slow_down(case.trainer(), 2.0)
        if is_saved:
            trainer.state.save(trainer.resume_path, trainer.run.id)
        trainer.state.save = full
        if is_saved:
            assert trainer.train() is None
        else:
            with pytest.raises(ArtifactError, match="No space left"):
                trainer.train()
    assert "used up; not saved again. could not write" in capsys.readouterr().out
