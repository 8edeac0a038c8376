"""The mean of the weights: its numbers, where it is used, and that training never sees it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.distributed import World
from kernel_lib.training.averaging import WeightAverage
from kernel_lib.training.prediction import TimeIsUp
from tests.conftest import Case
from tests.test_state import stop_after, without_seconds

WAYS = [
    {"averaging": "ema", "ema_decay": 0.6},
    {"averaging": "swa", "swa_start": 0.4},
]


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters()}


def noting_weights(trainer, *, skipped: int | None = None) -> list[dict[str, torch.Tensor]]:
    """Fills with the weights before the first update and after each; one may be overflowing."""
    noted = [weights(trainer)]
    update = trainer.updater.update

    def noting(*args):
        gone_wrong = len(noted) - 1 == skipped
        handle = trainer.model.head.weight.register_hook(
            lambda gradient: gradient * (math.nan if gone_wrong else 1.0)
        )
        loss = update(*args)
        handle.remove()
        noted.append(weights(trainer))
        return loss

    trainer.updater.update = noting
    return noted


def mean_by_hand(settings, noted: list[torch.Tensor], skipped: int | None) -> np.ndarray:
    """In float64, as the papers have it; ``noted`` begins with the weights before all updates."""
    happened = [number for number in range(len(noted)) if skipped is None or number != skipped + 1]
    values = [noted[number].double().numpy() for number in happened]
    if settings.averaging == "swa":
        start = round(settings.swa_start * (len(noted) - 1))
        past = [value for number, value in zip(happened, values, strict=True) if number > start]
        return np.mean(past, axis=0)
    mean = values[0]
    for number, value in enumerate(values[1:], 1):
        decay = min(settings.ema_decay, (1 + number) / (10 + number))
        mean = decay * mean + (1 - decay) * value
    return mean


@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("skipped", [None, 1, 6])
def test_the_mean_is_that_of_the_papers_and_is_kept(make_case, way, skipped) -> None:
    case = make_case(**way, batch_size=2, epochs=2, gradient_accumulation_steps=2, fgm_epsilon=0.0)
    trainer = case.trainer()
    noted = noting_weights(trainer, skipped=skipped)
    result = trainer.train()
    assert trainer.state.progress.updates == len(noted) - 1 - (skipped is not None) >= 8
    kept = weights(trainer)
    for name, value in kept.items():
        by_hand = mean_by_hand(case.task.settings, [w[name] for w in noted], skipped)
        assert np.allclose(value.numpy(), by_hand, atol=2e-7, rtol=1e-5), name
    assert not torch.allclose(kept["head.weight"], noted[-1]["head.weight"], atol=1e-5)
    predictions = trainer.evaluator.predict(trainer.model)
    assert np.array_equal(predictions, trainer.state.predictions)
    assert result.scores == trainer.task.scores(result.oof)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_training_goes_on_with_its_own_weights_bit_for_bit(make_case, tmp_path, way) -> None:
    noted = []
    for number, changes in enumerate(({}, way)):
        case = make_case(
            **changes, evals_per_epoch=3, batch_size=4, output_dir=str(tmp_path / f"{number}")
        )
        trainer = case.trainer()
        noted.append(noting_weights(trainer))
        trainer.train()
    assert len(noted[0]) > 5
    for plain, averaged in zip(*noted, strict=True):
        for name, value in plain.items():
            assert torch.equal(value, averaged[name]), name


def test_before_swa_begins_the_plain_weights_are_evaluated(make_case, tmp_path: Path) -> None:
    changes = {"epochs": 2, "evals_per_epoch": 2, "batch_size": 4}
    plain = make_case(**changes, output_dir=str(tmp_path / "plain")).trainer().train()
    swa = make_case(
        **changes, averaging="swa", swa_start=0.5, output_dir=str(tmp_path / "swa")
    ).trainer()
    result = swa.train()
    same = [
        one["scores"] == other["scores"]
        for one, other in zip(plain.history, result.history, strict=True)
    ]
    assert same == [True, True, False, False]


def test_the_last_update_counts_however_late_swa_begins(make_case) -> None:
    trainer = make_case(averaging="swa", swa_start=0.999).trainer()
    trainer.train()
    assert trainer.state.average.has_begun


def test_skipped_updates_do_not_put_off_swa_until_it_is_too_late(make_case) -> None:
    """Of 100 planned, the mean is of those past the 98th, though 3 before it were skipped."""
    settings = make_case(averaging="swa", swa_start=0.98).task.settings
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, settings, 100)
    for updates in range(1, 98):
        with torch.no_grad():
            model.weight.fill_(updates)
        average.count(updates, skipped=3 if updates > 50 else 0)
        assert average.has_begun == (updates >= 96)
    assert float(average.tensors()["weight"]) == 96.5


def test_best_weights_are_means_too(make_case) -> None:
    case = make_case(
        averaging="ema", ema_decay=0.9, keep="best", epochs=4, learning_rate=2e-2,
        head_learning_rate=2e-2,
    )  # fmt: skip
    trainer = case.trainer()
    means = []
    evaluate = trainer.evaluator.evaluate

    def noting(state):
        line = evaluate(state)
        means.append({k: v.clone() for k, v in state.average.tensors().items()})
        return line

    trainer.evaluator.evaluate = noting
    result = trainer.train()
    scores = [record["scores"]["mcrmse"] for record in result.history]
    best = means[int(np.argmin(scores))]
    for name, value in weights(trainer).items():
        assert torch.equal(value, best[name]), name


@pytest.mark.parametrize("error", [TimeIsUp(1.0), KeyboardInterrupt()])
def test_an_evaluation_that_ends_early_leaves_the_weights_as_they_were(make_case, error) -> None:
    trainer = make_case(averaging="ema").trainer()
    with torch.no_grad():
        trainer.model.head.bias += 1.0
    before, seen = weights(trainer), []

    def ending(model, clock):
        seen.append(weights(trainer))
        raise error

    trainer.evaluator.predict = ending
    with pytest.raises(type(error)):
        trainer.evaluator.evaluate(trainer.state)
    assert not torch.equal(seen[0]["head.bias"], before["head.bias"])
    for name, value in before.items():
        assert torch.equal(value, weights(trainer)[name]), name


@pytest.mark.parametrize(("way", "keep"), [(WAYS[0], "best"), (WAYS[1], "last")], ids=str)
def test_resumed_equals_unbroken(make_case, tmp_path: Path, way, keep: str) -> None:
    changes = {
        **way, "keep": keep, "dropout": 0.2, "batch_size": 4, "epochs": 2, "evals_per_epoch": 2,
        "fgm_epsilon": 0.0, "pretrained_weight_decay": 0.3, "unfreeze_ratio": 0.4,
    }  # fmt: skip
    unbroken = make_case(**changes, output_dir=str(tmp_path / "a")).trainer()
    expected = unbroken.train()
    case = make_case(**changes, output_dir=str(tmp_path / "b"))
    for steps in (2, 1, 3):
        trainer = case.trainer()
        stop_after(trainer, steps)
        assert trainer.train() is None
        torch.manual_seed(999)
    resumed = case.trainer()
    result = resumed.train()
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert result.oof.equals(expected.oof)
    assert without_seconds(result.history) == without_seconds(expected.history)


def test_all_processes_begin_their_means_with_the_first_ones_weights(
    make_case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a process that is not the first: its own weights are written over at the start."""

    def overwrite(world, tensors) -> None:
        for tensor in tensors:
            tensor.fill_(0.25)

    monkeypatch.setattr(World, "copy_first_", overwrite)
    case = make_case(averaging="ema", pretrained_weight_decay=0.3, mixout_probability=0.5)
    trainer = case.trainer()
    mixed = [b for name, b in trainer.model.named_buffers() if name.endswith(".pretrained")]
    assert mixed and all(bool((buffer == 0.25).all()) for buffer in mixed)
    assert all(bool((mean == 0.25).all()) for mean in trainer.state.average.tensors().values())
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    (pull,) = trainer.state.optimizer._optimizer_step_pre_hooks.values()
    pull(trainer.state.optimizer, (), {})
    assert all(bool((value == 0.25).all()) for value in weights(trainer).values())


