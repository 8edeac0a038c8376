"""Texts to measure on: FB3's own, or made-up token ids of FB3's lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kernel_lib.bench.settings import BenchSettings, Shape
from kernel_lib.tasks.regression import FB3_COLUMNS, RegressionSettings, RegressionTask
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import build_tokenizer

FB3_ROWS = 3911
# Quantiles of the token counts of FB3's training essays under DeBERTa-v3's own tokenizer, special
# tokens included: mean 487, 38.5 % above 512.
LEVELS = (*np.linspace(0, 0.95, 20).tolist(), 0.97, 0.98, 0.99, 0.995, 1.0)
LENGTHS = (
    *(16, 213, 247, 280, 308, 336, 358, 383, 408, 431, 456, 478, 504, 529, 561, 595, 636, 688),
    *(758, 879, 998, 1093, 1223, 1284, 1428),
)
TOKENS_A_WORD = 1.13  # the same essays: 487 tokens for 430 words
FIRST_WORD = 10  # ids below stand for special tokens


@dataclass(frozen=True)
class Job:
    """What all ways are measured on.

    Attributes:
        name: for titles.
        source: where the texts, or their lengths, come from.
        shape: of an encoder with random weights.
        folder: of a pretrained encoder; empty: one of ``shape``.
        examples: encoded texts with targets, a whole epoch of them.
        pad_id: the padding id.
    """

    name: str
    source: str
    shape: Shape
    folder: str
    examples: list[Example]
    pad_id: int


def fb3_lengths(rows: int, seed: int, *, divisor: int = 1) -> NDArray[np.int64]:
    """Token counts distributed as those of FB3's training essays, in random order.

    Args:
        rows: how many.
        seed: of the order.
        divisor: all are so many times shorter, 4 tokens at least.

    Returns:
        ``(rows,)``.
    """
    levels = (np.arange(rows) + 0.5) / rows
    lengths = np.interp(levels, LEVELS, LENGTHS) / divisor
    return np.random.default_rng(seed).permutation(np.maximum(4, lengths.round().astype(np.int64)))


def made_up(lengths: Sequence[int], *, vocabulary: int, seed: int) -> list[Example]:
    """Examples of these lengths, their ids as unevenly frequent as words are, random targets.

    How often a word occurs falls with its rank, so a batch uses a small part of the table: what an
    adversary that writes only used rows saves depends on it.
    """
    random = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, vocabulary - FIRST_WORD + 1)
    bounds = np.cumsum(weights / weights.sum())
    targets = random.integers(2, 11, size=(len(lengths), len(FB3_COLUMNS))) / 2
    examples = []
    for row, length in enumerate(lengths):
        ranks = np.searchsorted(bounds, random.random(int(length)))
        ids = FIRST_WORD + np.minimum(ranks, len(bounds) - 1)
        examples.append(Example(f"{row:06d}", ids.astype(np.int32), targets[row].astype("float32")))
    return examples


def shaped_job(settings: BenchSettings) -> Job:
    """The job with random weights: lengths from ``data``'s words, or FB3's as they are known."""
    if settings.data:
        frame = RegressionTask(RegressionSettings(data_dir=settings.data)).read_train()
        words = np.array([len(text.split()) for text in frame["full_text"]])
        lengths = 2 + np.round(TOKENS_A_WORD * words).astype(np.int64)
        source = f"{len(lengths):,} texts of DATA, {TOKENS_A_WORD} tokens a word"
    else:
        lengths = fb3_lengths(FB3_ROWS, settings.seed, divisor=settings.divisor)
        source = f"{len(lengths):,} made-up texts of the lengths of FB3's training essays"
    lengths = np.minimum(lengths, settings.cap)
    examples = made_up(lengths.tolist(), vocabulary=settings.shape.vocabulary, seed=settings.seed)
    layers = settings.shape.layers
    name = f"v3-base's shape, {layers} layer{'s' * (layers > 1)}, random weights"
    return Job(name, source, settings.shape, "", examples, 0)


def pretrained_job(settings: BenchSettings) -> Job:
    """The job of ``backbone`` on the texts of ``data``, encoded with its own tokenizer.

    Raises:
        DataError: the texts cannot be read.
        BackboneError: the folder has no tokenizer.
    """
    folder = Path(settings.backbone)
    task = RegressionTask(
        RegressionSettings(
            data_dir=settings.data, max_length=settings.cap, backbone=settings.backbone
        )
    )
    tokenizer = build_tokenizer(folder, keep_newlines=False)
    examples = task.encode(task.read_train(), tokenizer)
    source = f"{len(examples):,} texts of DATA, encoded with its own tokenizer"
    pad_id = int(tokenizer.pad_token_id)
    return Job(
        f"{_title(folder)}, its own weights", source, settings.shape, str(folder), examples, pad_id
    )


def _title(folder: Path) -> str:
    """The folder's name, or that of the one above where it is only called model."""
    return folder.resolve().parent.name if folder.name == "model" else folder.resolve().name
