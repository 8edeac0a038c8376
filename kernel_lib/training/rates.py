"""The rate that each layer of the encoder learns at, from when on, and how it goes up and down.

A model has levels: 0 is the embeddings and whatever of the encoder stands in no layer, 1 the lowest
layer, ``n_layers`` the top one, ``n_layers + 1`` pooling and head.

A level that begins late (``head_only_ratio``, ``unfreeze_ratio``) has the whole schedule in the
updates that are left to it: at first its rate is 0, then it rises over ``warmup_ratio`` of what is
left, reaches its highest, and falls to 0 with all others. So each reaches the rate that the table
of groups names, and Adam, whose moments run along from the first update, makes no leap. What rests
is not frozen: its gradients are computed, and count in the norm that ``max_grad_norm`` holds down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from kernel_lib.config import TrainingSettings

GROUPS = 3


def level_rate(level: int, n_layers: int, settings: TrainingSettings) -> float:
    """The highest rate of a level.

    By ``layer_decay``, each layer's is that of the one above times it. By ``rate_group_factor`` f
    the layers stand in three groups, as equal as can be, the larger ones below, which learn at
    ``learning_rate`` / f, itself, and times f; level 0 learns with the lowest. Fewer than three
    layers have no highest group. A factor between layers is Howard & Ruder's (2018, arXiv
    1801.06146, section 3.2, with 2.6); three groups are how Kaggle uses it.
    """
    if level > n_layers:
        return settings.head_learning_rate
    if settings.rate_group_factor > 1:
        group = GROUPS * max(0, level - 1) // n_layers
        return settings.learning_rate * settings.rate_group_factor ** (group - 1)
    return settings.learning_rate * settings.layer_decay ** (n_layers - level)


def level_begins(
    levels: Iterable[int], n_layers: int, settings: TrainingSettings
) -> dict[int, float]:
    """The share of all updates after which each level begins to learn.

    The head learns from the start, the encoder after ``head_only_ratio``: first the top layer, then
    in equal steps one after the other below, the lowest ``unfreeze_ratio`` later (gradual
    unfreezing: Howard & Ruder 2018, arXiv 1801.06146, section 3.3). The head first, then all of the
    encoder at once, is known as LP-FT (Kumar et al. 2022, arXiv 2202.10054, who train the head to
    the end before); here both are stages of one schedule.

    Args:
        levels: that have something to train; frozen ones take no step.
        n_layers: of the encoder.
        settings: for the two ratios.
    """
    downwards = sorted((level for level in set(levels) if level <= n_layers), reverse=True)
    steps = max(1, len(downwards) - 1)
    begins = dict.fromkeys(levels, 0.0)
    for number, level in enumerate(downwards):
        begins[level] = settings.head_only_ratio + settings.unfreeze_ratio * number / steps
    return begins


def schedule_factor(update: int, *, total: int, warmup: int, shape: str) -> float:
    """What the rates are multiplied with at an optimizer update.

    Args:
        update: updates done so far, from 0.
        total: updates of the whole fold; accumulated batches count as one.
        warmup: updates over which the factor rises from 0 to 1.
        shape: ``cosine`` or ``linear`` to 0, or ``constant``.
    """
    if update < warmup:
        return (update + 1) / (warmup + 1)
    if shape == "constant":
        return 1.0
    progress = min(1.0, (update - warmup) / max(1, total - warmup))
    return 1.0 - progress if shape == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def late_factor(update: int, *, total: int, begins: float, settings: TrainingSettings) -> float:
    """:func:`schedule_factor` for what begins to learn late; 0 until then.

    Args:
        update: updates done so far, from 0.
        total: updates of the whole fold.
        begins: share of them that comes before; one update at least is left.
        settings: for ``warmup_ratio`` and ``schedule``.
    """
    before = min(round(begins * total), max(0, total - 1))
    if update < before:
        return 0.0
    left = total - before
    warmup = round(settings.warmup_ratio * left)
    return schedule_factor(update - before, total=left, warmup=warmup, shape=settings.schedule)
