"""What an optimizer remembers, as tensors and numbers for a file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

COMMON = "all"  # what MADGRAD keeps once for all parameters


def optimizer_state(
    optimizer: Optimizer,
) -> tuple[dict[str, torch.Tensor], dict[str, int | float]]:
    """An optimizer's tensors and numbers by names ``<parameter's number>.<key>``.

    Tensors that parameters share (the 8-bit Adam's tables) are copied: a file of safetensors holds
    none twice.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, int | float] = {}
    seen: set[int] = set()
    for name, values in _by_name(optimizer).items():
        for key, value in values.items():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.{key}"] = value.clone() if value.data_ptr() in seen else value
                seen.add(value.data_ptr())
            else:
                numbers[f"{name}.{key}"] = value
    return tensors, numbers


def load_optimizer_state(
    optimizer: Optimizer,
    tensors: Mapping[str, torch.Tensor],
    numbers: Mapping[str, int | float],
) -> None:
    """Goes on from what :func:`optimizer_state` gave."""
    parameters = _parameters(optimizer)
    fused = optimizer.defaults.get("fused")
    for name, value in {**tensors, **numbers}.items():
        number, key = name.split(".", 1)
        if number == COMMON:
            optimizer.state[key] = value  # type: ignore[index]
            continue
        parameter = parameters[int(number)]
        # AdamW counts its steps in a tensor that stays on the CPU unless it is fused.
        if isinstance(value, torch.Tensor) and (fused or key != "step"):
            value = value.to(parameter.device)
        optimizer.state[parameter][key] = value


def _by_name(optimizer: Optimizer) -> dict[str, dict[str, Any]]:
    """The state of each parameter by its number, and what is common to all."""
    found = {
        str(number): optimizer.state[parameter]
        for number, parameter in enumerate(_parameters(optimizer))
        if parameter in optimizer.state
    }
    common = {key: value for key, value in optimizer.state.items() if isinstance(key, str)}
    return {**found, COMMON: common}


def _parameters(optimizer: Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]
