"""One update against the textbook, and against what public notebooks get wrong."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import AdamW
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kernel_lib.errors import TrainingError
from kernel_lib.training import loop, shares
from kernel_lib.training.update import MAX_SKIPPED_IN_A_ROW, step_if_finite


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
    trainer = make_case(fgm_epsilon=0.2).trainer()
    trainer.updater.update([rows(0, 1)], trainer.updater.make_fgm())
    assert [name for name, p in trainer.model.named_parameters() if p.grad is not None] == []


def test_gradients_are_cleared_also_where_no_optimizer_group_reaches(make_case) -> None:
    trainer = make_case(fgm_epsilon=0.2).trainer()
    trainer.state.optimizer.param_groups[0]["params"].pop()
    trainer.updater.update([rows(0, 1)], trainer.updater.make_fgm())
    assert [name for name, p in trainer.model.named_parameters() if p.grad is not None] == []


def test_training_and_validation_run_under_autocast_on_batches_no_wider_than_needed(
    make_case,
) -> None:
    trainer = make_case(fgm_epsilon=0.2, eval_batch_tokens=1).trainer(precision="bf16")
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
    trainer = make_case(fgm_epsilon=0.2, warmup_ratio=0.0).trainer()
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
    pairs = list(zip(clean, both, strict=True))  # so small a step changes the gradient hardly
    assert pairs and all(torch.allclose(2 * a, b, atol=1e-4, rtol=1e-2) for a, b in pairs)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_clipping_sees_true_gradients_not_scaled_ones(
    make_case, precision: str, tmp_path: Path
) -> None:
    gradients = {}
    for limit in (1e9, 1e-3):
        changes = {"max_grad_norm": limit, "output_dir": str(tmp_path / str(limit))}
        trainer = make_case(**changes, fgm_epsilon=0.2).trainer(precision=precision)
        seen = gradients_at_step(trainer)
        trainer.updater.update([rows(*range(8))], trainer.updater.make_fgm())
        gradients[limit] = math.sqrt(sum(float(g.square().sum()) for g in seen))
    assert 1e-2 < gradients[1e9] < 1e3  # of a loss of about 0.2: no factor 65536 in it
    assert gradients[1e-3] == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_non_finite_gradient_skips_the_update_cleanly(make_case, precision: str) -> None:
    trainer = make_case(fgm_epsilon=0.2).trainer(precision=precision)
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
    trainer = make_case(fgm_epsilon=0.2).trainer(precision="fp16")
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


SIZE_DEPENDS_ON_VALUES = ("nonzero", "unique", "masked_select", "repeat_interleave", "argwhere")


class HostReads(TorchDispatchMode):
    """Notes every operator for which a host would have to wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        by_mask = "index" in name and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for argument in args[1:2]
            for index in (argument if isinstance(argument, list | tuple) else [argument])
        )
        if name == "aten::_local_scalar_dense" or name == "aten::equal" or by_mask:
            self.seen.append(name)
        if any(word in name for word in SIZE_DEPENDS_ON_VALUES) or "is_nonzero" in name:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


class HostCopies(TorchFunctionMode):
    """Notes what on a CPU needs no operator, and on a GPU a copy that is waited for."""

    COPIES = (torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu)

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in self.COPIES:
            self.seen.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads() -> Iterator[list[str]]:
    """Gives a list that fills with all that would wait for a GPU."""
    with HostReads() as reads, HostCopies(reads.seen):
        yield reads.seen


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (lambda t: t.item(), "aten::_local_scalar_dense"),
        (lambda t: bool(t), "aten::_local_scalar_dense"),
        (lambda t: float(t), "aten::_local_scalar_dense"),
        (lambda t: t.tolist(), "tolist"),
        (lambda t: t[t > 0], "aten::index.Tensor"),
        (lambda t: t.unique(), "aten::_unique2"),
        (lambda t: torch.nonzero(t), "aten::nonzero"),
    ],
)
def test_what_would_wait_for_a_gpu_is_seen(read, name: str) -> None:
    tensor = torch.ones(()) if name.startswith(("aten::_local", "tolist")) else torch.ones(3)
    with host_reads() as seen:
        read(tensor)
    assert seen == [name]


@pytest.fixture
def make_fused(make_case, monkeypatch: pytest.MonkeyPatch):
    """Makes a trainer that works as on a GPU: AdamW fused, the next batches made ahead."""

    def fused(groups, settings, *_, **__) -> AdamW:
        return AdamW(groups, eps=settings.adam_epsilon, fused=True)

    def make(precision: str, **changes):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "make_optimizer", fused)
            trainer = make_case(**changes).trainer(precision=precision)
        trainer.updater.works_ahead = True
        return trainer

    return make


@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_an_update_waits_for_its_device_once_at_its_end(make_fused, precision: str) -> None:
    changes = {"dropout": 0.1, "attention": "stock"}  # the fast one asks a CPU more
    trainer = make_fused(precision, **changes, fgm_epsilon=0.2)
    fgm = trainer.updater.make_fgm()
    groups = [[rows(0, 1, 2), rows(3, 4)], [rows(5, 6), rows(7)], [rows(8)]]
    for group, following in zip(groups, [*groups[1:], []], strict=True):  # the first one is probed
        with host_reads() as seen:
            trainer.updater.update(group, fgm, following)
        assert seen == ["tolist"]
    assert trainer.state.progress.updates == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("attention", ["stock", "fast"])
@pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
def test_on_a_gpu_an_update_waits_once_too(make_case, precision: str, attention: str) -> None:
    case = make_case(fgm_epsilon=0.2, dropout=0.1, attention=attention)
    trainer = case.trainer(precision=precision, device="cuda")
    assert trainer.state.optimizer.defaults["fused"] and trainer.updater.works_ahead
    fgm = trainer.updater.make_fgm()
    groups = [[rows(0, 1, 2), rows(3, 4)]] * 2 + [[rows(0, 2, 1), rows(4, 3)], [rows(5)]]
    trainer.updater.update(groups[0], fgm)  # what is made once and kept
    trainer.state.progress.updates = 0  # so that the next one is probed
    for group, following in zip(groups[1:], [*groups[2:], []], strict=True):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                trainer.updater.update(group, fgm, following)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        waits = [
            str(warning.message) for warning in seen if "synchronizing" in str(warning.message)
        ]
        assert len(waits) == 1, waits


def test_the_next_batches_are_made_before_the_wait(
    make_fused, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_fused("float32")
    collate_to, made, events = shares.collate_to, [], []

    def noting(examples, pad_id, device):
        made.append([example.id for example in examples])
        events.append("made")
        return collate_to(examples, pad_id, device)

    class Waits(HostCopies):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in self.COPIES:
                events.append("waited")
            return super().__torch_function__(func, types, args, kwargs)

    monkeypatch.setattr(shares, "collate_to", noting)
    groups = [[rows(0, 1), rows(2)], [rows(3)], [rows(4, 5)]]
    with Waits([]):
        for group, following in zip(groups, [*groups[1:], []], strict=True):
            trainer.updater.update(group, None, following)
    assert events == ["made", "made", "made", "waited", "made", "waited", "waited"]
    wanted = [[trainer.train_examples[row].id for row in batch] for g in groups for batch in g]
    assert made == wanted


def test_what_was_made_ahead_is_used_for_its_own_group_only(make_fused) -> None:
    expected, ahead = make_fused("float32"), make_fused("float32")
    groups = [[rows(0, 1)], [rows(2, 3)], [rows(4, 5)]]
    ahead.updater.update(groups[0], None, groups[1])
    losses = [ahead.updater.update(group, None) for group in (groups[2], groups[1])]
    expected.updater.update(groups[0], None)
    assert losses == [expected.updater.update(group, None) for group in (groups[2], groups[1])]


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_a_fused_optimizer_leaves_out_a_step_as_another_does(make_fused, precision: str) -> None:
    trainer = make_fused(precision, fgm_epsilon=0.2)
    fgm, true_loss = trainer.updater.make_fgm(), trainer.task._loss
    for factor, updates, skipped in ((1.0, 1, 0), (math.inf, 1, 1), (1.0, 2, 1)):
        before = weights(trainer)
        trainer.task._loss = lambda outputs, targets, by=factor: true_loss(outputs, targets) * by
        trainer.updater.update([rows(0, 1)], fgm)
        progress, steps = trainer.state.progress, trainer.state.optimizer.state.values()
        assert (progress.updates, progress.skipped) == (updates, skipped)
        assert trainer.state.schedule.last_epoch == updates
        assert {float(state["step"]) for state in steps} == {updates}
        stayed = all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
        assert stayed == (factor != 1.0)
    assert not hasattr(trainer.state.optimizer, "found_inf")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("norm", [1.0, math.inf, math.nan])
def test_a_step_is_made_only_when_the_norm_is_finite(fused: bool, norm: float) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW([weight], lr=0.1, fused=fused)
    weight.grad = torch.ones(3)
    step_if_finite(optimizer, torch.tensor(norm))
    assert torch.equal(weight, torch.ones(3)) == (norm != 1.0)


NOISY = {"mask_rate": 0.3, "noise_rate": 0.3, "max_grad_norm": 1e9}


@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_a_batch_cut_in_parts_sees_the_same_noise(make_spelling_case, epsilon: float) -> None:
    case = make_spelling_case(**NOISY, fgm_epsilon=epsilon)
    whole, cut = case.trainer(), case.trainer()
    one, many = gradients_at_step(whole), gradients_at_step(cut)
    cut.state.progress.rows_at_once = 2
    group = [rows(0, 1, 2, 3, 4), rows(5, 6, 7)]
    losses = [t.updater.update(group, t.updater.make_fgm()) for t in (whole, cut)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(one, many, strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=1e-3)


def test_rows_are_seen_with_noise_made_for_them_in_this_epoch(make_spelling_case) -> None:
    trainer = make_spelling_case(**NOISY).trainer(fold=1)
    asked, seen = [], []
    augment = trainer.task.augment

    def noting(example, seed):
        asked.append((example.id, seed))
        return augment(example, seed)

    trainer.task.augment = noting
    trainer.model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0]))
    trainer.state.progress.epoch = 3
    trainer.updater.update([rows(4, 2)], None)
    ids = [trainer.train_examples[row].id for row in (4, 2)]
    assert asked == [(ids[0], (42, 1, 3, 4)), (ids[1], (42, 1, 3, 2))]
    for row, found in zip((4, 2), seen[0], strict=True):
        plain = trainer.train_examples[row]
        expected = augment(plain, (42, 1, 3, row)).input_ids
        assert found[: len(expected)].tolist() == expected.tolist() != plain.input_ids.tolist()
