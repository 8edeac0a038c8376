"""AWP: the gradient is taken at weights that were pushed in the direction that hurts most.

Wu et al. 2020 (arXiv 2004.05884), in the form that Kaggle uses, without adversarial inputs. Each
matrix w moves by a step r along a direction d, with the norms over the whole matrix:

    r = learning_rate * |w| * d / |d|,   then each number of it cut to +- epsilon * |its own of w|

The optimizer's step then goes out from the weights as they were, by the gradient at ``w + r`` and
by that one alone: what is minimised is the loss at ``w + r``, the worst of the weights near w, as
in the paper's algorithm. The gradient at w only shows the way. To add it, as FGM adds both of its
own, would be to minimise another sum, half of it without AWP, and to double what ``max_grad_norm``
sees.

Moved are the encoder's matrices: every parameter of it with two or more axes that is being trained.
The authors' code takes matrices too; Kaggle's takes all that is named "weight", LayerNorms and
embeddings among them. A LayerNorm's vector is no layer's weight in the sense of the paper. Of an
embedding table a batch moves a few hundred rows, and the norm of all 128,000 would fall on these
few: a step ten times as long as elsewhere, on what FGM perturbs with a length of its own, and
0.4 GB to copy. LoRA's matrices are moved as they are trained, not the frozen ones beside them.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kernel_lib.config import TrainingSettings
from kernel_lib.errors import SettingsError
from kernel_lib.training.optimizer import BACKBONE_PREFIX


def encoder_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that AWP may move, frozen ones among them.

    Args:
        model: its encoder's parameters begin with ``backbone.``; all others are the head's.
    """
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    return [
        parameter
        for name, parameter in model.named_parameters()
        if name.startswith(BACKBONE_PREFIX) and parameter.ndim >= 2 and id(parameter) not in tables
    ]


def make_awp(model: nn.Module, settings: TrainingSettings) -> AWP | None:
    """The adversary that the settings ask for.

    Raises:
        SettingsError: it would have nothing to move.
    """
    if settings.awp == "off":
        return None
    if not any(matrix.requires_grad for matrix in encoder_matrices(model)):
        raise SettingsError(
            f'awp="{settings.awp}", but no layer of the encoder trains: all are frozen. Set '
            'awp="off", or a lower freeze_layers.'
        )
    return AWP(model, learning_rate=settings.awp_learning_rate, epsilon=settings.awp_epsilon)


def batches_before_awp(counts: Sequence[int], settings: TrainingSettings) -> int:
    """The batches of a fold before the first one with AWP.

    Args:
        counts: batches of each epoch.
        settings: for ``awp_start_epoch``.

    Example: epochs of 10 batches each and a start of 1.25 give 13.
    """
    epochs = int(settings.awp_start_epoch)
    part = sum(counts[epochs : epochs + 1]) * (settings.awp_start_epoch - epochs)
    return sum(counts[:epochs]) + math.ceil(part - 1e-9)  # 1.1 less 1 is more than 0.1


class AWP:
    """Moves the encoder's matrices, and puts them back bit for bit.

    Nothing is kept between two attacks, and no device is waited for.

    Args:
        model: see :func:`encoder_matrices`.
        learning_rate: length of a matrix's step, as a share of the matrix's norm.
        epsilon: most that a number moves, as a share of its size.
    """

    def __init__(self, model: nn.Module, *, learning_rate: float, epsilon: float) -> None:
        self.learning_rate, self.epsilon = learning_rate, epsilon
        self._matrices = encoder_matrices(model)

    def along_gradient(self) -> contextlib.AbstractContextManager[None]:
        """An attack along ``.grad``, which may be cleared inside. A loss scale does not matter."""
        return self._attack(lambda matrix: matrix.grad)

    def along_running_mean(self, optimizer: Optimizer) -> contextlib.AbstractContextManager[None]:
        """An attack along the optimizer's running mean of gradients, ``exp_avg``.

        Its bias correction is one factor for all of a matrix: the direction is the same without.
        Where there is no mean yet, before the first update, nothing moves.
        """

        def mean(matrix: nn.Parameter) -> Tensor | None:
            found: Tensor | None = optimizer.state.get(matrix, {}).get("exp_avg")
            return found

        return self._attack(mean)

    @contextlib.contextmanager
    def _attack(self, direction: Callable[[nn.Parameter], Tensor | None]) -> Iterator[None]:
        """The matrices are moved inside; on leaving, also by an exception, they are as before.

        Where one of all directions is not finite, none moves: the update is to be left out, or a
        loss scale to come down. A matrix or a direction of zeros does not move either.
        """
        before: list[tuple[nn.Parameter, Tensor]] = []
        try:
            self._move(direction, before)
            yield
        finally:
            for matrix, values in before:
                matrix.data.copy_(values)

    @torch.no_grad()
    def _move(
        self,
        direction: Callable[[nn.Parameter], Tensor | None],
        before: list[tuple[nn.Parameter, Tensor]],
    ) -> None:
        """Moves, noting in ``before`` what each matrix was: first, lest memory end in between."""
        found = [(matrix, direction(matrix)) for matrix in self._matrices if matrix.requires_grad]
        there = [(matrix, along) for matrix, along in found if along is not None]
        if not there:
            return
        norms = torch.stack([along.norm() for _, along in there]).double()
        moves = torch.isfinite(norms).all() & (norms > 0)
        for (matrix, along), norm, is_moved in zip(there, norms, moves, strict=True):
            factor = (self.learning_rate * matrix.norm() / norm).float()
            most = self.epsilon * matrix.abs()
            step = (factor * along).clamp_(-most, most).masked_fill_(~is_moved, 0.0)
            before.append((matrix, matrix.detach().clone()))
            matrix.data.add_(step)
