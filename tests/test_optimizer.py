"""Layer-wise rates, and the schedule counted in optimizer updates."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.device import Precision
from kernel_lib.training.loop import FoldTrainer
from kernel_lib.training.optimizer import (
    check_partition,
    groups_table,
    make_optimizer,
    make_schedule,
    parameter_groups,
)
from kernel_lib.training.rates import schedule_factor
from kernel_lib.training.task import Machine


def rates_by_name(model: nn.Module, groups: list[dict]) -> dict[str, list[float]]:
    held: dict[str, list[float]] = {name: [] for name, _ in model.named_parameters()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            held[names[id(parameter)]].append(group["lr"])
    return held


def test_every_trainable_parameter_is_in_exactly_one_group(make_case) -> None:
    model = make_case().trainer().model
    held = rates_by_name(model, parameter_groups(model, make_case().task.settings))
    assert {name for name, rates in held.items() if len(rates) != 1} == set()


def test_what_stands_in_no_layer_learns_with_the_embeddings(make_case) -> None:
    case = make_case(learning_rate=1e-3, layer_decay=0.5, head_learning_rate=7e-3)
    model = case.trainer().model
    rates = rates_by_name(model, parameter_groups(model, case.task.settings))
    for name in (
        "backbone.encoder.rel_embeddings.weight",
        "backbone.encoder.LayerNorm.weight",
        "backbone.encoder.LayerNorm.bias",
        "backbone.embeddings.word_embeddings.weight",
    ):
        assert rates[name] == [1e-3 * 0.5**2], name
    assert rates["backbone.encoder.layer.0.output.dense.weight"] == [1e-3 * 0.5]
    assert rates["backbone.encoder.layer.1.output.dense.weight"] == [1e-3]
    assert rates["head.weight"] == [7e-3]
    assert rates["pooling.score.0.weight"] == [7e-3]


def test_a_decay_of_1_gives_the_plain_encoder_and_head_rates(make_case) -> None:
    case = make_case(learning_rate=1e-3, layer_decay=1.0, head_learning_rate=7e-3)
    model = case.trainer().model
    rates = rates_by_name(model, parameter_groups(model, case.task.settings))
    assert {r[0] for name, r in rates.items() if name.startswith("backbone.")} == {1e-3}
    assert {r[0] for name, r in rates.items() if not name.startswith("backbone.")} == {7e-3}


def test_frozen_parameters_are_in_no_group_and_do_not_move_the_rates(make_case) -> None:
    case = make_case(freeze_layers=1, freeze_embeddings=True, layer_decay=0.5)
    model = case.trainer().model
    rates = rates_by_name(model, parameter_groups(model, case.task.settings))
    assert rates["backbone.encoder.layer.0.output.dense.weight"] == []
    assert rates["backbone.embeddings.word_embeddings.weight"] == []
    assert rates["backbone.encoder.layer.1.output.dense.weight"] == [1e-3]
    assert rates["backbone.encoder.rel_embeddings.weight"] == []


def test_a_decoder_beside_the_layers_learns_with_the_shared_parts(make_case) -> None:
    case = make_case(layer_decay=0.5)
    model = case.trainer().model
    model.backbone.decoder = nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4)])})
    rates = rates_by_name(model, parameter_groups(model, case.task.settings))
    assert rates["backbone.decoder.layers.0.weight"] == [1e-3 * 0.5**2]


def test_vectors_are_not_decayed(make_case) -> None:
    case = make_case(weight_decay=0.3)
    for group in parameter_groups(case.trainer().model, case.task.settings):
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.3 if parameter.ndim >= 2 else 0.0)


def test_a_partition_with_a_hole_or_a_double_is_refused(make_case) -> None:
    case = make_case()
    model = case.trainer().model
    trainable = dict(model.named_parameters())
    groups = parameter_groups(model, case.task.settings)
    lost = groups[0]["params"].pop()
    with pytest.raises(TrainingError, match="exactly one"):
        check_partition(groups, trainable)
    groups[1]["params"] += [lost, lost]
    with pytest.raises(TrainingError, match="exactly one"):
        check_partition(groups, trainable)


def test_nothing_left_to_train_is_said(make_case) -> None:
    case = make_case()
    model = case.trainer().model.requires_grad_(False)
    with pytest.raises(TrainingError, match="every parameter is frozen"):
        parameter_groups(model, case.task.settings)


def test_the_table_counts_every_trainable_parameter(make_case) -> None:
    case = make_case()
    model = case.trainer().model
    table = groups_table(parameter_groups(model, case.task.settings))
    counted = [int(n.replace(",", "")) for n in re.findall(r"\s(\d[\d,]*)\s+\d\.\d\de", table)]
    assert sum(counted) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_the_rate_rises_over_the_warm_up_then_falls_to_nearly_nothing(shape: str) -> None:
    factors = [schedule_factor(u, total=100, warmup=10, shape=shape) for u in range(101)]
    assert 0 < factors[0] < 0.1
    assert factors[10] == 1.0 == max(factors)
    assert all(a < b for a, b in itertools.pairwise(factors[:11]))
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[100] == pytest.approx(0.0)


def test_cosine_and_linear_by_hand() -> None:
    assert schedule_factor(25, total=100, warmup=0, shape="linear") == 0.75
    assert schedule_factor(50, total=100, warmup=0, shape="cosine") == pytest.approx(0.5)
    assert schedule_factor(75, total=100, warmup=0, shape="constant") == 1.0


def test_the_warm_up_is_the_settings_share_of_all_updates(make_case) -> None:
    case = make_case(warmup_ratio=0.25)
    groups = parameter_groups(case.trainer().model, case.task.settings)
    highest = [group["lr"] for group in groups]
    optimizer = make_optimizer(groups, case.task.settings)
    schedule = make_schedule(optimizer, total_updates=16, settings=case.task.settings)
    rates = []
    for _ in range(16):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert rates[4] == pytest.approx(highest)
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:], reverse=True)


def textbook_adamw(parameters, gradients, *, rate, decay, epsilon) -> list[torch.Tensor]:
    """Algorithm 2 of the paper in float64, with PyTorch's coupling of rate and decay."""
    values = [parameter.detach().double() for parameter in parameters]
    first = [torch.zeros_like(value) for value in values]
    second = [torch.zeros_like(value) for value in values]
    for step, step_gradients in enumerate(gradients, 1):
        for at, gradient in enumerate(g.double() for g in step_gradients):
            first[at] = 0.9 * first[at] + 0.1 * gradient
            second[at] = 0.999 * second[at] + 0.001 * gradient**2
            slope = (second[at] / (1 - 0.999**step)).sqrt() + epsilon
            values[at] = values[at] * (1 - rate * decay)
            values[at] = values[at] - rate * first[at] / (1 - 0.9**step) / slope
    return values


