"""Tokens hidden, swapped or left to be seen, that a masked language model is to name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernel_lib.text.batches import IGNORE, Example

Swap = Callable[[int, np.random.Generator], int]


@dataclass(frozen=True)
class MaskShares:
    """Which share of the tokens is to be named, by what is read in their place.

    Attributes:
        hidden: the mask token.
        swapped: another token.
        seen: the token itself.
    """

    hidden: float
    swapped: float
    seen: float

    @classmethod
    def of_bert(cls, share: float = 0.15) -> MaskShares:
        """80, 10 and 10 percent of a share of all tokens (Devlin et al. 2019, arXiv 1810.04805,
        section 3.1)."""
        return cls(0.8 * share, 0.1 * share, 0.1 * share)


class Masking:
    """Masks anew whenever it is asked (Liu et al. 2019, arXiv 1907.11692, section 4.1).

    Each token is drawn by itself; the first and the last of a text, the special ones, never are.

    Args:
        shares: of the other tokens.
        mask_id: id of the mask token.
        swap: another token's id for a token's.
        never: further ids that are never drawn.
    """

    def __init__(
        self, shares: MaskShares, *, mask_id: int, swap: Swap, never: Collection[int] = ()
    ) -> None:
        self.shares, self.mask_id, self._swap = shares, mask_id, swap
        self._never = np.array(sorted(never), dtype=np.int32)

    def example(self, ids: NDArray[np.int32], random: np.random.Generator) -> Example:
        """A text to read, and the targets where its tokens are to be named.

        Args:
            ids: ``(seq_len,)``, special tokens at both ends.
            random: what is drawn from.
        """
        inner, shares = ids[1:-1], self.shares
        drawn = random.random(len(inner))
        drawn[np.isin(inner, self._never)] = 1.0
        swapped_below = shares.hidden + shares.swapped
        read = np.where(drawn < shares.hidden, self.mask_id, inner)
        for place in np.flatnonzero((drawn >= shares.hidden) & (drawn < swapped_below)):
            read[place] = self._swap(int(inner[place]), random)
        wanted = np.where(drawn < swapped_below + shares.seen, inner, IGNORE)
        return Example(
            "",
            np.array([ids[0], *read, ids[-1]], dtype=np.int32),
            np.array([IGNORE, *wanted, IGNORE], dtype=np.int32),
        )


def uniform_swap(candidates: NDArray[np.int64]) -> Swap:
    """Any of some tokens, all alike, as BERT has it."""
    return lambda token, random: int(candidates[random.integers(len(candidates))])
