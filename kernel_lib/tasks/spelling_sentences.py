"""From sentences to windows of token ids: a character is a token, and keeps its place."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib.tasks.spelling_noise import Noise
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE, Example
from kernel_lib.text.characters import CharacterEncoder
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.windows import cut_windows


def encode_sentences(
    frame: pd.DataFrame, characters: CharacterEncoder, settings: SpellingSettings
) -> list[Example]:
    """The windows of each sentence, most often one, with a special token at both ends.

    Args:
        frame: columns id, source, domain and, where it is known, target.
        characters: of the tokenizer.
        settings: for ``max_length`` and ``window_overlap``.

    Returns:
        In the frame's order. A text's first window tells of the whole text in ``origin``: source,
        target (or None) and domain.
    """
    targets = frame["target"] if "target" in frame else [None] * len(frame)
    rows = zip(frame["id"], frame["source"], targets, frame["domain"], strict=True)
    return [
        example
        for row, (row_id, source, target, domain) in enumerate(rows)
        for example in _windows(row, row_id, source, target, domain, characters, settings)
    ]


def _windows(
    row: int,
    row_id: str,
    source: str,
    target: str | None,
    domain: str,
    characters: CharacterEncoder,
    settings: SpellingSettings,
) -> Iterator[Example]:
    ids = characters.ids(source)
    wanted = None if target is None else _targets(ids, target, characters)
    spans = cut_windows(len(source), size=settings.max_length - 2, overlap=settings.window_overlap)
    for start, stop in spans:
        yield Example(
            f"{row_id}@{start}" if start else row_id,
            _framed(ids[start:stop], characters.cls_id, characters.sep_id),
            None if wanted is None else _framed(wanted[start:stop], IGNORE, IGNORE),
            row=row,
            start=start,
            origin=None if start else {"source": source, "target": target, "domain": domain},
        )


def _targets(
    ids: NDArray[np.int32], target: str, characters: CharacterEncoder
) -> NDArray[np.int32]:
    """Ids of the right characters; none where the vocabulary lacks what stands there or should:
    the one is copied unasked, the other cannot be named."""
    wanted = characters.ids(target)
    unknown = (ids == characters.unknown_id) | (wanted == characters.unknown_id)
    return np.where(unknown, IGNORE, wanted).astype(np.int32)


def _framed(ids: NDArray[np.int32], before: int, after: int) -> NDArray[np.int32]:
    return np.concatenate([[before], ids, [after]]).astype(np.int32)


def make_noise(
    characters: CharacterEncoder, confusion: ConfusionSet | None, settings: SpellingSettings
) -> Noise:
    """The noise that the settings ask for, in the tokenizer's ids."""
    wanted = confusion if settings.noise_rate else None
    return Noise(
        mask_rate=settings.mask_rate,
        noise_rate=settings.noise_rate,
        mask_id=characters.mask_id,
        confusable=confusable_ids(characters, wanted) if wanted else {},
    )


def confusable_ids(
    characters: CharacterEncoder, confusion: ConfusionSet
) -> dict[int, NDArray[np.int32]]:
    """For each token id that has any, those of the characters it is confused with."""
    found = {}
    for token_id in np.flatnonzero(characters.writable).tolist():
        others = characters.ids(confusion.others(characters.character(token_id)))
        others = others[characters.writable[others]]
        if len(others):
            found[token_id] = others
    return found
