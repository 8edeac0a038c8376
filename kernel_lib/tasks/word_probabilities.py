"""What a model says of each word, put together by text; and briefly, for a file."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kernel_lib.tasks.entity_documents import first_places
from kernel_lib.text.batches import Example, split_tokens
from kernel_lib.text.windows import owner_spans

SURE = 0.999  # a word that is no entity with such a probability is not written down


def by_word(
    examples: Sequence[Example], log_probabilities: NDArray[np.float32], outside: int
) -> list[NDArray[np.float32]]:
    """Probabilities of each word, from the window in which it is farthest from a cut.

    A word without a token, a blank say, is no entity.

    Args:
        examples: windows of texts, as ``encode_documents`` makes them.
        log_probabilities: ``(tokens, labels)``, meant at each word's first token.
        outside: number of the label O.

    Returns:
        For each text, in the order of their rows, ``(words, labels)``.
    """
    texts: dict[int, list[tuple[Example, NDArray[np.float32]]]] = {}
    for example, found in zip(examples, split_tokens(log_probabilities, examples), strict=True):
        texts.setdefault(example.row, []).append((example, found))
    return [_of_text(windows, outside) for _, windows in sorted(texts.items())]


def _of_text(
    windows: Sequence[tuple[Example, NDArray[np.float32]]], outside: int
) -> NDArray[np.float32]:
    spans = [(example.start, int(example.origin["stop"])) for example, _ in windows]
    labels = windows[0][1].shape[1]
    whole = np.zeros((max(stop for _, stop in spans), labels), dtype=np.float32)
    whole[:, outside] = 1.0
    for (example, found), (begin, end) in zip(windows, owner_spans(spans), strict=True):
        assert example.words is not None, "windows of words"
        lead = int(example.origin["lead"])  # words before the one that counts as 0
        numbers = np.where(example.words >= 0, example.words + lead, example.words)
        taken = first_places(numbers) & (numbers >= begin) & (numbers < end)
        whole[numbers[taken]] = np.exp(found[taken])
    return whole


def to_json(probabilities: NDArray[np.float32], outside: int) -> str:
    """As text: ``[[word, probability of each label...], ...]`` of words that may be entities."""
    doubtful = np.flatnonzero(probabilities[:, outside] < SURE)
    rows = [
        [int(word), *np.round(probabilities[word].astype(float), 4).tolist()] for word in doubtful
    ]
    return json.dumps(rows, separators=(",", ":"))


def from_json(text: str, *, words: int, labels: int, outside: int) -> NDArray[np.float32]:
    """What :func:`to_json` wrote, ``(words, labels)``."""
    whole = np.zeros((words, labels), dtype=np.float32)
    whole[:, outside] = 1.0
    for word, *row in json.loads(text):
        whole[word] = row
    return whole
