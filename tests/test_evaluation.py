"""Evaluations come when they should, and the weights that are kept are those that were promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kernel_lib.errors import TrainingError
from kernel_lib.model.heads import PooledModel
from kernel_lib.tasks.proposals import WIDTH


def test_evaluations_split_the_epoch_evenly(make_case) -> None:
    result = make_case(batch_size=2, epochs=2, evals_per_epoch=2, fgm_epsilon=0).trainer().train()
    epochs = [record["epoch"] for record in result.history]
    assert epochs == pytest.approx([0.5, 1.0, 1.5, 2.0], abs=0.06)
    assert epochs[1] == 1.0 and epochs[3] == 2.0


def test_an_evaluation_is_guessed_to_take_a_share_of_training(make_case) -> None:
    """A row needs one pass forward, where training it needs about two, or four with FGM."""
    for epsilon, passes in ((0.0, 2), (0.2, 4)):
        for way in ({"batch_size": 5}, {"batch_tokens": 200}):
            evaluator = make_case(fgm_epsilon=epsilon, **way).trainer().evaluator
            rows = len(evaluator.valid)
            expected = rows / evaluator.order.mean_rows / passes
            assert evaluator.cost_in_batches() == pytest.approx(expected)
            if "batch_size" in way:
                assert expected == pytest.approx(rows / 5 / passes, rel=0.1)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Predicting, memory is full above 100 tokens. Gives a list of the tokens that were tried."""
    seen: list[int] = []
    forward = PooledModel.forward

    def limited(model, input_ids, attention_mask):
        if not model.training:
            seen.append(input_ids.numel())
            if input_ids.numel() > 100:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return forward(model, input_ids, attention_mask)

    monkeypatch.setattr(PooledModel, "forward", limited)
    return seen


def test_what_memory_holds_is_found_out_once_for_all_evaluations_and_folds(
    make_case, little_memory, capsys
) -> None:
    case = make_case(epochs=2, fgm_epsilon=0, eval_batch_tokens=400)
    assert case.cross_validate().finished_folds() == [0, 1]
    lines = [line for line in capsys.readouterr().out.splitlines() if "memory is full" in line]
    assert [line.split(" with ")[2] for line in lines] == [
        "192 tokens at a time",
        "128 tokens at a time",
        "64 tokens at a time",
    ]
    first_fit = next(at for at, tokens in enumerate(little_memory) if tokens <= 100)
    assert max(little_memory[first_fit:]) <= 100 and len(little_memory) > 4 * 20


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


def test_outputs_by_token_are_those_of_each_row_alone_in_the_rows_order(make_spelling_case) -> None:
    trainer = make_spelling_case(max_passes=2).trainer()
    evaluator = trainer.evaluator
    valid = list(evaluator.valid)
    assert len({len(example.input_ids) for example in valid}) > 1
    together = evaluator.predict(trainer.model)
    alone = []
    for example in valid:
        evaluator.valid = [example]
        alone.append(evaluator.predict(trainer.model))
    assert [len(rows) for rows in alone] == [len(example.input_ids) for example in valid]
    assert together.shape == (sum(map(len, alone)), 2 * WIDTH)
    expected = np.concatenate(alone)
    assert np.allclose(together[:, ::WIDTH], expected[:, ::WIDTH], atol=1e-5)
    assert (together[:, 1::WIDTH] == expected[:, 1::WIDTH]).mean() > 0.99  # but for near ties


def test_the_score_of_corrections_counts_texts_not_windows(make_spelling_case) -> None:
    trainer = make_spelling_case(keep="best").trainer()
    line = trainer.evaluator.evaluate(trainer.state)
    assert "correction_f1 0." in line and "best so far" in line
    texts = {example.row for example in trainer.evaluator.valid}
    oof = trainer.task.oof_frame(trainer.evaluator.valid, trainer.state.predictions)
    assert len(oof) == len(texts) < len(trainer.evaluator.valid)
    record = trainer.state.progress.history[-1]["scores"]
    assert list(record) == ["correction_f1", "detection_f1", "official_f1", "fpr"]
    assert record == trainer.task.scores(oof)
