"""The optimizer, its groups of parameters, and the schedule of their rates.

Each layer has a group; the embeddings, and whatever of the encoder stands in no layer (DeBERTa's
``rel_embeddings``, its ``LayerNorm``, its convolution), have the lowest. Public notebooks forget
those three: they never train, and as no optimizer clears their gradients, these grow until one
overflow ruins the run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from kernel_lib.config import TrainingSettings
from kernel_lib.errors import TrainingError
from kernel_lib.model.backbone import layer_index
from kernel_lib.training.optimizer_packages import make_adam8bit, make_madgrad
from kernel_lib.training.rates import late_factor, level_begins, level_rate

BACKBONE_PREFIX = "backbone."


def parameter_groups(model: nn.Module, settings: TrainingSettings) -> list[dict[str, Any]]:
    """The optimizer's parameter groups; every trainable parameter is in exactly one.

    Args:
        model: its encoder's parameters begin with ``backbone.``; all others are the head's.
        settings: for the rates, when they begin, and ``weight_decay``.

    Returns:
        Groups from the embeddings up to the head, each with ``name``, ``params``, ``lr``,
        ``weight_decay``, and ``begins``, the share of all updates after which it learns. Vectors
        (biases, LayerNorms) are not decayed.

    Raises:
        TrainingError: nothing is left to train, or a parameter is in no group or in two.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise TrainingError("nothing is left to train: every parameter is frozen.")
    n_layers = 1 + max((_layer(name) or 0 for name, _ in model.named_parameters()), default=0)
    members: dict[tuple[int, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in trainable.items():
        members[_level(name, n_layers), parameter.ndim >= 2].append(parameter)

    begins = level_begins([level for level, _ in members], n_layers, settings)
    groups = []
    for (level, decayed), parameters in sorted(members.items()):
        groups.append(
            {
                "name": _level_name(level, n_layers) + ("" if decayed else ", vectors"),
                "params": parameters,
                "lr": level_rate(level, n_layers, settings),
                "weight_decay": settings.weight_decay if decayed else 0.0,
                "begins": begins[level],
            }
        )
    check_partition(groups, trainable)
    return groups


def check_partition(groups: list[dict[str, Any]], trainable: dict[str, nn.Parameter]) -> None:
    """Raises TrainingError unless the groups hold every trainable parameter exactly once."""
    held = [id(parameter) for group in groups for parameter in group["params"]]
    wrong = [name for name, parameter in trainable.items() if held.count(id(parameter)) != 1]
    if wrong or len(held) != len(trainable):
        raise TrainingError(f"these parameters are not in exactly one optimizer group: {wrong}.")


def groups_table(groups: list[dict[str, Any]]) -> str:
    """The groups for a reader: name, tensors, parameters, highest rate, decay.

    Where some begin late, also after which share of all updates.
    """
    some_late = any(group.get("begins", 0.0) > 0 for group in groups)
    begins = f"{'begins':>8}" if some_late else ""
    lines = [f"{'group':<32}{'tensors':>8}{'parameters':>13}{'rate':>10}{'decay':>8}{begins}"]
    for group in groups:
        size = sum(parameter.numel() for parameter in group["params"])
        begins = f"{group['begins']:>8.1%}" if some_late else ""
        lines.append(
            f"{group['name']:<32}{len(group['params']):>8}{size:>13,}"
            f"{group.get('initial_lr', group['lr']):>10.2e}{group['weight_decay']:>8g}{begins}"
        )
    return "\n".join(lines)


def make_optimizer(groups: list[dict[str, Any]], settings: TrainingSettings) -> Optimizer:
    """AdamW with bias correction (Loshchilov & Hutter 2019, arXiv 1711.05101), or another one.

    Fused: one pass over a parameter's numbers in place of a dozen. On a CPU too, where a step for
    184 million of them takes 0.12 s instead of 0.40 s (one core), the same within a rounding.

    Raises:
        SettingsError: ``settings.optimizer`` is one of a package that is not there.
    """
    if settings.optimizer == "madgrad":
        return make_madgrad(groups, settings.adam_epsilon)
    if settings.optimizer == "adam8bit":
        return make_adam8bit(groups, settings.adam_epsilon)
    return AdamW(groups, eps=settings.adam_epsilon, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, *, total_updates: int, settings: TrainingSettings
) -> LambdaLR:
    """The learning-rate schedule, to be stepped once per optimizer update that really happened."""
    factors: list[Callable[[int], float]] = [
        partial(
            late_factor,
            total=total_updates,
            begins=group.get("begins", 0.0),
            settings=settings,
        )
        for group in optimizer.param_groups
    ]
    return LambdaLR(optimizer, factors)


def _level(name: str, n_layers: int) -> int:
    """0: embeddings and what stands in no layer; 1 to n_layers: the layers; n_layers + 1: head."""
    if not name.startswith(BACKBONE_PREFIX):
        return n_layers + 1
    index = _layer(name)
    return 0 if index is None else index + 1


def _layer(name: str) -> int | None:
    """The encoder layer that a parameter of the model stands in."""
    return layer_index(name.removeprefix(BACKBONE_PREFIX))


def _level_name(level: int, n_layers: int) -> str:
    if level > n_layers:
        return "pooling and head"
    return f"layer {level - 1}" if level else "embeddings and shared"
