"""Decay towards the pretrained weights, against the formula in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.errors import SettingsError
from kernel_lib.training.optimizer import make_optimizer, parameter_groups
from kernel_lib.training.pretrained_decay import join_pretrained_decay
from kernel_lib.training.update import step_if_finite
from tests.test_update import host_reads

BATCHES = [[np.array([number, number + 1])] for number in range(4)]


class Small(nn.Module):
    """An encoder of one layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.ModuleDict({"layer": nn.ModuleList([nn.Linear(4, 3)])})
        self.head = nn.Linear(3, 2)


def set_up(make_case, **changes) -> tuple[Small, torch.optim.Optimizer]:
    settings = make_case(adam_epsilon=1e-4, **changes).task.settings
    model = Small()
    optimizer = make_optimizer(parameter_groups(model, settings), settings)
    join_pretrained_decay(optimizer, model, settings)
    return model, optimizer


def adamw_by_hand(start, gradients, *, rate, decay, towards) -> np.ndarray:
    """AdamW in float64 without a decay to zero, with one towards ``towards``."""
    value = start.copy()
    first, second = np.zeros_like(value), np.zeros_like(value)
    for step, gradient in enumerate(gradients, 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        slope = np.sqrt(second / (1 - 0.999**step)) + 1e-4
        value = value - rate * decay * (value - towards)
        value = value - rate * first / (1 - 0.9**step) / slope
    return value


def test_weights_and_vectors_of_the_encoder_are_pulled_back_and_the_head_is_not(make_case) -> None:
    rate, decay = 0.02, 5.0
    model, optimizer = set_up(
        make_case, learning_rate=rate, head_learning_rate=rate, layer_decay=1.0, weight_decay=0.0,
        pretrained_weight_decay=decay,
    )  # fmt: skip
    start = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    seen: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for _ in range(6):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.randn_like(parameter)
            seen[name].append(parameter.grad.double().numpy())
        step_if_finite(optimizer, torch.ones(()))
    for name, parameter in model.named_parameters():
        own = decay if name.startswith("backbone.") else 0.0
        expected = adamw_by_hand(start[name], seen[name], rate=rate, decay=own, towards=start[name])
        assert np.allclose(parameter.detach().numpy(), expected, atol=1e-6), name
        without = adamw_by_hand(start[name], seen[name], rate=rate, decay=0, towards=start[name])
        assert np.allclose(expected, without, atol=1e-4) != name.startswith("backbone."), name


@pytest.mark.parametrize("norm", [math.inf, math.nan])
def test_a_step_that_is_left_out_pulls_nothing_and_nothing_waits(make_case, norm: float) -> None:
    model, optimizer = set_up(make_case, pretrained_weight_decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for number in (norm, 1.0):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, number)
        norm_on_device = torch.tensor(number)
        with host_reads() as reads:
            optimizer.found_inf = torch.isfinite(norm_on_device).logical_not().float()
            for hook in optimizer._optimizer_step_pre_hooks.values():
                hook(optimizer, (), {})
            del optimizer.found_inf
        assert reads == []
        moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
        if number == 1.0:
            assert moved == {n for n in before if n.startswith("backbone.")}
        else:
            assert moved == set()
            step_if_finite(optimizer, norm_on_device)
            assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_without_it_the_optimizer_has_no_hook_and_nothing_is_copied(make_case) -> None:
    _, optimizer = set_up(make_case)
    assert not optimizer._optimizer_step_pre_hooks


def test_a_fold_ends_nearer_to_where_it_began(make_case, tmp_path) -> None:
    far = {}
    for decay in (0.0, 50.0):
        case = make_case(
            pretrained_weight_decay=decay, fgm_epsilon=0.0, weight_decay=0.0, reinit_layers=1,
            output_dir=str(tmp_path / f"{decay}"),
        )  # fmt: skip
        trainer = case.trainer()
        start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
        for group in BATCHES:
            trainer.updater.update(group, None)
        far[decay] = {
            n: float((p.detach() - start[n]).norm()) for n, p in trainer.model.named_parameters()
        }
    encoder = [name for name in far[0.0] if name.startswith("backbone.") and far[0.0][name] > 1e-6]
    assert len(encoder) > 20
    assert all(far[50.0][name] < 0.99 * far[0.0][name] for name in encoder)


def test_madgrad_which_goes_out_from_the_first_weights_is_refused(make_case) -> None:
    with pytest.raises(SettingsError, match=r"pretrained_weight_decay=0\.1 and .*madgrad.*Set"):
        make_case(pretrained_weight_decay=0.1, optimizer="madgrad")
