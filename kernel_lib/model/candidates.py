"""What a corrector proposes, small enough to keep."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from kernel_lib.errors import BackboneError

AT_ONCE = 1 << 24  # probabilities in memory beside the logits: 64 MiB
EXACT_IDS = 1 << 24  # float32 holds every whole number below


class Candidates(nn.Module):
    """For each character the probability of keeping it, and the likeliest others.

    It shares the model it is given, and is in training or evaluation mode as that is.

    Args:
        model: gives an output with ``logits``, ``(batch, seq_len, vocabulary)``.
        writable: ``(vocabulary,)`` bool, True on the ids that may be put in a character's place;
            ids beyond its end may not.
        keep_ids: the labels that mean "keep it", beside the character's own id; none of them is
            ever proposed.
        count: how many others.
    """

    _writable: Tensor

    def __init__(
        self, model: nn.Module, writable: Tensor, *, keep_ids: tuple[int, ...], count: int = 5
    ) -> None:
        super().__init__()
        self.model = model
        self.count = count
        self.keep_ids = list(keep_ids)
        allowed = writable.detach().clone()
        allowed[self.keep_ids] = False
        self.register_buffer("_writable", allowed, persistent=False)
        if len(writable) > EXACT_IDS:
            raise BackboneError(
                f"a vocabulary of {len(writable):,} entries: float32 tells no more than "
                f"{EXACT_IDS:,} ids apart."
            )

    @property
    def training(self) -> bool:  # type: ignore[override]
        """The model's own mode, also after somebody else changed it."""
        model: Any = self._modules.get("model")
        return True if model is None else model.training

    @training.setter
    def training(self, mode: bool) -> None:
        """Nothing: ``train`` and ``eval`` reach the model as every part of a module."""

    @torch.no_grad()
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The proposals, by a softmax in float32.

        A place with no writable id left, or one of probability 0, has id 0 and probability 0.

        Args:
            input_ids: ``(batch, seq_len)``.
            attention_mask: ``(batch, seq_len)``.

        Returns:
            ``(batch, seq_len, 1 + 2 * count)`` float32: the probability of keeping the character,
            then the id and the probability of each candidate, the likeliest first.
        """
        logits: Tensor = self.model(input_ids, attention_mask).logits
        flat, ids = logits.flatten(0, 1), input_ids.flatten()
        at_once = max(1, AT_ONCE // flat.shape[1])
        parts = zip(flat.split(at_once), ids.split(at_once), strict=True)
        rows = torch.cat([self._rows(*part) for part in parts])
        return rows.unflatten(0, tuple(input_ids.shape))

    def _rows(self, logits: Tensor, ids: Tensor) -> Tensor:
        """The proposals for some tokens, from their logits: ``(tokens, 1 + 2 * count)``."""
        probabilities = torch.softmax(logits.float(), -1)
        own = probabilities.gather(1, ids[:, None]).squeeze(1)
        keep = own
        for label in self.keep_ids:
            keep = keep + probabilities[:, label].masked_fill(ids == label, 0.0)
        probabilities.scatter_(1, ids[:, None], 0.0)
        writable = self._writable.to(logits.device)
        probabilities = probabilities[:, : len(writable)].mul_(writable)
        count = min(self.count, probabilities.shape[1])
        found, places = probabilities.topk(count, dim=1)
        pairs = torch.stack([places.masked_fill(found == 0, 0).float(), found], -1).flatten(1)
        return functional.pad(torch.cat([keep[:, None], pairs], 1), (0, 2 * (self.count - count)))
