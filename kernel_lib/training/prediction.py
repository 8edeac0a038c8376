"""Predicting with one model: sorted by length for speed, returned in the order asked for."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch, Example, collate, inference_batches, padded_length
from kernel_lib.training.memory import is_memory_full, release_memory

OPTIMISM = 0.5  # of the quickest pace so far; texts get shorter and so quicker as it goes on


class TimeIsUp(Exception):
    """The clock ends something before it is done.

    Args:
        more_seconds: how much longer it would take at the very least; 0 when that is not known.
    """

    def __init__(self, more_seconds: float) -> None:
        super().__init__(f"at least {more_seconds:.0f} s more are needed")
        self.more_seconds = more_seconds


def predict(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    bar: Any = None,
    clock: Clock | None = None,
) -> NDArray[np.float32]:
    """The model's outputs, row for row as ``examples`` stand, however they were batched.

    When a batch does not fit in memory, it and all that follow are halved, and a line says so.

    Args:
        model: gives ``(batch, num_outputs)`` for ids and mask; left in the mode it was in.
        examples: any number of encoded rows.
        pad_id: the tokenizer's padding id.
        batch_size: rows at a time.
        device: where the model is.
        precision: of the forward pass.
        bar: a progress bar to move by one a row.
        clock: asked before every batch; None: there is all the time in the world.

    Returns:
        ``(rows, num_outputs)`` float32.

    Raises:
        TrainingError: a prediction is not finite, or a single row does not fit in memory.
        TimeIsUp: the clock has run out, or what is left cannot be done before it does.
    """
    was_training = model.training
    model.eval()
    outputs: list[NDArray[np.float32] | None] = [None] * len(examples)
    lengths = [len(example.input_ids) for example in examples]
    batches = deque(inference_batches(lengths, batch_size=batch_size))
    pace = _Pace(clock, sum(map(padded_length, lengths))) if clock else None
    try:
        while batches:
            if pace:
                pace.check()
            rows = batches[0]
            batch = collate([examples[row] for row in rows], pad_id)
            values = _forward(model, batch, device, precision)
            if values is None:
                release_memory(device)
                size = _halved(len(rows), lengths[rows[0]], precision, bar)
                batches = deque(_cut(batches, size))
                continue
            for row, value in zip(rows, values, strict=True):
                outputs[row] = value
            batches.popleft()
            if bar is not None:
                bar.update(len(rows))
            if pace:
                pace.count(batch.input_ids.numel())
    finally:
        model.train(was_training)
    found = np.stack([output for output in outputs if output is not None])
    wrong = int((~np.isfinite(found)).any(axis=1).sum())
    if wrong:
        exact = precision.name == "float32"
        cure = "Train with a lower learning_rate." if exact else 'Set precision="float32".'
        raise TrainingError(
            f"{wrong} of {len(found)} predictions are not finite in {precision.name}. {cure}"
        )
    return found


class _Pace:
    """Tells when the clock does not allow another batch, or not all that are left.

    Args:
        clock: what it asks.
        tokens: of all rows, padding included.
    """

    def __init__(self, clock: Clock, tokens: int) -> None:
        self._clock, self._tokens_left = clock, tokens
        self._quickest_seconds = math.inf  # a token
        self._batches = 0
        self._since = clock.elapsed_seconds

    def check(self) -> None:
        """Raises TimeIsUp when it is no use to go on."""
        more = 0.0
        if self._batches > 1:  # the first one also warms up
            more = self._quickest_seconds * OPTIMISM * self._tokens_left
        if not self._clock.allows(more):
            raise TimeIsUp(more)

    def count(self, tokens: int) -> None:
        """A batch of so many tokens is done."""
        now = self._clock.elapsed_seconds
        self._quickest_seconds = min(self._quickest_seconds, (now - self._since) / tokens)
        self._since, self._batches = now, self._batches + 1
        self._tokens_left -= tokens


@torch.inference_mode()
def _forward(
    model: nn.Module, batch: Batch, device: torch.device, precision: Precision
) -> NDArray[np.float32] | None:
    """The outputs of a batch; None when it does not fit in memory.

    The error is gone when this returns, and with it what its frames held on to.
    """
    try:
        batch = batch.to(device)
        with precision.autocast():
            output = model(batch.input_ids, batch.attention_mask)
        values: NDArray[np.float32] = output.float().cpu().numpy()
        return values
    except (RuntimeError, MemoryError) as error:
        if is_memory_full(error):
            return None
        raise


def _halved(rows: int, longest: int, precision: Precision, bar: Any) -> int:
    """The size to go on with; says so. Raises TrainingError when one row is too much."""
    if rows == 1:
        shorter = "train with a smaller max_length"
        exact = precision.name == "float32"
        cure = f'Set precision="fp16" or "bf16", or {shorter}.' if exact else f"Rather {shorter}."
        raise TrainingError(
            f"the memory is full with a single text of {longest} tokens in {precision.name}. {cure}"
        )
    half = -(-rows // 2)
    (print if bar is None else bar.write)(
        f"the memory is full with {rows} texts of up to {longest} tokens; going on with {half} at "
        "a time"
    )
    return half


def _cut(batches: Sequence[NDArray[np.int64]], size: int) -> list[NDArray[np.int64]]:
    """The same rows in the same order, at most ``size`` at a time."""
    rows = np.concatenate(batches)
    return [rows[start : start + size] for start in range(0, len(rows), size)]
