"""LoRA: the encoder stays as it is, and some of its linear layers learn a small product beside.

A layer gives ``W x + b + (alpha / rank) B A x``, with A ``(rank, in)`` and B ``(out, rank)``; only
A and B are trained (Hu et al. 2021, arXiv 2106.09685). B begins with zeros, so that at first
nothing is changed. For prediction the product is added to W, and nothing of it is left.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from kernel_lib.errors import SettingsError

TARGETS = {
    # model type: its projections of queries and values
    "albert": ("query", "value"),
    "bert": ("query", "value"),
    "camembert": ("query", "value"),
    "deberta": ("in_proj",),  # queries, keys and values in one
    "deberta-v2": ("query_proj", "value_proj"),  # v3 too
    "distilbert": ("q_lin", "v_lin"),
    "electra": ("query", "value"),
    "ernie": ("query", "value"),
    "funnel": ("q_head", "v_head"),
    "modernbert": ("Wqkv",),
    "mpnet": ("q", "v"),
    "roberta": ("query", "value"),
    "roformer": ("query", "value"),
    "xlm-roberta": ("query", "value"),
}
SLOW_RATE = 1e-4
_FROZEN = "_frozen_by_lora"


class LoraLinear(nn.Linear):
    """A linear layer with the product beside it; ``weight`` and ``bias`` are named as before.

    Args:
        plain: the layer it takes the place of, and whose weight and bias it holds.
        rank, alpha, dropout: as for :func:`add_lora`.
    """

    def __init__(self, plain: nn.Linear, *, rank: int, alpha: float, dropout: float) -> None:
        super().__init__(
            plain.in_features, plain.out_features, plain.bias is not None, device="meta"
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.scale = alpha / rank
        self.lora_dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(plain.weight.new_empty(rank, plain.in_features))
        self.lora_b = nn.Parameter(plain.weight.new_zeros(plain.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:
        """``(..., out)`` from ``(..., in)``."""
        low = functional.linear(self.lora_dropout(input), self.lora_a)
        return super().forward(input) + functional.linear(low, self.lora_b) * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer, its weight changed in place; rounded once."""
        product = self.lora_b.double() @ self.lora_a.double()
        self.weight.copy_(self.weight.double() + self.scale * product)
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain.train(self.training)


@dataclass(frozen=True)
class LoraReport:
    """What is trained.

    Attributes:
        layers: the names of the linear layers that learn.
        targets: what they were found by.
        rank: of the products.
        trained: numbers in the encoder that are trained.
        total: numbers in the encoder as it was.
    """

    layers: tuple[str, ...]
    targets: tuple[str, ...]
    rank: int
    trained: int
    total: int

    def __str__(self) -> str:
        return (
            f"LoRA of rank {self.rank} beside {len(self.layers)} linear layers "
            f"({', '.join(self.targets)}): {self.trained:,} parameters to train, "
            f"{self.trained / self.total:.2%} of the encoder's {self.total:,}"
        )


def add_lora(
    backbone: PreTrainedModel,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str] | None,
) -> LoraReport:
    """Freezes the encoder and lets some of its linear layers learn a product beside.

    Args:
        backbone: changed in place. Its embeddings are frozen too, rows of new tokens among them:
            they stay the copies that ``backbone.fit_embeddings`` made.
        rank: of the products, 1 or more.
        alpha: over ``rank`` the factor of the products.
        dropout: on what goes into A.
        targets: the last part of the layers' names, or more of it: ``query``, ``dense``,
            ``intermediate.dense``. None: those of ``TARGETS``.

    Raises:
        SettingsError: no targets are known for this kind of encoder, one of those given is no
            linear layer's name, the numbers are out of range, or there is LoRA already. The encoder
            is then as it was.
    """
    if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise SettingsError(
            f"LoRA with rank={rank}, alpha={alpha}, dropout={dropout}: rank must be 1 or more, "
            "alpha above 0, dropout from 0 to below 1."
        )
    if any(isinstance(module, LoraLinear) for module in backbone.modules()):
        raise SettingsError("the encoder has LoRA already: merge it first.")
    chosen = _targets(backbone, targets)
    layers = {
        name: module
        for name, module in _linear_layers(backbone).items()
        if any(_is_named(name, target) for target in chosen)
    }
    frozen = [name for name, p in backbone.named_parameters() if p.requires_grad]
    total = sum(p.numel() for p in backbone.parameters())
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    for name, module in layers.items():
        _put(backbone, name, LoraLinear(module, rank=rank, alpha=alpha, dropout=dropout))
    setattr(backbone, _FROZEN, frozen)
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    return LoraReport(tuple(layers), chosen, rank, trained, total)


def merge_lora(backbone: PreTrainedModel) -> None:
    """Adds the products to the weights and puts plain layers back, in place.

    What :func:`add_lora` froze can be trained again. Without LoRA nothing happens.
    """
    for name, module in list(backbone.named_modules()):
        if isinstance(module, LoraLinear):
            _put(backbone, name, module.merged())
    for name in backbone.__dict__.pop(_FROZEN, ()):
        backbone.get_parameter(name).requires_grad_(True)


def warn_if_slow(learning_rate: float) -> None:
    """Warns of a rate that full fine-tuning takes and LoRA hardly learns with.

    B begins with zeros, and with Adam a number moves by about the rate in an update.
    """
    if learning_rate < SLOW_RATE:
        warnings.warn(
            f"learning_rate={learning_rate:g} is low for LoRA, whose products begin at zero: the "
            f"encoder will hardly learn. Usual are {SLOW_RATE:g} to 3e-3, ten times the rate of "
            "full fine-tuning.",
            stacklevel=2,
        )


def _targets(backbone: PreTrainedModel, targets: Sequence[str] | None) -> tuple[str, ...]:
    """The targets, each of which is the name of a linear layer."""
    family = str(backbone.config.model_type)
    names = _linear_layers(backbone)
    there = "Its linear layers: " + ", ".join(_kinds(names)) + "."
    if targets is None and family not in TARGETS:
        raise SettingsError(
            f"no LoRA targets are known for an encoder of type {family!r}: name them. {there}"
        )
    chosen = tuple(dict.fromkeys(TARGETS[family] if targets is None else targets))
    if not chosen:
        raise SettingsError(f"LoRA has no targets: name some, or leave them to the kit. {there}")
    missing = [repr(t) for t in chosen if not any(_is_named(name, t) for name in names)]
    if missing:
        raise SettingsError(
            f"LoRA targets: no linear layer of this encoder ({family}) is named "
            f"{' or '.join(missing)}. {there}"
        )
    return chosen


def _linear_layers(backbone: nn.Module) -> dict[str, nn.Linear]:
    """The plain linear layers by name. A subclass may be read in other ways than by calling it, as
    the one in ``nn.MultiheadAttention`` is, and the product would be passed by."""
    return {name: module for name, module in backbone.named_modules() if type(module) is nn.Linear}


def _kinds(names: Sequence[str] | dict[str, Any]) -> list[str]:
    """The last parts of names, each once."""
    return sorted({name.rsplit(".", 1)[-1] for name in names})


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _put(backbone: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module in the place of the one of that name."""
    parent, _, own = name.rpartition(".")
    setattr(backbone.get_submodule(parent), own, module)
