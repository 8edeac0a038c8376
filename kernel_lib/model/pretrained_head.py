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
    found = _load_parameters(folder)
    if found is None:
        return None
    return {own: parameter.detach().clone() for own, _, parameter in found[1]}


def with_pretrained_names(
    folder: Path, backbone: dict[str, Tensor], head: dict[str, Tensor]
) -> dict[str, Tensor]:
    """An encoder and its head as the folder's own files name them.

    Args:
        folder: one that :func:`load_pretrained_head` finds a head in.
        backbone: the encoder's tensors, by their names in the encoder.
        head: those of the head, by our names.
    """
    found = _load_parameters(folder)
    assert found, "the folder has a head"
    prefix, parameters = found
    return {
        **{f"{prefix}{name}": tensor for name, tensor in backbone.items()},
        **{name: head[own] for own, name, _ in parameters},
    }


def _load_parameters(folder: Path) -> tuple[str, list[tuple[str, str, Tensor]]] | None:
    """What the encoder's names begin with, and of the head our names, the file's, the parameters;
    None where there is no head that can be taken."""
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
    head = _head_of(model, encoder)
    return None if head is None else (encoder, head)


def _head_of(model: Any, encoder: str) -> list[tuple[str, str, Tensor]] | None:
    """The head of a masked language model: our names, its own, and the parameters; None where it is
    of another form."""
    decoder = model.get_output_embeddings()
    if decoder is None:
        return None
    # By value: old files of BERT hold the table a second time, and transformers 5.0 then keeps two.
    if not torch.equal(decoder.weight, model.get_input_embeddings().weight):
        return None
    own = {name: p for name, p in model.named_parameters() if not name.startswith(encoder)}
    biases = [name for name, parameter in own.items() if parameter is decoder.bias]
    found = dict(zip(("bias",), biases, strict=False))
    for part, spellings in {"dense": ("dense",), "norm": ("LayerNorm", "layer_norm")}.items():
        for kind in ("weight", "bias"):
            endings = tuple(f"{spelling}.{kind}" for spelling in spellings)
            fitting = [name for name in own if name.endswith(endings)]
            if len(fitting) == 1:
                found[f"{part}.{kind}"] = fitting[0]
    if len(found) < 5:
        return None
    return [(mine, name, own[name]) for mine, name in found.items()]
