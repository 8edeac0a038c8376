"""AWP: which weights move, how far and where to, which gradient counts, and that nothing stays."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from kernel_lib.errors import SettingsError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.distributed import World
from kernel_lib.tasks.regression import RegressionSettings
from kernel_lib.text.batches import collate
from kernel_lib.training.awp import AWP, batches_before_awp, encoder_matrices
from tests.conftest import Case
from tests.test_distributed import case_of, settings_of, together, trainer_of
from tests.test_memory import LittleMemory
from tests.test_state import stop_after, without_seconds
from tests.test_update import gradients_at_step, host_reads, rows, weights

RATE, EPSILON = 0.05, 0.1
TWO_PASS = {"awp": "two_pass", "fgm_epsilon": 0, "awp_start_epoch": 0}
NO_EXTRA_PASS = {"awp": "no_extra_pass", "fgm_epsilon": 0, "awp_start_epoch": 0}
FAR = {"awp_learning_rate": RATE, "awp_epsilon": EPSILON}


class Toy(nn.Module):
    """An encoder of a table, a LayerNorm and two layers, and a head."""

    def __init__(self) -> None:
        super().__init__()
        table, norm = nn.Embedding(7, 4), nn.LayerNorm(4)
        self.backbone = nn.Sequential(table, norm, nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        self.head = nn.Linear(3, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(ids)).square().mean()


IDS = torch.tensor([[1, 2, 5], [3, 1, 0]])


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def awp(toy: Toy) -> AWP:
    return AWP(toy, learning_rate=RATE, epsilon=EPSILON)


def by_hand(weight: torch.Tensor, direction: torch.Tensor) -> np.ndarray:
    """Where a matrix moves to, in float64 and by the definition."""
    w, d = weight.detach().double().numpy(), direction.double().numpy()
    moved = w + RATE * np.sqrt((w**2).sum()) / np.sqrt((d**2).sum()) * d
    return np.minimum(np.maximum(moved, w - EPSILON * np.abs(w)), w + EPSILON * np.abs(w))


def test_the_encoders_matrices_move_as_defined_and_nothing_else(toy: Toy, awp: AWP) -> None:
    toy(IDS).backward()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    with awp.along_gradient():
        for name, parameter in toy.named_parameters():
            if name in ("backbone.2.weight", "backbone.4.weight"):
                expected = by_hand(before[name], parameter.grad)
                np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6)
                change = (parameter.detach() / before[name] - 1).abs()
                assert (change < 0.09).any() and (change > 0.0999).any()  # some cut, some not
            else:
                assert torch.equal(parameter, before[name]), name
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


def test_the_loss_is_worse_at_the_moved_weights(toy: Toy, awp: AWP) -> None:
    clean = toy(IDS)
    clean.backward()
    with awp.along_gradient(), torch.no_grad():
        assert toy(IDS) > clean


def test_weights_are_bit_for_bit_as_before_also_after_an_exception(toy: Toy, awp: AWP) -> None:
    with torch.no_grad():
        toy.backbone[2].weight[0, 0] = -0.0
    toy(IDS).backward()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    with pytest.raises(RuntimeError, match="out of memory"), awp.along_gradient():
        raise RuntimeError("out of memory")
    for name, value in toy.state_dict().items():
        assert torch.equal(value.view(torch.int32), before[name].view(torch.int32)), name


def test_a_memory_that_ends_while_weights_move_leaves_them_as_they_were(
    toy: Toy, awp: AWP, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(IDS).backward()
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    add_, calls = torch.Tensor.add_, []

    def failing(tensor, *args):
        calls.append(add_(tensor, *args))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return calls[-1]

    monkeypatch.setattr(torch.Tensor, "add_", failing)
    with pytest.raises(torch.OutOfMemoryError), awp.along_gradient():
        raise AssertionError("not reached")
    assert len(calls) == 2
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


@pytest.mark.parametrize("scale", [0.0, math.inf, math.nan])
def test_nothing_moves_by_a_gradient_that_is_zero_or_not_finite(
    toy: Toy, awp: AWP, scale: float
) -> None:
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    (toy(IDS) * scale).backward()
    with awp.along_gradient():
        assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


def test_one_number_that_is_not_finite_stops_the_whole_attack(toy: Toy, awp: AWP) -> None:
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    toy(IDS).backward()
    toy.backbone[4].weight.grad[0, 0] = math.inf
    with awp.along_gradient():
        assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())


def test_the_step_does_not_depend_on_the_loss_scale(toy: Toy, awp: AWP) -> None:
    moved = []
    for scale in (1.0, 65536.0):
        toy.zero_grad()
        (toy(IDS) * scale).backward()
        with awp.along_gradient():
            moved.append(toy.backbone[2].weight.detach().clone())
    assert torch.allclose(*moved, atol=1e-7)


def test_frozen_matrices_stay(toy: Toy, awp: AWP) -> None:
    toy(IDS).backward()
    toy.backbone[2].weight.requires_grad_(False)
    before = toy.backbone[2].weight.clone()
    with awp.along_gradient():
        assert torch.equal(toy.backbone[2].weight, before)


def test_the_running_mean_steers_where_there_is_one(toy: Toy, awp: AWP) -> None:
    optimizer = torch.optim.AdamW(toy.parameters(), lr=1e-2)
    before = toy.backbone[2].weight.detach().clone()
    with awp.along_running_mean(optimizer):
        assert torch.equal(toy.backbone[2].weight, before)
    mean = torch.zeros_like(before)
    for number in range(3):
        optimizer.zero_grad()
        toy((IDS + number) % 7).backward()
        mean = 0.9 * mean + toy.backbone[2].weight.grad  # a factor of Adam's, without correction
        optimizer.step()
    optimizer.zero_grad()
    expected = by_hand(toy.backbone[2].weight, mean)
    with awp.along_running_mean(optimizer):
        np.testing.assert_allclose(toy.backbone[2].weight.detach(), expected, rtol=1e-5)


def test_of_a_deberta_the_layers_matrices_move(make_case) -> None:
    model = make_case().trainer().model
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)] for p in encoder_matrices(model)}
    every = [name for name, p in model.named_parameters() if p.ndim >= 2]
    tables = {n for n in every if "embeddings" in n.rsplit(".", 2)[-2]}
    assert {n.removeprefix("backbone.") for n in tables} == {
        "embeddings.word_embeddings.weight",
        "encoder.rel_embeddings.weight",
    }
    assert found == {n for n in every if n.startswith("backbone.")} - tables
    assert len(found) >= 12 and len(every) > len(found) + len(tables)  # the head's have no part


def test_of_lora_the_products_move(make_entity_case) -> None:
    trainer = make_entity_case(lora_rank=2, **NO_EXTRA_PASS, **FAR).trainer()
    trainer.updater.update([rows(0, 1)], None)
    trainer.updater.update([rows(2, 3)], None)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with trainer.updater.awp.along_running_mean(trainer.state.optimizer):
        moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all(name.endswith(("lora_a", "lora_b")) for name in moved)
    assert moved == {n for n in names.values() if n.endswith(("lora_a", "lora_b"))}


@pytest.mark.parametrize("way", ["two_pass", "no_extra_pass"])
def test_an_encoder_with_nothing_to_move_is_refused(make_case, way: str) -> None:
    with pytest.raises(SettingsError, match="frozen"):
        make_case(**{**TWO_PASS, "awp": way}, freeze_layers=2, freeze_embeddings=True).trainer()


# An update

LARGE = {"max_grad_norm": 1e9}
GROUP = [rows(0, 1, 2), rows(3, 4)]


def loss_of(trainer, group) -> torch.Tensor:
    """The mean loss of a group's rows, each its share: written anew."""
    total = sum(map(len, group))
    losses = []
    for numbers in group:
        batch = collate(
            [trainer.train_examples[row] for row in numbers], trainer.updater.shares.pad_id
        )
        outputs = trainer.model(batch.input_ids, batch.attention_mask)
        losses.append(trainer.task.loss(outputs, batch) * len(numbers) / total)
    return torch.stack(losses).sum()


