"""Evaluations come when they should, and the weights that are kept are those that were promised."""

from __future__ import annotations

import math

import pytest
import torch

from kernel_lib.errors import TrainingError


def test_evaluations_split_the_epoch_evenly(make_case) -> None:
    result = make_case(batch_size=2, epochs=2, evals_per_epoch=2, fgm_epsilon=0).trainer().train()
    epochs = [record["epoch"] for record in result.history]
    assert epochs == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=0.06)
    assert epochs[1] == 1.0 and epochs[3] == 2.0


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_kept_weights_are_the_last_or_the_best(make_case, keep: str) -> None:
    case = make_case(keep=keep, epochs=4, learning_rate=2e-2, head_learning_rate=2e-2)
    trainer = case.trainer()
    result = trainer.train()
    seen = [record["scores"]["mcrmse"] for record in result.history]
    assert len(set(seen)) > 1
    wanted = min(seen) if keep == "best" else seen[-1]
    assert result.scores["mcrmse"] == pytest.approx(wanted, abs=1e-6)
    evaluator = trainer.evaluator
    again = trainer.task.scores(
        trainer.task.oof_frame(evaluator.valid, evaluator.predict(trainer.model))
    )
    assert again["mcrmse"] == pytest.approx(wanted, abs=1e-6)
    assert result.epoch == (1 + seen.index(wanted) if keep == "best" else 4)


def test_a_score_that_is_better_higher_is_kept_when_higher(make_case) -> None:
    trainer = make_case(keep="best").trainer()
    scores = iter([{"mcrmse": 0.1}, {"mcrmse": 0.3}, {"mcrmse": 0.3}, {"mcrmse": 0.2}])
    trainer.task.lower_is_better = False
    trainer.task.scores = lambda oof: next(scores)
    lines = [trainer.evaluator.evaluate(trainer.state) for _ in range(4)]
    assert ["best so far" in line for line in lines] == [True, True, False, False]


def test_predictions_that_are_not_finite_end_the_fold_before_anything_is_saved(make_case) -> None:
    trainer = make_case().trainer()
    with torch.no_grad():
        trainer.model.head.bias[2] = math.nan
    with pytest.raises(
        TrainingError,
        match=r"(\d+) of \1 predictions are not finite in float32\. Train with a lower",
    ):
        trainer.evaluator.evaluate(trainer.state)