def on_each_device() -> list[torch.device]:
    gpus = [torch.device("cuda", 0)] if torch.cuda.is_available() else []
    return [torch.device("cpu"), *gpus]


@pytest.mark.parametrize("device", on_each_device(), ids=str)
def test_the_fused_optimizer_computes_what_the_paper_says(make_case, device) -> None:
    settings = make_case(adam_epsilon=1e-4).task.settings
    parameters = [nn.Parameter(torch.randn(n, device=device)) for n in (1, 7, 64, 1003)]
    gradients = [[torch.randn_like(p) for p in parameters] for _ in range(5)]
    expected = textbook_adamw(parameters, gradients, rate=0.01, decay=0.3, epsilon=1e-4)
    groups = [{"params": parameters, "lr": 0.01, "weight_decay": 0.3}]
    optimizer = make_optimizer(groups, settings)
    assert all(group["fused"] for group in optimizer.param_groups)
    for step_gradients in gradients:
        for parameter, gradient in zip(parameters, step_gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
    for parameter, value in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.double(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("device", on_each_device(), ids=str)
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_an_optimizer_that_goes_on_from_a_file_does_the_same_steps(
    make_case, tmp_path, device, precision: str
) -> None:
    """Weights, moments and the count of steps travel; the loss scaler's too."""
    case = make_case(fgm_epsilon=0.0)
    batches = [[np.array([number, number + 1])] for number in range(6)]

    def trainer():
        made = case.trainer(precision=precision)
        if device.type != "cpu":
            machine = Machine(device, Precision(precision, "cuda"), made.machine.clock)
            made = FoldTrainer(
                made.task,
                made.model,
                run=made.run,
                fold=0,
                train=made.train_examples,
                valid=made.evaluator.valid,
                pad_id=made.updater.pad_id,
                machine=machine,
                tracker=made.evaluator.tracker,
            )
        return made

    unbroken, first, resumed = trainer(), trainer(), trainer()
    for each, part in ((unbroken, batches), (first, batches[:3])):
        for group in part:
            each.updater.update(group, None)
    first.state.save(tmp_path / "state", "run")
    resumed.state.load(tmp_path / "state", "run")
    for group in batches[3:]:
        resumed.updater.update(group, None)
    assert unbroken.state.progress.updates == resumed.state.progress.updates == 6
    for name, value in unbroken.model.state_dict().items():
        found = resumed.model.state_dict()[name]
        if device.type == "cpu":
            assert torch.equal(value, found), name
        else:
            assert torch.allclose(value, found, atol=1e-5), name
    steps = {float(state["step"]) for state in resumed.state.optimizer.state.values()}
    assert steps == {6.0}


def test_each_group_follows_the_schedule_from_its_own_rate(make_case) -> None:
    case = make_case(warmup_ratio=0.0, schedule="linear")
    groups = parameter_groups(case.trainer().model, case.task.settings)
    start = [group["lr"] for group in groups]
    optimizer = make_optimizer(groups, case.task.settings)
    schedule = make_schedule(optimizer, total_updates=4, settings=case.task.settings)
    for parameter in groups[0]["params"]:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.75 * r for r in start])