def move_by_hand(trainer, directions: dict[str, torch.Tensor]) -> None:
    chosen = {id(p) for p in encoder_matrices(trainer.model)}
    for name, parameter in trainer.model.named_parameters():
        if id(parameter) in chosen:
            moved = by_hand(parameter, directions[name])
            parameter.data = torch.from_numpy(moved).float()


@pytest.mark.parametrize("precision", ["float32", "fp16"])
@pytest.mark.parametrize("at_once", [None, 1])
def test_with_two_passes_the_step_is_by_the_gradient_at_the_moved_weights_alone(
    make_case, precision: str, at_once: int | None
) -> None:
    case = make_case(**TWO_PASS, **FAR, **LARGE)
    trainer, hand = case.trainer(precision=precision), case.trainer()
    trainer.state.progress.rows_at_once = at_once
    seen, before = gradients_at_step(trainer), weights(trainer)
    at_weights: list[bool] = []
    trainer.state.optimizer.register_step_pre_hook(
        lambda *_: at_weights.append(
            all(torch.equal(value, before[name]) for name, value in weights(trainer).items())
        )
    )
    found = trainer.updater.update(GROUP, None)
    assert at_weights == [True]

    clean = loss_of(hand, GROUP)
    clean.backward()
    assert found == pytest.approx(clean.item(), rel=1e-2 if precision == "fp16" else 1e-5)
    clean_gradients = {name: p.grad.clone() for name, p in hand.model.named_parameters()}
    move_by_hand(hand, clean_gradients)
    hand.model.zero_grad()
    loss_of(hand, GROUP).backward()
    expected = [p.grad for g in hand.state.optimizer.param_groups for p in g["params"]]
    others = {id(p): clean_gradients[name] for name, p in hand.model.named_parameters()}
    tolerance = 0.05 if precision == "fp16" else 1e-4
    differs = []
    params = [p for g in hand.state.optimizer.param_groups for p in g["params"]]
    for gradient, wanted, p in zip(seen, expected, params, strict=True):
        size = wanted.norm()
        assert (gradient - wanted).norm() <= tolerance * size + 1e-6
        differs.append(((others[id(p)] - wanted).norm() / size).item())
    assert np.median(differs) > 2 * tolerance  # the attack is seen


