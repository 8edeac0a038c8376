"""Mixout: in training a random part of every linear layer of the encoder is the pretrained one.

Lee, Cho & Kang 2020 (arXiv 1909.11299). With the pretrained weights w0, the current ones w, and a
mask that is 1 with probability p, a layer computes with

    w~ = (mask * w0 + (1 - mask) * w - p * w0) / (1 - p),

whose mean over masks is w: dropout, but towards w0 in place of 0. As in the paper and its authors'
code the mask is drawn for each input of a layer and holds for all weights that lead from it (drawn
for each weight by itself, the paper calls it mixconnect), a call is a draw, and biases are not
mixed. The gradient is that of the formula, ``(1 - mask) / (1 - p)``; the authors' code leaves out
the factor ``1 / (1 - p)``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from kernel_lib.errors import SettingsError


class MixoutLinear(nn.Linear):
    """A linear layer that :func:`add_mixout` has changed; ``weight`` and ``bias`` as before.

    Attributes:
        pretrained: w0, ``(out, in)``; a buffer that no weight file holds.
        probability: p, above 0 and below 1.
    """

    pretrained: Tensor
    probability: float

    def forward(self, input: Tensor) -> Tensor:
        """``(..., out)`` from ``(..., in)``; in evaluation as a plain layer."""
        if not self.training:
            return super().forward(input)
        # w~ is w0 + (1 - mask) / (1 - p) * (w - w0), and dropout of ones is that factor.
        factor = functional.dropout(self.pretrained.new_ones(self.in_features), self.probability)
        return functional.linear(input, torch.lerp(self.pretrained, self.weight, factor), self.bias)


def add_mixout(backbone: PreTrainedModel, probability: float) -> int:
    """Lets the encoder's linear layers train with Mixout, towards the weights they have now.

    Layers whose weight is frozen are left as they are: there w is w0. Costs the memory of the
    weights a second time, and of the mixed ones while a batch is computed.

    Args:
        backbone: changed in place, by giving its layers another class; the names of its weights
            stay, and what is saved is what a plain encoder would save.
        probability: p, above 0 and below 1.

    Returns:
        The number of layers.

    Raises:
        SettingsError: there is no such layer.
    """
    count = 0
    for module in backbone.modules():
        # A subclass may be read in other ways than by calling it, as nn.MultiheadAttention's is.
        if type(module) is nn.Linear and module.weight.requires_grad:
            mixing: Any = module
            mixing.__class__ = MixoutLinear
            weight = module.weight.detach().clone()
            mixing.register_buffer("pretrained", weight, persistent=False)
            mixing.probability = probability
            count += 1
    if not count:
        raise SettingsError(
            f"mixout_probability={probability}, but no linear layer of this encoder "
            f"({backbone.config.model_type}) trains. Set it to 0."
        )
    return count
