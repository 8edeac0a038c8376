"""The pretrained encoder of a run, prepared as its settings say; the same for every task."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kernel_lib.config import TrainingSettings
from kernel_lib.model.backbone import (
    check_length,
    checkpoint_activations,
    fit_embeddings,
    freeze,
    load_backbone,
    reinitialise,
)
from kernel_lib.text.batches import padded_length


def prepare_encoder(
    backbone: Path, tokenizer: PreTrainedTokenizerBase, settings: TrainingSettings
) -> PreTrainedModel:
    """The encoder with pretrained weights, parts of it frozen or drawn anew.

    Args:
        backbone: its folder.
        tokenizer: the run's; tokens that the encoder does not know get a row in its table.
        settings: of the run.

    Raises:
        BackboneError, SettingsError: files are missing or damaged, or a setting does not fit them.
    """
    encoder = load_backbone(backbone, dropout=settings.dropout, attention=settings.attention)
    check_length(encoder, padded_length(settings.max_length))
    fit_embeddings(encoder, tokenizer)
    reinitialise(encoder, settings.reinit_layers)
    freeze(encoder, embeddings=settings.freeze_embeddings, layers=settings.freeze_layers)
    if settings.gradient_checkpointing:
        checkpoint_activations(encoder)
    return encoder
