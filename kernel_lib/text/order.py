"""Which rows go through the model together, and in which order: like with like, none twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernel_lib.config import TrainingSettings
from kernel_lib.text.batches import Example, padded_length

BUCKET_BATCHES = 50  # training batches are sorted by length inside buckets of this many


class TrainingOrder:
    """The batches of all epochs of a fold: random, yet of like length; every row once an epoch.

    Rows are shuffled, cut into buckets of about 50 batches, sorted inside a bucket, cut into
    batches, and the batches are shuffled again.

    A batch has ``batch_size`` rows, the last of an epoch maybe fewer; or, with ``batch_tokens``, as
    many rows of like length as have so many padded tokens (rows times width), and at least one. How
    many batches an epoch has then hangs on its shuffle; all are counted before the first.

    Args:
        lengths: tokens of each row.
        batch_size: rows a batch.
        batch_tokens: padded tokens a batch; 0: ``batch_size`` counts.
        epochs: how many.
        seed: numbers that fix the order, such as (seed, fold); the epoch's is added.

    Attributes:
        counts: batches of each epoch.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        batch_size: int,
        batch_tokens: int = 0,
        epochs: int,
        seed: Sequence[int],
    ) -> None:
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._batch_size, self._batch_tokens, self._seed = batch_size, batch_tokens, tuple(seed)
        if batch_tokens:
            self.counts = tuple(len(self.batches(epoch)) for epoch in range(epochs))
        else:
            self.counts = (-(-len(lengths) // batch_size),) * epochs

    @property
    def mean_rows(self) -> float:
        """Rows of a batch, over all epochs: rows times epochs over all batches.

        Batches cut by tokens have unlike numbers of rows. That every row weighs the same all the
        same, an update's loss is the sum of its rows' losses over this mean times the batches that
        it accumulates, A. The gradients of all updates of an epoch then add up to those of the mean
        loss over all rows, times batches / A, as they do with batches of one size.
        """
        return len(self._lengths) * len(self.counts) / max(1, sum(self.counts))

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Row numbers of each batch of an epoch, the same whenever it is asked."""
        random = np.random.default_rng([*self._seed, epoch])
        order = random.permutation(len(self._lengths))
        batches = []
        for bucket in self._buckets(order):
            batches += self._cut(bucket[np.argsort(self._lengths[bucket], kind="stable")])
        return [batches[index] for index in random.permutation(len(batches))]

    def _buckets(self, order: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        if not self._batch_tokens:
            return _split(order, self._batch_size * BUCKET_BATCHES)
        tokens = np.cumsum(self._lengths[order])
        number = tokens // (self._batch_tokens * BUCKET_BATCHES)
        return np.split(order, np.flatnonzero(np.diff(number)) + 1)

    def _cut(self, bucket: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Batches of a bucket whose shortest row comes first."""
        if self._batch_tokens:
            return cut_by_tokens(bucket[::-1], self._lengths, self._batch_tokens)
        return _split(bucket, self._batch_size)


def training_order(
    train: Sequence[Example], settings: TrainingSettings, *, fold: int
) -> TrainingOrder:
    """The order in which a fold goes through its training rows."""
    return TrainingOrder(
        [len(example.input_ids) for example in train],
        batch_size=settings.batch_size,
        batch_tokens=settings.batch_tokens,
        epochs=settings.epochs,
        seed=(settings.seed, fold),
    )


def inference_batches(lengths: Sequence[int], *, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Row numbers of each batch, longest rows first, so that a lack of memory shows at once."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return cut_by_tokens(order, lengths, batch_tokens)


def cut_by_tokens(
    rows: NDArray[np.int64], lengths: Sequence[int] | NDArray[np.int64], batch_tokens: int
) -> list[NDArray[np.int64]]:
    """Cuts rows into batches of at most so many padded tokens, or of one row that has more.

    Args:
        rows: row numbers, the longest first.
        lengths: tokens of each row.
        batch_tokens: rows times width that a batch may have.
    """
    batches, start = [], 0
    while start < len(rows):
        size = max(1, batch_tokens // padded_length(int(lengths[rows[start]])))
        batches.append(rows[start : start + size])
        start += size
    return batches


def _split(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]
