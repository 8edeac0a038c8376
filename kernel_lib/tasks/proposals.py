"""What a model proposes for each character: to keep it, or the likeliest others.

As numbers, a row a character: the probability of keeping it, then ``CANDIDATES`` pairs of a code
point and its probability, the likeliest first; with several passes their columns stand side by
side. In words, a :class:`Proposal` for each character that the model has doubts about.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel_lib.text.batches import Example, split_tokens
from kernel_lib.text.windows import owner_spans

CANDIDATES = 5
WIDTH = 1 + 2 * CANDIDATES
KEPT = np.eye(1, WIDTH, dtype=np.float32)[0]  # the row of a character that is kept for sure
DOUBT = 0.02  # who is surer than that of keeping a character proposes nothing
AT_ONCE = 1 << 15  # characters that are averaged together


@dataclass(frozen=True)
class Proposal:
    """Others for one character.

    Attributes:
        position: of the character in its text.
        keep: probability that it is right.
        others: characters and their probabilities, the likeliest first.
    """

    position: int
    keep: float
    others: tuple[tuple[str, float], ...]


def by_character(
    examples: Sequence[Example],
    outputs: NDArray[np.float32],
    code_points: NDArray[np.int64],
    *,
    unknown_id: int,
) -> list[NDArray[np.float32]]:
    """What was predicted by token, put together by text: from windows that overlap, a character's
    numbers come from the one where it is farthest from an edge.

    Args:
        examples: windows of texts, each with a special token at both ends.
        outputs: ``(tokens, passes * WIDTH)``, with token ids.
        code_points: of the character that each token id stands for.
        unknown_id: what cannot be read stays, whatever was predicted for it.

    Returns:
        For each text, in the order of their rows, ``(characters, passes * WIDTH)``.
    """
    values = outputs.copy()
    unknown = np.concatenate([example.input_ids for example in examples]) == unknown_id
    for first in range(0, values.shape[1], WIDTH):
        ids = values[:, first + 1 : first + WIDTH : 2]
        ids[:] = code_points[ids.astype(np.int64)]
        values[unknown, first : first + WIDTH] = KEPT
    windows: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for example, found in zip(examples, split_tokens(values, examples), strict=True):
        windows.setdefault(example.row, []).append((example.start, found[1:-1]))
    texts = []
    for _, parts in sorted(windows.items()):
        spans = [(start, start + len(found)) for start, found in parts]
        owned = zip(parts, owner_spans(spans), strict=True)
        texts.append(np.concatenate([found[a - at : b - at] for (at, found), (a, b) in owned]))
    return texts


def average(predictions: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """The mean of what several models propose, of the same shape.

    A model that does not have a character among its candidates gives it 0: less than it should, but
    by no more than its last candidate's probability.
    """
    if len(predictions) == 1:
        return predictions[0].astype(np.float32)
    columns = [
        _average_block([p[:, first : first + WIDTH] for p in predictions])
        for first in range(0, predictions[0].shape[1], WIDTH)
    ]
    return np.concatenate(columns, axis=1)


def _average_block(blocks: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    mean = np.empty(blocks[0].shape, dtype=np.float32)
    mean[:, 0] = np.mean([block[:, 0] for block in blocks], axis=0)
    for first in range(0, len(mean), AT_ONCE):
        part = slice(first, first + AT_ONCE)
        codes = np.concatenate([block[part, 1::2] for block in blocks], axis=1)
        shares = np.concatenate([block[part, 2::2] for block in blocks], axis=1) / len(blocks)
        same = codes[:, :, None] == codes[:, None, :]
        totals = np.einsum("nij,nj->ni", same, shares)
        totals[np.tril(same, -1).any(axis=2)] = -1.0  # counted where the character came first
        order = np.argsort(-totals, axis=1, kind="stable")[:, :CANDIDATES]
        mean[part, 1::2] = np.take_along_axis(codes, order, axis=1)
        mean[part, 2::2] = np.maximum(np.take_along_axis(totals, order, axis=1), 0.0)
    return mean


def find_in_passes(values: NDArray[np.float32]) -> list[list[Proposal]]:
    """The proposals of each pass for one text, from ``(characters, passes * WIDTH)``."""
    blocks = range(0, values.shape[1], WIDTH)
    return [find_proposals(values[:, first : first + WIDTH]) for first in blocks]


def find_proposals(values: NDArray[np.float32]) -> list[Proposal]:
    """The proposals of one pass for one text, in the order of their positions.

    Args:
        values: ``(characters, WIDTH)``.
    """
    found = []
    for position in np.flatnonzero(values[:, 0] < 1 - DOUBT):
        keep, *rest = values[position].tolist()
        others = tuple(
            (chr(int(code)), share)
            for code, share in zip(rest[::2], rest[1::2], strict=True)
            if code and share > 0
        )
        if others:
            found.append(Proposal(int(position), keep, others))
    return found


def proposals_to_json(passes: Sequence[Sequence[Proposal]]) -> str:
    """As text, four digits a probability: a list for each pass."""
    rows = [
        [
            [p.position, round(p.keep, 4), *((o, round(share, 4)) for o, share in p.others)]
            for p in proposals
        ]
        for proposals in passes
    ]
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))


def proposals_from_json(text: str) -> list[list[Proposal]]:
    """What :func:`proposals_to_json` wrote."""
    return [
        [Proposal(at, keep, tuple((o, share) for o, share in others)) for at, keep, *others in rows]
        for rows in json.loads(text)
    ]
