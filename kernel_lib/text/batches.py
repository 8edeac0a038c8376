"""From encoded examples to padded batches of like length, in an order that can be repeated.

A batch is padded to its longest member only. FB3's essays padded to the cap cost 1.24 times the
arithmetic that their tokens need; batches of like length cost 1.01 times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from kernel_lib.runtime.progress import progress_bar

PAD_MULTIPLE = 8  # tensor cores want sequence lengths in eights
ENCODE_CHUNK = 256
IGNORE = -100  # the target of a token that has none


@dataclass(frozen=True)
class Example:
    """One encoded row.

    Attributes:
        id: the row's id.
        input_ids: token ids with special tokens; int32, as all rows of a competition are kept.
        target: what the loss compares with; None at inference. Float32 ``(columns,)`` belongs to
            the whole text; int32 ``(seq_len,)`` to its tokens, ``IGNORE`` where there is none.
        words: for each token the number of its word in the text, -1: none; int32 ``(seq_len,)``, or
            None where the model does not ask.
        row: number of the text in the table it came from; windows of a long one share it.
        start: where in the text this window begins; 0 for a whole text.
        origin: what the task needs to know of the text besides.
    """

    id: str
    input_ids: NDArray[np.int32]
    target: NDArray[np.float32] | NDArray[np.int32] | None = None
    words: NDArray[np.int32] | None = None
    row: int = 0
    start: int = 0
    origin: Any = None


@dataclass(frozen=True)
class Batch:
    """Examples side by side, padded at the right.

    Attributes:
        input_ids: ``(batch, seq_len)`` int64.
        attention_mask: ``(batch, seq_len)`` int64, 1 on tokens and 0 on padding.
        targets: ``(batch, columns)`` float32, or ``(batch, seq_len)`` int64, or None.
        words: ``(batch, seq_len)`` int64, -1 on padding, or None.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor | None
    words: torch.Tensor | None = None

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """What the model is called with."""
        mine = self.input_ids, self.attention_mask
        return mine if self.words is None else (*mine, self.words)

    def __len__(self) -> int:
        return len(self.input_ids)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device. A GPU fetches pinned memory while the program goes on."""
        later = device.type == "cuda"
        return self._map(lambda tensor: tensor.to(device, non_blocking=later))

    def pinned(self) -> Batch:
        """The batch in memory that a GPU can read from while the program goes on."""
        return self._map(torch.Tensor.pin_memory)

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        there = {name: tensor for name, tensor in vars(self).items() if tensor is not None}
        return replace(self, **{name: change(tensor) for name, tensor in there.items()})


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int
) -> list[NDArray[np.int32]]:
    """Token ids of each text, special tokens included, cut at ``max_length``; shows progress.

    Line ends of all kinds become ``\\n`` first, so that a file's origin does not change the ids.
    """
    encoded: list[NDArray[np.int32]] = []
    with progress_bar(len(texts), "tokenize", unit="text") as bar:
        for start in range(0, len(texts), ENCODE_CHUNK):
            chunk = [re.sub(r"\r\n?", "\n", text) for text in texts[start : start + ENCODE_CHUNK]]
            ids = tokenizer(chunk, truncation=True, max_length=max_length)["input_ids"]
            encoded += [np.asarray(row, dtype=np.int32) for row in ids]
            bar.update(len(chunk))
    return encoded


def cut_texts(examples: Sequence[Example], max_length: int) -> list[Example]:
    """Whole texts as they would have been encoded at ``max_length``: each keeps its beginning and
    its last token, the special one. Shorter ones are the same objects.

    Args:
        examples: encoded at a length of this or more, without anything that belongs to tokens.
        max_length: in tokens, special tokens included.
    """

    def cut(ids: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.concatenate([ids[: max_length - 1], ids[-1:]])

    return [
        replace(example, input_ids=cut(example.input_ids))
        if len(example.input_ids) > max_length
        else example
        for example in examples
    ]


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """Pads examples to the longest of them, rounded up to a multiple of 8."""
    longest = max(len(example.input_ids) for example in examples)
    width = padded_length(longest)
    input_ids = torch.full((len(examples), width), pad_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for row, example in enumerate(examples):
        input_ids[row, : len(example.input_ids)] = torch.from_numpy(example.input_ids)
        attention_mask[row, : len(example.input_ids)] = 1
    targets = [example.target for example in examples if example.target is not None]
    words = [example.words for example in examples if example.words is not None]
    return Batch(
        input_ids,
        attention_mask,
        _side_by_side(targets, width, IGNORE) if len(targets) == len(examples) else None,
        _side_by_side(words, width, -1) if len(words) == len(examples) else None,
    )


def _side_by_side(rows: Sequence[NDArray[Any]], width: int, fill: int) -> torch.Tensor:
    """What belongs to texts as it is; whole numbers belong to tokens, and are padded like them."""
    if rows[0].dtype.kind == "f":
        return torch.from_numpy(np.stack(rows))
    padded = torch.full((len(rows), width), fill, dtype=torch.int64)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = torch.from_numpy(row)
    return padded


def by_window(values: NDArray[Any], examples: Sequence[Example]) -> NDArray[Any]:
    """A value of each text as one of each of its windows: its fold, say."""
    return values[[example.row for example in examples]]


def split_tokens(
    values: NDArray[np.float32], examples: Sequence[Example]
) -> list[NDArray[np.float32]]:
    """What belongs to each example of an array whose first axis goes through all their tokens."""
    ends = np.cumsum([len(example.input_ids) for example in examples])
    return np.split(values, ends[:-1])


def collate_to(examples: Sequence[Example], pad_id: int, device: torch.device) -> Batch:
    """:func:`collate`, onto a device."""
    return _collate_for(examples, pad_id, device).to(device)


def prefetched(
    batches: Iterable[NDArray[np.int64]],
    examples: Sequence[Example],
    pad_id: int,
    device: torch.device,
) -> Iterator[Batch]:
    """The batches in order, ready to be moved to a device.

    For a GPU a thread of its own makes the next one, in pinned memory, while one is computed. On a
    CPU, where it would take a core from the model, each is made when it is asked for.

    Args:
        batches: row numbers of each.
        examples: what they number.
        pad_id: the tokenizer's padding id.
        device: where the batches will go.
    """
    if device.type != "cuda":
        for rows in batches:
            yield collate([examples[row] for row in rows], pad_id)
        return
    with ThreadPoolExecutor(1, "prefetch") as thread:
        made: Future[Batch] | None = None
        for rows in batches:
            these = [examples[row] for row in rows]
            next_one = thread.submit(_collate_for, these, pad_id, device)
            if made is not None:
                yield made.result()
            made = next_one
        if made is not None:
            yield made.result()


def _collate_for(examples: Sequence[Example], pad_id: int, device: torch.device) -> Batch:
    """A batch in the machine's memory, pinned when it is for a GPU."""
    batch = collate(examples, pad_id)
    if device.type != "cuda":
        return batch
    with torch.cuda.device(device):  # or a new thread opens the first GPU for itself
        return batch.pinned()


def padded_length(length: int) -> int:
    """The width of a batch whose longest member has ``length`` tokens: the next multiple of 8."""
    return -(-length // PAD_MULTIPLE) * PAD_MULTIPLE
