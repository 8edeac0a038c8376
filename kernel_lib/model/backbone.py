"""Loading a pretrained encoder from a folder, offline, in float32, and fitting it to the run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from kernel_lib.errors import BackboneError, SettingsError
from kernel_lib.model.attention import choose_attention

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
DROPOUT_KEYS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "hidden_dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
FREEZE_TABLE = {
    # (model type, hidden, layers): lowest layers frozen, the embeddings with them. These are the
    # families that do not fit a 16 GB card otherwise; from the FB3 notebook the kit starts from.
    ("deberta-v2", 1536, 48): 24,  # v2-xxlarge
    ("deberta-v2", 1536, 24): 12,  # v2-xlarge
    ("deberta", 1024, 24): 16,  # large (v1)
    ("deberta", 1024, 48): 36,  # xlarge (v1)
    ("funnel", 1024, 30): 1,  # xlarge: blocks, not layers
    ("funnel", 1024, 24): 1,  # large
}
# What feeds the layers and stands neither in one nor among the embeddings: DeBERTa's relative
# positions with their LayerNorm and its convolution, MPNet's, ELECTRA's and RemBERT's.
FEEDS_THE_LAYERS = (
    "encoder.rel_embeddings.",
    "encoder.LayerNorm.",
    "encoder.conv.",
    "encoder.relative_attention_bias.",
    "encoder.embedding_hidden_mapping_in.",
    "embeddings_project.",
)
FULL_STOP = "."
_LAYER = re.compile(r"(?:^|\.)(?:layer|layers|blocks|h)\.(\d+)(?:\.|$)")


def layer_index(name: str) -> int | None:
    """The number of the encoder layer in a parameter's or module's name, None outside layers.

    Example: ``encoder.layer.3.output.dense.bias`` gives 3, ``encoder.rel_embeddings.weight`` None.
    """
    match = None if name.startswith("decoder.") else _LAYER.search(name)
    return int(match.group(1)) if match else None


def load_backbone(folder: Path, *, dropout: float, attention: str = "auto") -> PreTrainedModel:
    """The pretrained encoder of a folder, with float32 weights, every one of them from the file.

    transformers 5 loads in the file's own type by default, and DeBERTa-v3's files are float16:
    such weights cannot be trained with a loss scaler.

    Args:
        folder: holds ``config.json`` and the weights, as safetensors or as ``pytorch_model.bin``
            (which transformers reads with torch's weights-only loader).
        dropout: the probability for all of the encoder's dropouts.
        attention: as for :func:`kernel_lib.model.attention.choose_attention`.

    Raises:
        BackboneError: files are missing or damaged, or lack weights that the encoder needs.
    """
    config = read_config(folder)
    if not any((folder / file).is_file() for file in WEIGHT_FILES):
        raise BackboneError(f"{folder} has no weights: none of {', '.join(WEIGHT_FILES)}.")
    if (folder / "adapter_config.json").is_file():  # with peft, as on Kaggle, it leads elsewhere
        raise BackboneError(f"{folder} holds an adapter (adapter_config.json), not an encoder.")
    for key in DROPOUT_KEYS:
        if isinstance(getattr(config, key, None), float | int):
            setattr(config, key, dropout)
    try:
        backbone, loading = AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            trust_remote_code=False,
            **_attention_options(),
        )
    except Exception as error:  # of any class: safetensors', torch's, the unpickler's
        raise BackboneError(f"the weights in {folder} cannot be loaded: {error}") from error
    missing = [name for name in loading["missing_keys"] if not name.startswith("pooler.")]
    # A name, or in other versions of transformers a name and both shapes.
    mismatched = [key if isinstance(key, str) else key[0] for key in loading["mismatched_keys"]]
    wrong = [*missing, *mismatched]
    if wrong:
        raise BackboneError(
            f"{folder}: {len(wrong)} weights of the encoder are missing or of another shape "
            f"({', '.join(sorted(wrong)[:3])}, ...). Is config.json of the same model?"
        )
    return choose_attention(_without_pooler(backbone), attention)


def read_config(folder: Path) -> PreTrainedConfig:
    """The ``config.json`` of a folder. Raises BackboneError when it is missing or not usable."""
    if not (folder / "config.json").is_file():
        state = "has no config.json" if folder.is_dir() else "does not exist"
        raise BackboneError(f"the backbone folder {folder} {state}.")
    _quiet_transformers()
    try:
        # Without a model_type transformers 5.0 guesses one from the folder's name.
        if "model_type" not in json.loads((folder / "config.json").read_text(encoding="utf-8")):
            raise ValueError("it names no model_type")
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise BackboneError(f"{folder}/config.json cannot be used: {error}") from error


def build_backbone(folder: Path, *, attention: str = "auto") -> PreTrainedModel:
    """The encoder that a fold's ``config.json`` describes, its weights to be loaded afterwards.

    Args:
        folder: of the fold.
        attention: as for :func:`kernel_lib.model.attention.choose_attention`.
    """
    config = read_config(folder)
    try:
        encoder = AutoModel.from_config(
            config, dtype=torch.float32, trust_remote_code=False, **_attention_options()
        )
    except Exception as error:  # of any class, as in load_backbone
        raise BackboneError(f"{folder}/config.json describes no encoder: {error}") from error
    return choose_attention(_without_pooler(encoder), attention)


def fit_embeddings(backbone: Any, tokenizer: Any) -> None:
    """Gives every token of the tokenizer a row in the embedding table, and new tokens a fair start.

    DeBERTa-v3 has 128,100 rows for 128,001 tokens, so a new token finds a row there already, and
    the table must not shrink to the tokenizer's size; BERT's table grows. A row that pretraining
    never met starts as a copy of the full stop's: the mean of all rows is a tenth as long, the
    LayerNorm after it blows its gradient up, and FGM pushes that one row and no other.

    Args:
        backbone: the encoder, changed in place.
        tokenizer: the run's tokenizer; its tokens beyond the pretrained ones are the new ones.
    """
    table: torch.Tensor = backbone.get_input_embeddings().weight
    added = list(range(tokenizer.pretrained_size, len(tokenizer)))
    if len(tokenizer) > len(table):
        backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        table = backbone.get_input_embeddings().weight
    if added:
        with torch.no_grad():
            table[added] = table[tokenizer(FULL_STOP)["input_ids"][-2]].clone()  # then [SEP]


def check_length(backbone: PreTrainedModel, max_length: int, *, name: str = "max_length") -> None:
    """Raises SettingsError when texts may be longer than the encoder's table of positions.

    Args:
        backbone: the encoder.
        max_length: of the texts.
        name: of the setting that says so.
    """
    for path, module in backbone.named_modules():
        if path.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa counts its positions from behind the padding id.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            limit = module.num_embeddings - first
            if max_length > limit:
                raise SettingsError(f"{name}={max_length}, but the encoder has {limit} positions.")


def freeze(
    backbone: PreTrainedModel, *, embeddings: bool | None, layers: int | None
) -> tuple[bool, int]:
    """Stops the lowest parts of the encoder from training, and says so.

    Where layers and the embeddings freeze, whatever else feeds these layers does too, in all layers
    that share it (``FEEDS_THE_LAYERS``): if one of them trained, the backward pass would go through
    every frozen layer down to it, and keep their activations. FGM wants that pass all the same.

    Args:
        backbone: the encoder, changed in place.
        embeddings: whether the embeddings freeze; None: where layers do.
        layers: how many of the lowest layers freeze; None: as ``FREEZE_TABLE`` says.

    Returns:
        What was frozen: embeddings or not, and the number of layers.

    Raises:
        SettingsError: more layers than the encoder has.
    """
    config = backbone.config
    family = (config.model_type, config.hidden_size, config.num_hidden_layers)
    layers = FREEZE_TABLE.get(family, 0) if layers is None else layers
    embeddings = layers > 0 if embeddings is None else embeddings
    count = _count_layers(backbone)
    if layers > count:
        raise SettingsError(f"freeze_layers={layers}, but the encoder has {count} layers.")
    prefixes = ("embeddings.", *(FEEDS_THE_LAYERS if layers else ())) if embeddings else ()
    for name, parameter in backbone.named_parameters():
        index = layer_index(name)
        if name.startswith(prefixes) or (index is not None and index < layers):
            parameter.requires_grad_(False)
    if embeddings or layers:
        print(f"frozen: {'embeddings and ' if embeddings else ''}the lowest {layers} layers")
    return embeddings, layers


def reinitialise(backbone: PreTrainedModel, layers: int) -> None:
    """Draws the weights of the top layers anew (Zhang et al. 2021, arXiv 2006.05987).

    Linear and embedding weights from N(0, initializer_range), biases 0, LayerNorms (1, 0).

    Raises:
        SettingsError: more layers than the encoder has.
    """
    count = _count_layers(backbone)
    if layers > count:
        raise SettingsError(f"reinit_layers={layers}, but the encoder has {count} layers.")
    deviation = getattr(backbone.config, "initializer_range", 0.02)
    for name, module in backbone.named_modules():
        index = layer_index(name)
        if index is None or index < count - layers:
            continue
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        else:  # layer norms of all families; DeBERTa v1's biases of queries and values
            for key, parameter in module.named_parameters(recurse=False):
                nn.init.constant_(parameter, 1.0 if key == "weight" else 0.0)


def checkpoint_activations(backbone: Any) -> None:
    """Recomputes the layers' activations in the backward pass instead of keeping them."""
    # transformers renamed it on the way to 6; 5.0 knows only the older name.
    enable = getattr(backbone, "activation_checkpointing_enable", None)
    (enable or backbone.gradient_checkpointing_enable)({"use_reentrant": False})


def _count_layers(backbone: PreTrainedModel) -> int:
    indices = (layer_index(name) for name, _ in backbone.named_parameters())
    return 1 + max((index for index in indices if index is not None), default=-1)


def _attention_options() -> dict[str, Any]:
    """On a CPU the plain attention is the faster one in bf16 (MiniLM, 8 x 512: 1.15 s a training
    step against 1.57 s with the fused one); on a GPU transformers chooses."""
    return {"attn_implementation": None if torch.cuda.is_available() else "eager"}


def _without_pooler(backbone: Any) -> PreTrainedModel:
    """BERT's own pooler is never used here; left in, it would be weight that nothing trains."""
    if getattr(backbone, "pooler", None) is not None:
        backbone.pooler = None
    encoder: PreTrainedModel = backbone
    return encoder


def _quiet_transformers() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
