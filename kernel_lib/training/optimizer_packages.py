"""Optimizers of packages that need not be there: MADGRAD, and Adam with a state of 8 bits."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from kernel_lib.errors import SettingsError

SMALLEST_8_BIT = 4096  # numbers; bitsandbytes keeps the state of smaller tensors in float32


def make_madgrad(groups: list[dict[str, Any]], epsilon: float) -> Optimizer:
    """MADGRAD (Defazio & Jelassi 2021, arXiv 2101.11075), with momentum 0.9.

    Its rates are others than Adam's, and ``weight_decay`` is an L2 penalty, added to the gradient
    as the paper has it; it wants little of it, or none. It needs 12 bytes a number, Adam 8.

    A group whose rate is 0 is passed over: the package would move its weights by a rounding.
    """
    with _asked_for("madgrad", "madgrad"):
        package = importlib.import_module("madgrad")
    optimizer: Optimizer = package.MADGRAD(groups, eps=epsilon)
    optimizer.register_step_pre_hook(_pass_over_groups_at_rest)
    return optimizer


def make_adam8bit(groups: list[dict[str, Any]], epsilon: float) -> Optimizer:
    """AdamW whose two moments take a byte a number each (Dettmers et al. 2022, arXiv 2110.02861).

    Raises:
        SettingsError: bitsandbytes is missing, or cannot make a step on this device, as older
            releases on a CPU.
    """
    with _asked_for("adam8bit", "bitsandbytes"):
        package = importlib.import_module("bitsandbytes")
    device = groups[0]["params"][0].device
    probe = nn.Parameter(torch.zeros(SMALLEST_8_BIT, device=device))
    probe.grad = torch.ones_like(probe)
    try:
        package.optim.AdamW8bit([probe]).step()
    except Exception as error:  # of any class: it has no library for the device, say
        raise SettingsError(
            f'optimizer="adam8bit": the installed bitsandbytes '
            f"({getattr(package, '__version__', 'of no version')}) cannot make a step on "
            f'{device}: {error!r}. Install a newer one, or set optimizer="adamw".'
        ) from error
    optimizer: Optimizer = package.optim.AdamW8bit(groups, eps=epsilon)
    return optimizer


@contextlib.contextmanager
def _asked_for(choice: str, package: str) -> Iterator[None]:
    """Raises SettingsError where the package cannot be imported."""
    try:
        yield
    except Exception as error:  # bitsandbytes looks for a GPU's libraries when it is imported
        raise SettingsError(
            f'optimizer="{choice}" needs the package {package}, which cannot be imported here '
            f"({error}). Install it: pip install {package}, or offline from its wheel; or set "
            'optimizer="adamw".'
        ) from error


def _pass_over_groups_at_rest(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups:
        if group["lr"] == 0:
            for parameter in group["params"]:
                parameter.grad = None
