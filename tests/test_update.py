"""One update against the textbook, and against what public notebooks get wrong."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from kernel_lib.errors import TrainingError
from kernel_lib.training.update import MAX_SKIPPED_IN_A_ROW


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


def gradients_at_step(trainer) -> list[torch.Tensor]:
    """Fills with the gradients that the optimizer sees."""
    seen: list[torch.Tensor] = []

    def look(optimizer, args, kwargs) -> None:
        seen.extend(p.grad.clone() for g in optimizer.param_groups for p in g["params"])

    trainer.state.optimizer.register_step_pre_hook(look)
    return seen


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


@pytest.mark.parametrize("group", [[rows(0, 1, 2), rows(3, 4, 5)], [rows(0, 1, 2, 3), rows(4)]])
def test_accumulated_batches_give_the_gradient_of_one_large_batch(make_case, group) -> None:
    case = make_case(fgm_epsilon=0, max_grad_norm=1e9)
    together, apart = case.trainer(), case.trainer()
    one, many = gradients_at_step(together), gradients_at_step(apart)
    loss_one = together.updater.update([np.concatenate(group)], None)
    loss_many = apart.updater.update(group, None)
    assert loss_one == pytest.approx(loss_many, rel=1e-5)
    for a, b in zip(one, many, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_no_gradient_is_left_on_any_parameter_after_an_update(make_case) -> None:
    trainer = make_case().trainer()
    trainer.updater.update([rows(0, 1)], trainer.updater.make_fgm())
    assert [name for name, p in trainer.model.named_parameters() if p.grad is not None] == []


def test_gradients_are_cleared_also_where_no_optimizer_group_reaches(make_case) -> None:
    trainer = make_case().trainer()
    trainer.state.optimizer.param_groups[0]["params"].pop()
    trainer.updater.update([rows(0, 1)], trainer.updater.make_fgm())
    assert [name for name, p in trainer.model.named_parameters() if p.grad is not None] == []


def test_training_and_validation_run_under_autocast_on_batches_no_wider_than_needed(
    make_case,
) -> None:
    trainer = make_case(eval_batch_size=1).trainer(precision="bf16")
    seen: set[tuple[bool, torch.dtype, int]] = set()
    lengths = [len(example.input_ids) for example in trainer.train_examples]

    def look(module, inputs, output) -> None:
        seen.add((module.training, output.dtype, output.shape[1]))

    trainer.model.train().backbone.encoder.layer[0].intermediate.dense.register_forward_hook(look)
    shortest = int(np.argmin(lengths))
    trainer.updater.update([rows(shortest)], trainer.updater.make_fgm())
    trainer.evaluator.predict(trainer.model)
    assert {(training, dtype) for training, dtype, _ in seen} == {
        (True, torch.bfloat16),
        (False, torch.bfloat16),
    }
    width = -(-lengths[shortest] // 8) * 8
    assert {width for training, _, width in seen if training} == {width}


def test_every_trainable_parameter_moves(make_case) -> None:
    trainer = make_case(warmup_ratio=0.0).trainer()
    before = weights(trainer)
    trainer.updater.update([rows(*range(8))], trainer.updater.make_fgm())
    still = {name for name, value in weights(trainer).items() if torch.equal(value, before[name])}
    assert still == set()


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_what_fgm_adds_is_of_the_order_of_the_clean_gradient(make_case, precision: str) -> None:
    trainer = make_case(fgm_epsilon=0.5).trainer(precision=precision)
    assert trainer.state.scaler.is_enabled() == (precision == "fp16")
    trainer.updater.update([rows(*range(8))], trainer.updater.make_fgm())
    print(f"{precision}: fgm/clean gradient {trainer.state.progress.fgm_ratio:.2f}")
    assert 0.3 < trainer.state.progress.fgm_ratio < 3


def test_the_measured_share_of_fgm_does_not_depend_on_accumulation(make_case) -> None:
    ratios = []
    for others in ([], [rows(8, 9), rows(10, 11), rows(12, 13)]):
        trainer = make_case(fgm_epsilon=0.5).trainer()
        trainer.updater.update([rows(*range(8)), *others], trainer.updater.make_fgm())
        ratios.append(trainer.state.progress.fgm_ratio)
    assert ratios[0] == pytest.approx(ratios[1], rel=0.01)


def test_with_fgm_the_gradient_is_the_sum_of_both_passes(make_case) -> None:
    case = make_case(fgm_epsilon=1e-6, max_grad_norm=1e9)
    without, with_fgm = case.trainer(), case.trainer()
    clean, both = gradients_at_step(without), gradients_at_step(with_fgm)
    without.updater.update([rows(0, 1, 2)], None)
    with_fgm.updater.update([rows(0, 1, 2)], with_fgm.updater.make_fgm())
    for a, b in zip(clean, both, strict=True):  # so small a step changes the gradient hardly
        assert torch.allclose(2 * a, b, atol=1e-4, rtol=1e-2)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_clipping_sees_true_gradients_not_scaled_ones(
    make_case, precision: str, tmp_path: Path
) -> None:
    gradients = {}
    for limit in (1e9, 1e-3):
        trainer = make_case(max_grad_norm=limit, output_dir=str(tmp_path / str(limit))).trainer(
            precision=precision
        )
        seen = gradients_at_step(trainer)
        trainer.updater.update([rows(*range(8))], trainer.updater.make_fgm())
        gradients[limit] = math.sqrt(sum(float(g.square().sum()) for g in seen))
    assert 1e-2 < gradients[1e9] < 1e3  # of a loss of about 0.2: no factor 65536 in it
    assert gradients[1e-3] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_non_finite_gradient_skips_the_update_cleanly(make_case, precision: str) -> None:
    trainer = make_case().trainer(precision=precision)
    fgm = trainer.updater.make_fgm()
    before, true_loss = weights(trainer), trainer.task._loss
    trainer.task._loss = lambda outputs, targets: true_loss(outputs, targets) * math.inf
    trainer.updater.update([rows(0, 1)], fgm)
    progress = trainer.state.progress
    assert (progress.updates, progress.skipped) == (0, 1)
    assert trainer.state.schedule.last_epoch == 0
    for name, value in weights(trainer).items():
        assert torch.equal(value, before[name]), name

    trainer.task._loss = true_loss
    trainer.updater.update([rows(0, 1)], fgm)
    assert (progress.updates, progress.skipped, progress.skipped_in_a_row) == (1, 1, 0)
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())


def test_the_scaler_backs_off_when_a_gradient_overflows(make_case) -> None:
    trainer = make_case().trainer(precision="fp16")
    scale, true_loss = trainer.state.scaler.get_scale(), trainer.task._loss
    trainer.task._loss = lambda outputs, targets: true_loss(outputs, targets) * math.inf
    trainer.updater.update([rows(0, 1)], trainer.updater.make_fgm())
    assert trainer.state.scaler.get_scale() < scale


def test_gradients_that_stay_non_finite_end_the_run(make_case) -> None:
    trainer = make_case(fgm_epsilon=0).trainer()
    trainer.task._loss = lambda outputs, targets: (outputs - targets).mean() * math.nan
    with pytest.raises(TrainingError, match="not finite"):
        for _ in range(MAX_SKIPPED_IN_A_ROW + 1):
            trainer.updater.update([rows(0)], None)
