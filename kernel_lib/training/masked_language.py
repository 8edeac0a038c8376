"""Learning to name hidden tokens: the model, its loss, and the loop over batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import AdamW
from transformers import PreTrainedModel

from kernel_lib.model.vocabulary_head import VocabularyHead, word_table
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import IGNORE, Batch
from kernel_lib.training.update import step_if_finite


class MaskedLanguageModel(nn.Module):
    """An encoder with BERT's head over the vocabulary; its decoder is the word embeddings' table.

    Args:
        backbone: the encoder, fitted to the tokenizer.
        head: as from :func:`kernel_lib.model.pretrained_head.load_pretrained_head`; None: a new one
            is trained. DeBERTa-v3 has none: it was pretrained to tell replaced tokens.
    """

    def __init__(self, backbone: PreTrainedModel, head: dict[str, Tensor] | None) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.head = VocabularyHead(backbone, tied=True)
        self.has_pretrained_head = head is not None and self.head.start_from(head)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy of the tokens to be named; nothing is computed for the others.

        Args:
            batch: targets ``(batch, seq_len)``, ``IGNORE`` where nothing is to be named.

        Returns:
            Its sum, float32, and how many tokens there are.
        """
        targets = batch.targets
        assert targets is not None, "what is to be named is known"
        encoded = self.backbone(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        named = targets != IGNORE
        logits = self.head(encoded.last_hidden_state[named], word_table(self.backbone))
        return functional.cross_entropy(logits, targets[named], reduction="sum"), named.sum()

    def mean_loss(self, batch: Batch) -> Tensor:
        """The mean over all tokens to be named in a batch; 0 where there is none."""
        total, count = self(batch)
        mean: Tensor = total / count.clamp(min=1)
        return mean


@dataclass(frozen=True)
class Recipe:
    """How AdamW learns; the rate rises over the first steps and falls to 0 at the end.

    Attributes:
        learning_rate: its highest.
        weight_decay: of all but vectors.
        warm_up: share of the whole over which the rate rises.
        max_grad_norm: what a larger gradient is cut to.
    """

    learning_rate: float
    weight_decay: float
    warm_up: float
    max_grad_norm: float = 1.0


def masked_updates(
    model: nn.Module,
    loss: Callable[[Batch], Tensor],
    batches: Iterable[tuple[int, Batch]],
    recipe: Recipe,
    *,
    share_done: Callable[[], float],
    precision: Precision,
) -> Iterator[tuple[int, float]]:
    """Makes an update from each batch; ends with the batches, or when all is done.

    An update whose gradient is not finite is left out.

    Args:
        model: changed in place.
        loss: of a batch, a scalar.
        batches: their epochs, and they themselves on the model's device.
        recipe: for the optimizer.
        share_done: asked before each update, from 0 to 1: the rate follows it.
        precision: of the forward passes.

    Yields:
        After each update the batch's epoch and loss.
    """
    vectors = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim >= 2 and p.requires_grad]
    optimizer = AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=True,
    )
    scaler = torch.amp.GradScaler(precision.device_type, enabled=precision.needs_scaler)
    for epoch, batch in batches:
        done = share_done()
        if done >= 1:
            return
        for group in optimizer.param_groups:
            rise, fall = done / recipe.warm_up, (1 - done) / (1 - recipe.warm_up)
            group["lr"] = recipe.learning_rate * min(rise, fall)
        with precision.autocast():
            value = loss(batch)
        scaler.scale(value).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
        step_if_finite(optimizer, norm)
        scaler.update()
        optimizer.zero_grad()
        yield epoch, value.item()
