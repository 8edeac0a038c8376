"""Sentences as they are trained on: some characters hidden, some confused, anew in each epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from kernel_lib.text.batches import IGNORE, Example


class Noise:
    """Changes right characters only, so that the errors which are there stay as they are.

    Args:
        mask_rate: share of them that becomes the mask.
        noise_rate: share of them that becomes one of the characters it is confused with.
        mask_id: of the mask.
        confusable: for a token id those of the characters it is confused with.
    """

    def __init__(
        self,
        *,
        mask_rate: float,
        noise_rate: float,
        mask_id: int,
        confusable: Mapping[int, NDArray[np.int32]],
    ) -> None:
        self._mask_rate, self._noise_rate = mask_rate, noise_rate
        self._mask_id, self._confusable = mask_id, confusable

    def apply(self, example: Example, seed: tuple[int, ...]) -> Example:
        """The example with noise, the same for the same seed; its targets stay."""
        target = example.target
        if target is None or not (self._mask_rate or self._noise_rate):
            return example
        random = np.random.default_rng(seed)
        right = np.flatnonzero((example.input_ids == target) & (target != IGNORE))
        drawn = random.random(len(right))
        ids = example.input_ids.copy()
        ids[right[drawn < self._mask_rate]] = self._mask_id
        for position in right[drawn >= 1 - self._noise_rate]:
            others = self._confusable.get(int(ids[position]))
            if others is not None and ids[position] != self._mask_id:
                ids[position] = others[random.integers(len(others))]
        return dataclasses.replace(example, input_ids=ids)
