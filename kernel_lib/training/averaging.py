"""A running mean of the weights, which is evaluated and kept in the place of the last ones.

Two kinds, w_t being the weights after update t of those that happened:

* ``ema``: a_0 = w_0, a_t = d_t a_(t-1) + (1 - d_t) w_t, d_t = min(ema_decay, (1 + t) / (10 + t)).
  The second term, TensorFlow's (``ExponentialMovingAverage`` with ``num_updates``), lets a young
  mean forget the weights it began with: without it, 0.999 would still hold 90 % of them after a
  hundred updates.
* ``swa``: the equal mean of w_t after each update past ``swa_start`` of all planned ones, skipped
  ones included (Izmailov et al. 2018, arXiv 1803.05407, who take one a cycle or an epoch; a fold of
  few epochs has too few of these). Until then the plain weights are evaluated. There is no
  normalisation by batch in these models whose statistics would have to be made anew.

  The paper averages weights that a constant or cyclical rate keeps moving: set
  ``schedule="constant"``. A falling rate leaves little to average: after three quarters of the
  default ``cosine`` 3.1 % of the sum of all rates is left, so that the mean is nearly the last
  weights; of a constant rate, 26 %.

Means are kept for what is trained, in float32; all else in a model is as it is. LoRA's two matrices
are averaged each, not their product.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kernel_lib.config import TrainingSettings
from kernel_lib.errors import ArtifactError

COUNTED = "counted"  # beside the parameters' names, which have a dot


class WeightAverage:
    """The mean of a model's trained weights.

    Its memory, 4 bytes a number that is trained, is taken at once: were it taken later, a GPU that
    was filled to the brim in the meantime would stop the fold.

    Args:
        model: as it is before the first update.
        settings: for ``averaging``, ``ema_decay``, ``swa_start``.
        total_updates: of the whole fold.
    """

    def __init__(self, model: nn.Module, settings: TrainingSettings, total_updates: int) -> None:
        self._parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._means = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in self._parameters.items()
        }
        self._is_ema, self._decay = settings.averaging == "ema", settings.ema_decay
        # One update is past it in any case.
        self._start = min(round(settings.swa_start * total_updates), max(0, total_updates - 1))
        self._counted = torch.zeros((), dtype=torch.int64)  # weights in SWA's mean
        self.has_begun = self._is_ema

    @torch.no_grad()
    def count(self, updates: int, skipped: int = 0) -> None:
        """Takes the weights of now, after an update that happened, into the mean.

        Args:
            updates: how many have happened, this one included.
            skipped: how many were skipped. They bring SWA's beginning nearer: what is left of the
                fold is left without them too.
        """
        if self._is_ema:
            share = 1.0 - min(self._decay, (1 + updates) / (10 + updates))
        elif updates + skipped > self._start:
            self._counted += 1
            share = 1.0 / int(self._counted)
        else:
            return
        newest = [parameter.detach().float() for parameter in self._parameters.values()]
        torch._foreach_lerp_(list(self._means.values()), newest, share)
        self.has_begun = True

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The model holds the mean inside; on leaving, also by an exception, its own weights again,
        bit for bit. Nothing is copied. Before the mean has begun, nothing changes."""
        plain = {name: parameter.data for name, parameter in self._parameters.items()}
        try:
            self.stay()
            yield
        finally:
            for name, parameter in self._parameters.items():
                parameter.data = plain[name]

    def stay(self) -> None:
        """The model holds the mean from now on, if it has begun."""
        if self.has_begun:
            for name, parameter in self._parameters.items():
                parameter.data = self._means[name].to(parameter.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """What is to be saved: the means by the parameters' names, of SWA also how many weights are
        in them; nothing before the mean has begun."""
        if not self.has_begun:
            return {}
        return dict(self._means) if self._is_ema else {**self._means, COUNTED: self._counted}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from what :meth:`tensors` gave.

        Raises:
            ArtifactError: they are of other parameters.
        """
        mine = {**self._means, **({} if self._is_ema else {COUNTED: self._counted})}
        if tensors and tensors.keys() != mine.keys():
            wrong = sorted(tensors.keys() ^ mine.keys())
            raise ArtifactError(
                f"the saved mean of the weights is of another model: {', '.join(wrong[:3])}, ... "
                "Delete the fold's resume.safetensors to begin it anew."
            )
        for name, value in tensors.items():
            mine[name].copy_(value)
        self.has_begun = self._is_ema or bool(tensors)


def make_average(
    model: nn.Module, settings: TrainingSettings, total_updates: int
) -> WeightAverage | None:
    """The mean that the settings ask for, if they do."""
    if settings.averaging == "none":
        return None
    return WeightAverage(model, settings, total_updates)
