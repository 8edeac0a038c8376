"""MADGRAD against the paper, the 8-bit Adam against AdamW, and what is said without them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.errors import SettingsError
from kernel_lib.training.optimizer import make_optimizer

BATCHES = [[np.array([number, number + 1])] for number in range(6)]


@pytest.mark.parametrize(
    ("choice", "package"), [("madgrad", "madgrad"), ("adam8bit", "bitsandbytes")]
)
def test_a_package_that_is_missing_is_one_clear_error(
    make_case, monkeypatch, choice: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SettingsError, match=rf'"{choice}" needs the package {package}.*pip.*adamw'):
        make_case(optimizer=choice).trainer()


def test_a_bitsandbytes_that_cannot_step_here_is_one_clear_error(make_case, monkeypatch) -> None:
    def broken(parameters):
        raise RuntimeError("no library for cpu")

    fake = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=broken), __version__="0.1")
    monkeypatch.setitem(sys.modules, "bitsandbytes", fake)
    with pytest.raises(SettingsError, match=r"\(0\.1\) cannot make a step on cpu: .*no library"):
        make_case(optimizer="adam8bit").trainer()


def test_adamw_imports_neither(make_case, monkeypatch) -> None:
    for package in ("madgrad", "bitsandbytes"):
        monkeypatch.setitem(sys.modules, package, None)
    assert type(make_case().trainer().state.optimizer) is torch.optim.AdamW


def madgrad_by_hand(start, gradients, rates, *, decay: float, epsilon: float) -> np.ndarray:
    """Algorithm 1 of arXiv 2101.11075 in float64, with momentum 1 - c = 0.9."""
    value, s, v = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for k, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        gradient = gradient + decay * value
        weight = rate * np.sqrt(k + 1)
        s, v = s + weight * gradient, v + weight * gradient**2
        z = start - s / (np.cbrt(v) + epsilon)
        value = 0.9 * value + 0.1 * z
    return value


def test_madgrad_computes_what_the_paper_says(make_case) -> None:
    pytest.importorskip("madgrad")
    settings = make_case(optimizer="madgrad", adam_epsilon=1e-6).task.settings
    parameter = nn.Parameter(torch.randn(50))
    start, epsilon = parameter.detach().double().numpy().copy(), settings.adam_epsilon
    groups = [{"params": [parameter], "lr": 0.01, "weight_decay": 0.1}]
    optimizer = make_optimizer(groups, settings)
    gradients, rates = [], [0.002, 0.01, 0.006, 0.003]
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = torch.randn(50)
        gradients.append(parameter.grad.double().numpy().copy())
        optimizer.step()
    rates = [rate + epsilon for rate in rates]  # the package adds it, "for stability"
    expected = madgrad_by_hand(start, gradients, rates, decay=0.1, epsilon=epsilon)
    assert np.allclose(parameter.detach().numpy(), expected, atol=2e-6)
    assert np.abs(expected - start).max() > 1e-2


def test_what_rests_stands_still_under_madgrad_bit_for_bit(make_case) -> None:
    pytest.importorskip("madgrad")
    trainer = make_case(optimizer="madgrad", head_only_ratio=0.5, batch_size=2).trainer()
    start = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    for group in BATCHES[:3]:
        trainer.updater.update(group, None)
    moved = {n for n, p in trainer.model.named_parameters() if not torch.equal(p, start[n])}
    assert moved and not any(name.startswith("backbone.") for name in moved)


def test_the_8_bit_adam_learns_as_adamw_does(make_case) -> None:
    """Within what a byte for a moment costs: a few percent of each step."""
    pytest.importorskip("bitsandbytes")
    ends = []
    for choice in ("adamw", "adam8bit"):
        torch.manual_seed(1)
        settings = make_case(optimizer=choice).task.settings
        parameter = nn.Parameter(torch.randn(64, 100))
        start = parameter.detach().clone()
        groups = [{"params": [parameter], "lr": 0.01, "weight_decay": 0.1}]
        optimizer = make_optimizer(groups, settings)
        slope = torch.randn(64, 100)
        for _ in range(10):
            parameter.grad = slope + 0.1 * torch.randn(64, 100)
            optimizer.step()
        ends.append(parameter.detach() - start)
    kinds = {value.dtype for value in optimizer.state[parameter].values() if torch.is_tensor(value)}
    assert torch.uint8 in kinds
    assert float((ends[1] - ends[0]).norm() / ends[0].norm()) < 0.05


@pytest.mark.parametrize(
    ("choice", "package"), [("madgrad", "madgrad"), ("adam8bit", "bitsandbytes")]
)
@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_they_go_on_from_a_file_bit_for_bit(
    make_case, tmp_path, choice: str, package: str, precision: str
) -> None:
    pytest.importorskip(package)
    case = make_case(optimizer=choice, fgm_epsilon=0.0)
    unbroken, first, resumed = (case.trainer(precision=precision) for _ in range(3))
    for each, part in ((unbroken, BATCHES), (first, BATCHES[:3])):
        for group in part:
            each.updater.update(group, None)
    first.state.save(tmp_path / "state", "run")
    resumed.state.load(tmp_path / "state", "run")
    for group in BATCHES[3:]:
        resumed.updater.update(group, None)
    assert unbroken.state.progress.updates == resumed.state.progress.updates == 6
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
