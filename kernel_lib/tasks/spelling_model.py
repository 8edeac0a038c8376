"""The two systems of spelling correction as their settings say: heads, loss, what they propose."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kernel_lib.model.candidates import Candidates
from kernel_lib.model.corrector import COPY_ID, CopyCorrector, CorrectorOutput
from kernel_lib.model.masked_corrector import MaskedCorrector
from kernel_lib.tasks.proposals import CANDIDATES
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE, Batch
from kernel_lib.text.characters import CharacterEncoder
from kernel_lib.training.token_losses import binary_focal_loss, token_focal_loss

KEEP_IDS = (0, COPY_ID)  # padding as a label says as little as the copy label: nothing to change


def make_corrector(
    encoder: PreTrainedModel, settings: SpellingSettings
) -> CopyCorrector | MaskedCorrector:
    """The system that the settings name, on an encoder."""
    if settings.system == "detect":
        return MaskedCorrector(
            encoder,
            scalar_mix=settings.scalar_mix,
            dropout=settings.dropout,
            tied=settings.tied_decoder,
        )
    return CopyCorrector(
        encoder,
        embedding_path=settings.embedding_path,
        gate=settings.gate,
        orthogonal=settings.orthogonal_init,
        tied=settings.tied_decoder,
        dropout=settings.dropout,
    )


def corrector_loss(outputs: CorrectorOutput, batch: Batch, settings: SpellingSettings) -> Tensor:
    """The loss of a batch, a scalar; every sentence weighs the same.

    A character that noise has hidden or confused has to be named, not copied.
    """
    wanted = batch.targets
    assert wanted is not None, "training batches carry targets"
    right = wanted == batch.input_ids
    if settings.system == "copy":
        labels = wanted.masked_fill(right, COPY_ID) if settings.copy_label else wanted
        return token_focal_loss(outputs.logits, labels, gamma=settings.focal_gamma)
    assert outputs.detection is not None, "this system detects"
    wrong = (~right).long().masked_fill(wanted == IGNORE, IGNORE)
    correction = token_focal_loss(outputs.logits, wanted, gamma=0.0)
    detection = binary_focal_loss(outputs.detection, wrong, gamma=settings.focal_gamma)
    return settings.correction_weight * correction + settings.detection_weight * detection


def make_predictor(
    model: nn.Module, characters: CharacterEncoder, settings: SpellingSettings
) -> Candidates:
    """The likeliest characters, in place of probabilities of all."""
    backbone: Any = model.backbone
    table: Tensor = backbone.get_input_embeddings().weight
    writable = torch.zeros(len(table), dtype=torch.bool)
    writable[: characters.size] = torch.from_numpy(characters.writable)
    copies = settings.system == "copy" and settings.copy_label
    return Candidates(
        model,
        writable.to(table.device),
        keep_ids=KEEP_IDS if copies else (),
        count=CANDIDATES,
    )
