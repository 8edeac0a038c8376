"""A running mean of the weights, which is evaluated and kept in the place of the last ones.

Two kinds, w_t being the weights after update t of those that happened:

* ``ema``: a_0 = w_0, a_t = d_t a_(t-1) + (1 - d_t) w_t, d_t = min(ema_decay, (1 + t) / (10 + t)).
  The second term, TensorFlow's (``ExponentialMovingAverage`` with ``num_updates``), lets a young
  mean forget the weights it began with: without it, 0.999 would still hold 90 % of them after a
  hundred updates.
* ``swa``: the equal mean of w_t after each update past ``swa_start`` of all updates (Izmailov et
  al. 2018, arXiv 1803.05407, who take one a cycle or an epoch; a fold of few epochs has too few of
  these). Until then the plain weights are evaluated. There is no normalisation by batch in these
  models whose statistics would have to be made anew.

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
        # The last update counts in any case.
        self._start = min(round(settings.swa_start * total_updates), max(0, total_updates - 1))
        self.has_begun = self._is_ema

    def share_of_newest(self, updates: int) -> float:
        """What the weights after an update weigh in the mean; 0: they do not count yet.

        Args:
            updates: how many have happened, this one included.
        """
        if self._is_ema:
            return 1.0 - min(self._decay, (1 + updates) / (10 + updates))
        return 1.0 / (updates - self._start) if updates > self._start else 0.0

    @torch.no_grad()
    def count(self, updates: int) -> None:
        """Takes the weights of now into the mean.

        Args:
            updates: how many have happened; one that was skipped is none.
        """
        share = self.share_of_newest(updates)
        if share == 0:
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
        """What is to be saved, by the parameters' names; nothing before the mean has begun."""
        return dict(self._means) if self.has_begun else {}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Goes on from what :meth:`tensors` gave.

        Raises:
            ArtifactError: they are of other parameters.
        """
        if tensors and tensors.keys() != self._means.keys():
            wrong = sorted(tensors.keys() ^ self._means.keys())
            raise ArtifactError(
                f"the saved mean of the weights is of another model: {', '.join(wrong[:3])}, ... "
                "Delete the fold's resume.safetensors to begin it anew."
            )
        for name, value in tensors.items():
            self._means[name].copy_(value)
        self.has_begun = self._is_ema or bool(tensors)


def make_average(
    model: nn.Module, settings: TrainingSettings, total_updates: int
) -> WeightAverage | None:
    """The mean that the settings ask for, if they do."""
    if settings.averaging == "none":
        return None
    return WeightAverage(model, settings, total_updates)
