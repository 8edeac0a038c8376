"""Predicting with one model: sorted by length for speed, returned in the order asked for."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch, Example, padded_length, prefetched
from kernel_lib.text.order import cut_by_tokens, inference_batches
from kernel_lib.training.memory import is_memory_full, release_memory

OPTIMISM = 0.5  # of the quickest pace so far; texts get shorter and so quicker as it goes on
# Batches whose outputs are waited for only when the next one is under way: a GPU is never idle, and
# nothing piles up.
LEFT_BEHIND = {"cuda": 1}


class TimeIsUp(Exception):
    """The clock ends something before it is done.

    Args:
        more_seconds: how much longer it would take at the very least; 0 when that is not known.
    """

    def __init__(self, more_seconds: float) -> None:
        super().__init__(f"at least {more_seconds:.0f} s more are needed")
        self.more_seconds = more_seconds


@dataclass
class TokenLimit:
    """What memory was found to hold; kept by those who predict again, in this process.

    Attributes:
        tokens: most padded tokens of a batch; None: no limit was met.
    """

    tokens: int | None = None

    def within(self, batch_tokens: int) -> int:
        """The smaller of the limit and what is asked for."""
        return batch_tokens if self.tokens is None else min(batch_tokens, self.tokens)


def predict(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_tokens: int,
    device: torch.device,
    precision: Precision,
    bar: Any = None,
    clock: Clock | None = None,
    limit: TokenLimit | None = None,
) -> NDArray[np.float32]:
    """The model's outputs, row for row as ``examples`` stand, however they were batched.

    When a batch does not fit in memory, those that follow have half its tokens, and a line says so.

    Args:
        model: gives ``(batch, num_outputs)`` for ids and mask, or
            ``(batch, seq_len, num_outputs)``; left in the mode it was in.
        examples: one or more encoded rows.
        pad_id: the tokenizer's padding id.
        batch_tokens: padded tokens at a time (rows times width); a row that has more goes alone.
        device: where the model is.
        precision: of the forward pass.
        bar: a progress bar to move by one a row.
        clock: asked before every batch; None: there is all the time in the world.
        limit: what memory was found to hold by an earlier call; takes what this one finds.

    Returns:
        ``(rows, num_outputs)`` float32; of a model that has outputs for each token
        ``(tokens, num_outputs)``: those of all rows, one after the other, without padding.

    Raises:
        TrainingError: a prediction is not finite, or a single row does not fit in memory.
        TimeIsUp: the clock has run out, or what is left cannot be done before it does.
    """
    lengths = [len(example.input_ids) for example in examples]
    limit = limit or TokenLimit()
    batches = deque(inference_batches(lengths, batch_tokens=limit.within(batch_tokens)))
    pace = _Pace(clock, sum(map(padded_length, lengths))) if clock else None
    collected = _Collected(lengths, LEFT_BEHIND.get(device.type, 0), bar, pace)
    with _forward_only(model, precision):
        while batches:
            for batch in prefetched(tuple(batches), examples, pad_id, device):
                if pace:
                    pace.check()
                output = _forward(model, batch, device)
                if output is None:
                    break
                collected.add(batches.popleft(), batch.input_ids.numel(), output)
            else:
                break
            release_memory(device)
            limit.tokens = _halved(batch, precision, lengths[batches[0][0]], bar)
            batches = deque(cut_by_tokens(np.concatenate(batches), lengths, limit.tokens))
        collected.wait()
    found = collected.outputs
    wrong = int((~np.isfinite(found)).any(axis=1).sum())
    if wrong:
        exact = precision.name == "float32"
        cure = "Train with a lower learning_rate." if exact else 'Set precision="float32".'
        raise TrainingError(
            f"{wrong} of {len(found)} predictions are not finite in {precision.name}. {cure}"
        )
    return found


class _Collected:
    """Outputs on their way back, and those that have arrived, in the order of the examples.

    Args:
        lengths: tokens of each row.
        left_behind: how many batches may be under way when another is added.
        bar: moved by one a row that arrives.
        pace: told of each batch that arrives.
    """

    def __init__(
        self, lengths: Sequence[int], left_behind: int, bar: Any, pace: _Pace | None
    ) -> None:
        self.outputs = np.empty((0, 0), dtype=np.float32)
        self._lengths, self._ends = lengths, np.cumsum(lengths)
        self._left_behind, self._bar, self._pace = left_behind, bar, pace
        self._under_way: deque[tuple[NDArray[np.int64], int, torch.Tensor, Any]] = deque()

    def add(self, rows: NDArray[np.int64], tokens: int, output: torch.Tensor) -> None:
        """Takes the output of a batch whose computing has begun."""
        copied = None
        values = output.to("cpu", non_blocking=True)  # from a GPU into pinned memory
        if output.is_cuda:
            copied = torch.cuda.Event(blocking=True)
            copied.record(torch.cuda.current_stream(output.device))
        self._under_way.append((rows, tokens, values, copied))
        self.wait(self._left_behind)

    def wait(self, left_behind: int = 0) -> None:
        """Waits until no more than so many batches are under way."""
        while len(self._under_way) > left_behind:
            rows, tokens, values, copied = self._under_way.popleft()
            if copied is not None:
                copied.synchronize()
            self._put(rows, values.numpy())
            if self._bar is not None:
                self._bar.update(len(rows))
            if self._pace:
                self._pace.count(tokens)

    def _put(self, rows: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        by_token = values.ndim == 3
        if not self.outputs.size:
            count = int(self._ends[-1]) if by_token else len(self._lengths)
            self.outputs = np.empty((count, values.shape[-1]), dtype=np.float32)
        if not by_token:
            self.outputs[rows] = values
            return
        for row, found in zip(rows, values, strict=True):
            length = self._lengths[row]
            self.outputs[self._ends[row] - length : self._ends[row]] = found[:length]


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


@contextlib.contextmanager
def _forward_only(model: nn.Module, precision: Precision) -> Iterator[None]:
    """In here the model only predicts, and autocast casts each weight once, not for every batch.

    It keeps a weight's cast while its outermost region is open, unless in inference mode (hence
    ``no_grad``), and only for parameters that train: frozen ones count as such in here.
    """
    was_training = model.training
    frozen = [p for p in model.parameters() if p.is_floating_point() and not p.requires_grad]
    try:
        model.eval()
        for parameter in frozen:
            parameter.requires_grad_(True)
        with torch.no_grad(), precision.autocast():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.train(was_training)


def _forward(model: nn.Module, batch: Batch, device: torch.device) -> torch.Tensor | None:
    """The outputs of a batch, on its device, in float32; None when it does not fit in memory.

    The error is gone when this returns, and with it what its frames held on to.
    """
    try:
        there = batch.to(device)
        output: torch.Tensor = model(*there.inputs)
        return output.float()
    except (RuntimeError, MemoryError) as error:
        if is_memory_full(error):
            return None
        raise


def _halved(batch: Batch, precision: Precision, longest: int, bar: Any) -> int:
    """The tokens to go on with; says so. Raises TrainingError when one row is too much."""
    rows, width = batch.input_ids.shape
    if rows == 1:
        shorter = "train with a smaller max_length"
        exact = precision.name == "float32"
        cure = f'Set precision="fp16" or "bf16", or {shorter}.' if exact else f"Rather {shorter}."
        raise TrainingError(
            f"the memory is full with a single text of {longest} tokens in {precision.name}. {cure}"
        )
    half = -(-rows // 2)
    (print if bar is None else bar.write)(
        f"the memory is full with {rows} texts of up to {longest} tokens; going on with "
        f"{half * width:,} tokens at a time"
    )
    return half * width