def test_late_groups_stand_still_until_their_turn_bit_for_bit(make_case) -> None:
    case = make_case(
        head_only_ratio=0.2, unfreeze_ratio=0.4, batch_size=2, warmup_ratio=0.0, weight_decay=0.3,
        pretrained_weight_decay=0.3, fgm_epsilon=0.0,
    )  # fmt: skip
    trainer = case.trainer()
    total = sum(trainer.order.counts)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    first_moved: dict[str, int] = {}
    for update in range(total):
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.updater.update([np.array([update, update + 1])], None)
        for group in trainer.groups:
            for parameter in group["params"]:
                if not torch.equal(parameter, before[names[id(parameter)]]):
                    first_moved.setdefault(group["name"], update)
    assert first_moved == {
        **dict.fromkeys(("pooling and head", "pooling and head, vectors"), 0),
        **dict.fromkeys(("layer 1", "layer 1, vectors"), round(0.2 * total)),
        **dict.fromkeys(("layer 0", "layer 0, vectors"), round(0.4 * total)),
        "embeddings and shared": round(0.6 * total),
        "embeddings and shared, vectors": round(0.6 * total),
    }


def test_the_table_says_when_groups_begin_and_the_rate_that_each_reaches(make_case) -> None:
    case = make_case(head_only_ratio=0.2, unfreeze_ratio=0.4, warmup_ratio=0.1)
    groups = parameter_groups(case.trainer().model, case.task.settings)
    lines = groups_table(groups).splitlines()
    assert lines[0].endswith("begins")
    begins = {line[:32].strip(): line.split()[-1] for line in lines[1:]}
    assert begins["embeddings and shared"] == "60.0%" and begins["pooling and head"] == "0.0%"
    optimizer = make_optimizer(groups, case.task.settings)
    schedule = make_schedule(optimizer, total_updates=50, settings=case.task.settings)
    reached = [0.0] * len(groups)
    for _ in range(50):
        reached = [max(a, g["lr"]) for a, g in zip(reached, optimizer.param_groups, strict=True)]
        optimizer.step()
        schedule.step()
    in_table = [float(line.split()[-3]) for line in lines[1:]]
    assert reached == pytest.approx(in_table, rel=1e-2)
    plain = parameter_groups(make_case().trainer().model, make_case().task.settings)
    assert "begins" not in groups_table(plain)


def test_rates_in_three_groups_reach_the_optimizer(make_case) -> None:
    case = make_case(learning_rate=1e-3, rate_group_factor=2.0, head_learning_rate=7e-3)
    model = case.trainer().model
    rates = rates_by_name(model, parameter_groups(model, case.task.settings))
    assert rates["backbone.encoder.layer.1.output.dense.weight"] == [1e-3]
    assert rates["backbone.encoder.layer.0.output.dense.weight"] == [5e-4]
    assert rates["backbone.encoder.rel_embeddings.weight"] == [5e-4]
    assert rates["head.weight"] == [7e-3]
