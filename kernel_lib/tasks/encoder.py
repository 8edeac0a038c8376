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
from kernel_lib.model.mixout import add_mixout
from kernel_lib.text.batches import padded_length


def prepare_encoder(
    backbone: Path,
    tokenizer: PreTrainedTokenizerBase,
    settings: TrainingSettings,
    *,
    inference_max_length: int = 0,
) -> PreTrainedModel:
    """The encoder with pretrained weights, parts of it frozen or drawn anew, ready to train.

    Mixout, where it is asked for, draws towards the weights as they are here: in layers drawn anew
    towards what was drawn. A run that is resumed makes them again in the same way.

    Args:
        backbone: its folder.
        tokenizer: the run's; tokens that the encoder does not know get a row in its table.
        settings: of the run.
        inference_max_length: longest sequence in evaluation; 0: ``settings.max_length``.

    Raises:
        BackboneError, SettingsError: files are missing or damaged, or a setting does not fit them.
    """
    encoder = load_backbone(backbone, dropout=settings.dropout, attention=settings.attention)
    check_length(encoder, padded_length(settings.max_length))
    check_length(encoder, padded_length(inference_max_length), name="inference_max_length")
    fit_embeddings(encoder, tokenizer)
    reinitialise(encoder, settings.reinit_layers)
    freeze(encoder, embeddings=settings.freeze_embeddings, layers=settings.freeze_layers)
    if settings.mixout_probability:
        add_mixout(encoder, settings.mixout_probability)
    if settings.gradient_checkpointing:
        checkpoint_activations(encoder)
    return encoder