def test_only_what_is_trained_has_a_mean(make_case) -> None:
    trainer = make_case(averaging="swa", freeze_layers=1, freeze_embeddings=True).trainer()
    average = trainer.state.average
    assert average.tensors() == {}  # nothing to save before it begins
    average.count(10_000)
    trained = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert (
        set(average.tensors()) - {"counted"}
        == trained
        < {n for n, _ in trainer.model.named_parameters()}
    )


def test_without_averaging_there_is_none(make_case, tmp_path: Path) -> None:
    trainer = make_case().trainer()
    assert trainer.state.average is None
    trainer.state.save(tmp_path / "state", "run")
    assert not [name for name in load_file(tmp_path / "state") if name.startswith("average.")]


def test_weights_of_16_bits_have_a_mean_of_32(make_case) -> None:
    settings = make_case(averaging="ema", ema_decay=0.9).task.settings
    model = torch.nn.Linear(3, 2).bfloat16()
    average = WeightAverage(model, settings, 10)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.fill_(1.0)
    average.count(1)
    expected = 2 / 11 * start.double() + 9 / 11
    assert torch.allclose(average.tensors()["weight"].double(), expected, atol=1e-6)
    with average.in_place():
        assert model.weight.dtype == torch.bfloat16
        assert torch.equal(model.weight, expected.float().bfloat16())
    assert torch.equal(model.weight, torch.ones(2, 3, dtype=torch.bfloat16))


def test_a_mean_of_another_model_is_refused(make_case) -> None:
    average = make_case(averaging="ema").trainer().state.average
    tensors = average.tensors()
    tensors["another"] = tensors.pop("head.weight")
    with pytest.raises(ArtifactError, match=r"another, head\.weight.* Delete"):
        average.load(tensors)


ALL = {
    "averaging": "ema", "ema_decay": 0.9, "rate_group_factor": 2.6, "head_only_ratio": 0.1,
    "unfreeze_ratio": 0.3, "pretrained_weight_decay": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("maker", ["make_spelling_case", "make_entity_case"])
def test_other_tasks_train_with_all_of_it(request, maker: str) -> None:
    case: Case = request.getfixturevalue(maker)(**ALL, folds=(0,), batch_size=16)
    run = case.cross_validate()
    assert run.finished_folds() == [0]