def test_without_an_extra_pass_the_gradient_is_that_along_the_running_mean(make_case) -> None:
    case = make_case(**NO_EXTRA_PASS, **FAR, **LARGE)
    trainer = case.trainer()
    passes: list[int] = []
    trainer.model.register_forward_hook(lambda *_: passes.append(1))
    trainer.updater.update([rows(5, 6, 7)], None)
    hand = make_case(fgm_epsilon=0, **LARGE).trainer()
    hand.updater.update([rows(5, 6, 7)], None)
    for name, value in weights(trainer).items():  # before the first update there is no mean
        assert torch.equal(value, hand.model.state_dict()[name])
    seen = gradients_at_step(trainer)
    means = {
        name: hand.state.optimizer.state[p]["exp_avg"].clone()
        for name, p in hand.model.named_parameters()
    }
    loss = trainer.updater.update(GROUP, None)
    assert len(passes) == 3
    move_by_hand(hand, means)
    clean = loss_of(hand, GROUP)
    clean.backward()
    assert loss == pytest.approx(clean.item(), rel=1e-5)
    wanted = [p.grad for g in hand.state.optimizer.param_groups for p in g["params"]]
    for gradient, expected in zip(seen, wanted, strict=True):
        assert (gradient - expected).norm() <= 1e-4 * expected.norm() + 1e-6


def test_without_an_extra_pass_fgm_attacks_too(make_case) -> None:
    trainer = make_case(**{**NO_EXTRA_PASS, "fgm_epsilon": 0.5}, **FAR).trainer()
    fgm = trainer.updater.make_fgm()
    for group in (GROUP, GROUP[:1]):
        trainer.updater.update(group, fgm)
    before = weights(trainer)
    true_loss = trainer.task._loss
    trainer.task._loss = lambda outputs, targets: true_loss(outputs, targets) * math.inf
    trainer.updater.update(GROUP, fgm)  # no step: all is as before both attacks
    assert trainer.state.progress.skipped == 1
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


