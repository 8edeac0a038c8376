"""Weight decay towards the pretrained weights, in the place of zero.

The field calls it L2-SP, for "starting point" (Li, Grandvalet & Davoine 2018, arXiv 1802.01483,
whose penalty stands in the loss): a prior on the weights that is centred on what they were before
(Daumé III 2007, arXiv 0907.1815, for linear models; Wiese et al. 2017, arXiv 1706.03610, for
networks; Chen et al. 2020, "RecAdam", arXiv 2004.12651, for pretrained encoders). Here it is
decoupled from the gradient, as AdamW's decay is: with a group's rate ``lr`` of this update,

    w = w - lr * decay * (w - w_0)

before the optimizer's own step, which is where AdamW decays too. RecAdam's annealing is left out.

It holds for all that is trained of the encoder, vectors too, since a LayerNorm's or a bias's home
is its pretrained value. w_0 is what the encoder holds when the fold begins: the file's weights, or
those of the run that this one begins with; of layers drawn anew (``reinit_layers``) what was drawn,
of new tokens' rows their first values, of LoRA its first matrices, whose product is zero. Sessions
that go on with a fold build the same again.
``weight_decay`` decays towards zero beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kernel_lib.config import TrainingSettings
from kernel_lib.training.optimizer import BACKBONE_PREFIX


class PretrainedDecay:
    """Pulls the encoder's weights back, a little at each step of the optimizer.

    Args:
        model: as it is when the fold begins.
        decay: per update and unit of rate.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._pretrained: dict[Tensor, Tensor] = {
            parameter: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(BACKBONE_PREFIX)
        }

    def join(self, optimizer: Optimizer) -> None:
        """From now on, each of its steps pulls; one that is left out does not."""
        optimizer.register_step_pre_hook(self._pull)

    @torch.no_grad()
    def _pull(self, optimizer: Optimizer, *_: Any) -> None:
        left_out = getattr(optimizer, "found_inf", None)  # known on the device alone
        for group in optimizer.param_groups:
            share: Any = group["lr"] * self.decay
            if left_out is not None:
                share = (1.0 - left_out) * share
            for parameter in group["params"]:
                pretrained = self._pretrained.get(parameter)
                if pretrained is not None and parameter.grad is not None:
                    parameter.lerp_(pretrained, share)


def join_pretrained_decay(
    optimizer: Optimizer, model: nn.Module, settings: TrainingSettings
) -> None:
    """Decays as the settings ask for, if they do; the model is as the fold begins with it."""
    if settings.pretrained_weight_decay > 0:
        PretrainedDecay(model, settings.pretrained_weight_decay).join(optimizer)
