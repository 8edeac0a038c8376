"""Predicting a task's outputs, in several passes where the task reads its own answers again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from kernel_lib.text.batches import Example, split_tokens
from kernel_lib.training.task import Task


def predict_in_passes(
    task: Task, model: nn.Module, examples: Sequence[Example], *, bar: Any = None, **options: Any
) -> NDArray[np.float32]:
    """What the task wants to know of each example.

    Args:
        task: says what is predicted, in how many passes, and what a later pass reads.
        model: of the task.
        examples: one or more encoded rows.
        bar: a progress bar for the first pass.
        options: as for :func:`kernel_lib.training.prediction.predict`.

    Returns:
        As ``predict``; with more than one pass the passes' outputs stand side by side,
        ``(tokens, passes * num_outputs)``. A row that is not read again has the same in all.

    Raises:
        TrainingError, TimeIsUp: as ``predict``.
    """
    outputs = task.outputs(model, examples, bar=bar, **options)
    passes = [outputs]
    for _ in range(1, task.passes):
        again = task.read_again(examples, passes[-1])
        if not again:
            passes.append(passes[-1])
            continue
        found = task.outputs(model, list(again.values()), **options)
        passes.append(_after_reading(task, examples, passes[-1], again, found))
    return passes[0] if len(passes) == 1 else np.concatenate(passes, axis=1)


def _after_reading(
    task: Task,
    examples: Sequence[Example],
    before: NDArray[np.float32],
    again: dict[int, Example],
    found: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The outputs by token, those of the examples that were read again in their place."""
    after = before.copy()
    outputs = split_tokens(after, examples)  # views: what is put there is put into the whole
    for row, part in zip(again, split_tokens(found, list(again.values())), strict=True):
        outputs[row][:] = task.after_reading(examples[row], outputs[row], part)
    return after
