"""Scoring a fold's validation rows while it trains, and its result at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.text.batches import Example, split_tokens
from kernel_lib.text.order import TrainingOrder
from kernel_lib.training.passes import predict_in_passes
from kernel_lib.training.prediction import TimeIsUp
from kernel_lib.training.state import Progress, TrainingState
from kernel_lib.training.task import FoldResult, Machine, Task
from kernel_lib.training.tracking import Tracker


class Evaluator:
    """Evaluates one fold.

    Args:
        task: scores and settings.
        fold: its number.
        valid: the examples to be scored on.
        pad_id: the tokenizer's padding id.
        machine: device and precision, the same as in training, and the clock.
        order: of the training batches.
        tracker: gets each evaluation's record.
    """

    def __init__(
        self,
        task: Task,
        *,
        fold: int,
        valid: Sequence[Example],
        pad_id: int,
        machine: Machine,
        order: TrainingOrder,
        tracker: Tracker,
    ) -> None:
        self.task, self.fold, self.valid, self.pad_id = task, fold, valid, pad_id
        self.machine, self.order, self.tracker = machine, order, tracker

    def is_due(self, progress: Progress, new_batches: int) -> bool:
        """Whether the last batches crossed a point that splits the epoch into equal parts.

        Never in a model of all rows, which has none to be scored on.
        """
        if not self.valid:
            return False
        count, done = self.task.settings.evals_per_epoch, progress.batch
        batches = self.order.counts[progress.epoch]
        before, after = ((done - back) * count // batches for back in (new_batches, 0))
        return after > before

    def cost_in_batches(self) -> float:
        """How many training batches take about as long as an evaluation, rather too many.

        A forward pass is a third of a training pass, or a sixth where FGM makes a second one.
        """
        passes = 4 if self.task.settings.fgm_epsilon > 0 else 2
        return len(self.valid) / self.order.mean_rows / passes

    def predict(self, model: nn.Module, clock: Clock | None = None) -> NDArray[np.float32]:
        """The model's outputs for the validation rows, in their order.

        Several processes take a share each, of like lengths, and all get the whole.

        Raises:
            TimeIsUp: the clock, if there is one, does not allow all of it.
        """
        world, late = self.machine.world, None
        order = np.argsort([-len(example.input_ids) for example in self.valid], kind="stable")
        mine = world.share(order)
        # One without a row predicts another's: it has to know how wide a row is.
        share = [self.valid[row] for row in (mine if len(mine) else order[:1])]
        try:
            outputs = predict_in_passes(
                self.task,
                model,
                share,
                pad_id=self.pad_id,
                batch_tokens=self.task.settings.eval_batch_tokens,
                device=self.machine.device,
                precision=self.machine.precision,
                clock=clock,
                limit=self.machine.limit,
            )
        except TimeIsUp as error:
            late = error
        if world.any(late is not None):
            raise late or TimeIsUp(0.0)
        # By row or by token: a share of rows of one token each does not tell, the others may.
        if not world.any(len(outputs) != len(share)):
            ordered = world.gather_shares(outputs, len(order))
            predictions = np.empty_like(ordered)
            predictions[order] = ordered
            return predictions
        parts = split_tokens(outputs, share)
        if world.size > 1:
            longest = len(self.valid[order[0]].input_ids)
            padded = world.gather_shares(_padded(parts, longest), len(order))
            lengths = [len(self.valid[row].input_ids) for row in order]
            parts = [row[:length] for row, length in zip(padded, lengths, strict=True)]
        in_place = dict(zip(order.tolist(), parts, strict=True))
        return np.concatenate([in_place[row] for row in range(len(order))])

    def evaluate(self, state: TrainingState) -> str:
        """Scores the validation rows, records it in the state, and returns the line to print.

        With ``keep="best"`` the weights are kept when the score is the best so far. Where the
        settings ask for an average of the weights, all this is of the average.

        Raises:
            TimeIsUp: the clock ends it before it is done; the state is as it was.
        """
        with state.weights_to_keep():
            return self._evaluate(state)

    def _evaluate(self, state: TrainingState) -> str:
        """:meth:`evaluate` for the weights that the model holds."""
        task, progress = self.task, state.progress
        epoch = progress.epoch + progress.batch / self.order.counts[progress.epoch]
        predictions = self.predict(state.model, self.machine.clock)
        scores = task.scores(task.oof_frame(self.valid, predictions))
        score = scores[task.score_name]
        better = progress.best is None or (
            score < progress.best if task.lower_is_better else score > progress.best
        )
        if better:
            progress.best, progress.best_epoch = score, epoch
            if task.settings.keep == "best":
                state.keep_best_weights()
        if better or task.settings.keep == "last":
            state.predictions = predictions
        train_loss = progress.loss_sum / max(1, progress.loss_rows)
        ratio = None if math.isnan(progress.fgm_ratio) else progress.fgm_ratio
        record = {
            "fold": self.fold,
            "epoch": round(epoch, 4),
            "update": progress.updates,
            "train_loss": train_loss,
            "scores": scores,
            "learning_rate": max(group["lr"] for group in state.optimizer.param_groups),
            "fgm_ratio": ratio,
            "skipped_updates": progress.skipped,
            "seconds": round(progress.seconds, 1),
        }
        progress.history.append(record)
        progress.loss_sum, progress.loss_rows = 0.0, 0
        self.tracker.log(record)
        parts = [
            f"fold {self.fold}",
            f"epoch {epoch:.2f}/{task.settings.epochs}",
            f"loss {train_loss:.4f}",
            f"{task.score_name} {score:.4f}",
            "" if ratio is None else f"fgm/clean gradient {ratio:.2f}",
            format_seconds(progress.seconds),
            "best so far" if better else "",
        ]
        return "  ".join(part for part in parts if part)

    def result(self, state: TrainingState) -> FoldResult:
        """The finished fold, its model holding the weights to keep.

        A model of all rows has no predictions and no scores, and keeps its last weights.
        """
        task, progress = self.task, state.progress
        keeps_best = task.settings.keep == "best" and bool(self.valid)
        if keeps_best:
            state.model.load_state_dict(state.best_weights)
        elif state.average:
            state.average.stay()
        oof, scores = pd.DataFrame({"id": []}), {}
        if self.valid:
            assert state.predictions is not None, "an evaluation ends every fold"
            oof = task.oof_frame(self.valid, state.predictions)
            scores = task.scores(oof)
        return FoldResult(
            oof=oof,
            scores=scores,
            epoch=progress.best_epoch if keeps_best else task.settings.epochs,
            history=progress.history,
            seconds=progress.seconds,
        )


def _padded(parts: Sequence[NDArray[np.float32]], width: int) -> NDArray[np.float32]:
    """Outputs by token as ``(rows, width, num_outputs)``."""
    padded = np.zeros((len(parts), width, parts[0].shape[1]), dtype=np.float32)
    for row, found in zip(padded, parts, strict=True):
        row[: len(found)] = found
    return padded