@pytest.mark.parametrize("way", [TWO_PASS, NO_EXTRA_PASS])
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_an_update_that_is_skipped_changes_nothing(make_case, way, precision: str) -> None:
    trainer = make_case(**way).trainer(precision=precision)
    trainer.updater.update(GROUP, None)
    scale, true_loss = trainer.state.scaler.get_scale(), trainer.task._loss
    for factor, skipped in ((math.inf, 1), (1.0, 1)):
        before = weights(trainer)
        trainer.task._loss = lambda outputs, targets, by=factor: true_loss(outputs, targets) * by
        trainer.updater.update(GROUP, None)
        assert trainer.state.progress.skipped == skipped
        same = [torch.equal(value, before[name]) for name, value in weights(trainer).items()]
        assert all(same) if factor == math.inf else not any(same)
    assert all(torch.isfinite(value).all() for value in weights(trainer).values())
    assert precision == "float32" or trainer.state.scaler.get_scale() < scale


@pytest.mark.parametrize(
    "failing",
    [{"forward": (2,)}, {"backward": (2,)}, {"forward": (3,)}, {"backward": (4,)}],
    ids=str,
)
def test_wherever_memory_ends_the_update_stays_the_same(make_case, failing) -> None:
    case = make_case(**TWO_PASS, **FAR, **LARGE)
    whole, cut = case.trainer(), case.trainer()
    one, many = gradients_at_step(whole), gradients_at_step(cut)
    LittleMemory(cut.model, **failing)
    group = [rows(0, 1, 2, 3), rows(4, 5)]
    losses = [trainer.updater.update(group, None) for trainer in (whole, cut)]
    assert cut.state.progress.rows_at_once == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for a, b in zip(one, many, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_it_begins_in_its_epoch_and_in_the_midst_of_one(make_case) -> None:
    for start, attacked in ((0.5, 4), (1.0, 3), (1.9, 0)):
        trainer = make_case(
            **{**TWO_PASS, "awp_start_epoch": start}, batch_size=7, epochs=2, max_rows=40
        ).trainer()
        assert trainer.order.counts == (3, 3)
        moves: list[int] = []
        attack = trainer.updater.awp.along_gradient

        def noting(attack=attack, moves=moves):
            moves.append(1)
            return attack()

        trainer.updater.awp.along_gradient = noting
        trainer.evaluator.is_due = lambda *_: False
        trainer._train_epochs(FakeBar(), None)
        assert len(moves) == attacked, start


class FakeBar:
    """A bar that nobody sees."""

    def update(self, count: int) -> None: ...

    def set_postfix_str(self, text: str, refresh: bool) -> None: ...

    def write(self, line: str) -> None: ...


@pytest.mark.parametrize("way", [TWO_PASS, NO_EXTRA_PASS])
def test_resumed_equals_unbroken(make_case, tmp_path: Path, way) -> None:
    changes = {**way, **FAR, "awp_start_epoch": 0.5, "dropout": 0.2, "batch_size": 4, "epochs": 2}
    unbroken = make_case(**changes, output_dir=str(tmp_path / "a")).trainer()
    expected = unbroken.train()
    case = make_case(**changes, output_dir=str(tmp_path / "b"))
    for steps in (2, 3):
        trainer = case.trainer()
        stop_after(trainer, steps)
        assert trainer.train() is None
        torch.manual_seed(999)  # another session begins with other random states
    resumed = case.trainer()
    result = resumed.train()
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert without_seconds(result.history) == without_seconds(expected.history)


def update_gradients(trainer, group) -> list[torch.Tensor]:
    trainer.updater.update([rows(5, 6, 7)], None)
    seen = gradients_at_step(trainer)
    trainer.updater.update(group, None)
    return seen


def save_gradients(world: World, settings: list[dict], folder: str) -> None:
    for number, values in enumerate(settings):
        trainer = trainer_of(case_of(values), world)
        if world.rank:  # its memory is full in the second pass of the second update
            LittleMemory(trainer.model, backward=(5,))
        seen = update_gradients(trainer, GROUP)
        save_file(
            dict(zip(map(str, range(len(seen))), seen, strict=True)),
            f"{folder}/{number}.{world.rank}",
        )


def test_processes_that_share_an_update_move_by_the_gradient_of_all(
    make_case, tmp_path: Path
) -> None:
    linear = {"adam_epsilon": 1.0}  # no large step out of a rounding error
    cases: list[Case] = [
        make_case(**way, **FAR, **LARGE, **linear, output_dir=str(tmp_path / name))
        for name, way in (("two", TWO_PASS), ("none", NO_EXTRA_PASS))
    ]
    together(save_gradients, [settings_of(case) for case in cases], str(tmp_path))
    for number, case in enumerate(cases):
        expected = update_gradients(case.trainer(), GROUP)
        one, other = (load_file(tmp_path / f"{number}.{rank}") for rank in (0, 1))
        for index, gradient in enumerate(expected):
            assert torch.equal(one[str(index)], other[str(index)])
            assert torch.allclose(one[str(index)], gradient, atol=1e-5)


@pytest.mark.parametrize("way", [TWO_PASS, NO_EXTRA_PASS])
def test_an_update_waits_for_its_device_once(make_case, way) -> None:
    trainer = make_case(**way, attention="stock").trainer()
    trainer.updater.update(GROUP, None)
    with host_reads() as seen:
        trainer.updater.update(GROUP, None)
    assert seen == ["tolist"]


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(SettingsError, match="choose one"):
        RegressionSettings(awp="two_pass", fgm_epsilon=0.2)
    for optimizer in ("madgrad", "adam8bit"):
        with pytest.raises(SettingsError, match="running mean"):
            RegressionSettings(awp="no_extra_pass", optimizer=optimizer)
        RegressionSettings(awp="two_pass", fgm_epsilon=0, optimizer=optimizer)
    RegressionSettings(awp="no_extra_pass", fgm_epsilon=0.2)
    with pytest.raises(SettingsError, match=r"awp_start_epoch=2\.0: with epochs=2 it would never"):
        RegressionSettings(awp="no_extra_pass", awp_start_epoch=2, epochs=2)
    RegressionSettings(awp_start_epoch=2, epochs=2)  # nothing is asked for


@pytest.mark.parametrize(
    ("start", "before"),
    [(0.0, 0), (0.5, 1), (0.51, 2), (1.0, 2), (1.1, 3), (1.25, 5), (1.9, 11), (2.0, 12), (7, 16)],
)
def test_the_batches_before_it_are_those_of_epochs_of_unlike_length(start, before: int) -> None:
    settings = RegressionSettings(**{**TWO_PASS, "awp_start_epoch": start}, epochs=8)
    counts = (2, 10, 4)
    assert batches_before_awp(counts, settings) == before
    # As one goes through the fold, batch by batch.
    done = [epoch + Fraction(n, of) for epoch, of in enumerate(counts) for n in range(of)]
    assert before == sum(at < Fraction(str(start)) for at in done)


def test_a_debug_run_has_it_after_as_large_a_part_of_the_training() -> None:
    quick = RegressionSettings(awp="no_extra_pass", awp_start_epoch=2, epochs=5, debug=True)
    assert (quick.epochs, quick.awp_start_epoch) == (1, 0.4)
    assert RegressionSettings.from_dict(quick.to_dict()) == quick
    full = quick.replace(debug=False)
    assert (full.epochs, full.awp_start_epoch) == (5, 2.0)
    assert RegressionSettings(debug=True).replace(awp="no_extra_pass").awp_start_epoch == 0.2


def test_the_projection_knows_that_two_passes_begin_later(make_case) -> None:
    """A pass over a batch takes a second: 3 batches of one, and 3 of two after AWP has begun."""
    trainer = make_case(
        **{**TWO_PASS, "awp_start_epoch": 1}, batch_size=7, epochs=2, max_rows=40
    ).trainer()
    trainer.evaluator.is_due = lambda *_: False
    now, progress, pace = [0.0], trainer.state.progress, trainer.pace
    trainer.machine = replace(trainer.machine, clock=Clock(99.0, now=lambda: now[0]))
    trainer.model.register_forward_hook(lambda *_: now.__setitem__(0, now[0] + 1.0))
    left, save = [], trainer._save_from_time_to_time

    def noting() -> None:
        left.append((now[0], pace.left_seconds(progress, trainer._work_done())))
        save()

    trainer._save_from_time_to_time = noting
    trainer._train_epochs(FakeBar(), None)
    evaluations = 2 * trainer.evaluator.cost_in_batches()  # a second a batch
    assert [at for at, _ in left] == [1, 2, 3, 5, 7, 9]
    assert [at + rest - evaluations for at, rest in left] == pytest.approx([9.0] * 6)
