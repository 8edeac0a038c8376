"""The masked-language-model head that a pretrained encoder's files hold beside the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_MASKED_LM_MAPPING, AutoModelForMaskedLM

from kernel_lib.errors import BackboneError
from kernel_lib.model.backbone import read_config


def load_pretrained_head(folder: Path) -> dict[str, Tensor] | None:
    """The head's transform and the decoder's bias; the decoder itself is the word embeddings.

    Taken are heads of BERT's form, ``D LayerNorm(GELU(A h + a)) + b`` with a tied D: those of BERT
    and MacBERT, RoBERTa, ELECTRA's generator, ALBERT.

    Args:
        folder: holds ``config.json`` and the weights.

    Returns:
        ``dense.weight``, ``dense.bias``, ``norm.weight``, ``norm.bias`` and ``bias``, float32, as
        :meth:`kernel_lib.model.vocabulary_head.VocabularyHead.start_from` takes them. None: the
        files hold no such head, or not all of it.

    Raises:
        BackboneError: the files cannot be loaded.
    """
    config: Any = read_config(folder)
    activation = str(getattr(config, "hidden_act", ""))
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING or not activation.startswith("gelu"):
        return None
    try:
        model, loading = AutoModelForMaskedLM.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # looked at below
            trust_remote_code=False,
        )
    except Exception as error:  # of any class, as in load_backbone
        raise BackboneError(f"the weights in {folder} cannot be loaded: {error}") from error
    # A name, or in other versions of transformers a name and both shapes.
    mismatched = [key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"]]
    encoder = f"{model.base_model_prefix}."
    if any(not name.startswith(encoder) for name in (*loading["missing_keys"], *mismatched)):
        return None
    return _head_of(model, encoder)


def _head_of(model: Any, encoder: str) -> dict[str, Tensor] | None:
    """The head of a masked language model, by our names; None where it is of another form."""
    decoder = model.get_output_embeddings()
    if decoder is None:
        return None
    # By value: old files of BERT hold the table a second time, and transformers 5.0 then keeps two.
    if not torch.equal(decoder.weight, model.get_input_embeddings().weight):
        return None
    own = {name: p for name, p in model.named_parameters() if not name.startswith(encoder)}
    found = {"bias": decoder.bias}
    for part, spellings in {"dense": ("dense",), "norm": ("LayerNorm", "layer_norm")}.items():
        for kind in ("weight", "bias"):
            endings = tuple(f"{spelling}.{kind}" for spelling in spellings)
            fitting = [p for name, p in own.items() if name.endswith(endings)]
            if len(fitting) == 1:
                found[f"{part}.{kind}"] = fitting[0]
    if len(found) < 5 or found["bias"] is None:
        return None
    return {name: parameter.detach().clone() for name, parameter in found.items()}
