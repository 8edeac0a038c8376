"""Which rows meet in a batch: every row once, little padding, orders that repeat."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from kernel_lib.text.batches import padded_length
from kernel_lib.text.order import TrainingOrder, cut_by_tokens, inference_batches
from tests.test_update import gradients_at_step

WAYS = [{"batch_size": 1}, {"batch_size": 8}, {"batch_tokens": 1}, {"batch_tokens": 4096}]


def lengths_like_essays(rows: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(6.05, 0.45, size=rows), 30, 1500).astype(int)


def make_order(lengths, *, epochs: int = 3, seed=(1, 2), **way) -> TrainingOrder:
    return TrainingOrder(lengths, **{"batch_size": 8, **way}, epochs=epochs, seed=seed)


def tokens(batch: np.ndarray, lengths: np.ndarray) -> int:
    return len(batch) * padded_length(int(lengths[batch].max()))


def waste(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Padded positions and tokens together, for each token."""
    return sum(lengths[b].max() * len(b) for b in batches) / lengths.sum()


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 400, 401, 1003])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_row_comes_exactly_once_an_epoch_and_the_last_partial_batch_is_kept(
    rows: int, way
) -> None:
    lengths = lengths_like_essays(rows)
    order = make_order(lengths, **way)
    for epoch in range(3):
        batches = order.batches(epoch)
        assert sorted(np.concatenate(batches)) == list(range(rows))
        assert order.counts[epoch] == len(batches)
        if "batch_size" in way:
            assert len(batches) == -(-rows // way["batch_size"])
            assert max(map(len, batches)) <= way["batch_size"]


@pytest.mark.parametrize("budget", [1, 1000, 4096, 30_000])
def test_no_batch_has_more_tokens_than_it_may_unless_it_is_one_row(budget: int) -> None:
    lengths = lengths_like_essays(1003)
    order = make_order(lengths, batch_tokens=budget)
    for batches in (order.batches(0), inference_batches(lengths, batch_tokens=budget)):
        assert sorted(np.concatenate(batches)) == list(range(1003))
        assert all(len(b) == 1 or tokens(b, lengths) <= budget for b in batches)
        filled = sum(tokens(b, lengths) for b in batches) / (budget * len(batches))
        assert budget < 1500 or filled > 0.85


def test_a_budget_counts_the_padding_to_eight() -> None:
    rows = np.arange(4)
    assert [len(b) for b in cut_by_tokens(rows, [17] * 4, 48)] == [2, 2]
    assert [len(b) for b in cut_by_tokens(rows, [17] * 4, 47)] == [1, 1, 1, 1]
    assert [len(b) for b in cut_by_tokens(rows, [24, 24, 8, 8], 48)] == [2, 2]
    assert [len(b) for b in cut_by_tokens(rows, [24, 8, 8, 8], 24)] == [1, 3]


def test_no_rows_make_no_batches() -> None:
    for way in ({}, {"batch_tokens": 100}):
        order = make_order([], **way)
        assert order.batches(0) == [] and order.counts == (0, 0, 0)
    assert inference_batches([], batch_tokens=8) == []


@pytest.mark.parametrize("way", [{"batch_size": 8}, {"batch_tokens": 4096}], ids=str)
def test_batches_are_of_like_length(way) -> None:
    lengths = lengths_like_essays(1600)
    order = np.random.default_rng(0).permutation(1600)
    random = [order[at : at + 8] for at in range(0, 1600, 8)]
    assert waste(random, lengths) > 1.3
    assert waste(make_order(lengths, **way).batches(0), lengths) < 1.05
    assert waste(inference_batches(lengths, batch_tokens=4096), lengths) < 1.05


@pytest.mark.parametrize("way", [{"batch_size": 8}, {"batch_tokens": 4096}], ids=str)
def test_the_order_is_fixed_by_the_seed_and_new_in_every_epoch_and_fold(way) -> None:
    lengths = lengths_like_essays(200)

    def order(epoch: int, *seed: int) -> list[int]:
        batches = make_order(lengths, seed=seed, **way).batches(epoch)
        return np.concatenate(batches).tolist()

    assert order(0, 42, 0) == order(0, 42, 0)
    different = {tuple(order(epoch, 42, 0)) for epoch in range(3)}
    different |= {tuple(order(0, 42, 1)), tuple(order(0, 43, 0))}
    assert len(different) == 5


def test_the_order_by_rows_is_that_of_earlier_releases() -> None:
    """A fold that one of them began goes on where it stopped."""
    batches = make_order(lengths_like_essays(1003), seed=(42, 3), epochs=5).batches(4)
    flat = np.concatenate(batches).astype(np.int64)
    digest = hashlib.sha256(flat.tobytes()).hexdigest()
    assert digest[:16] == "528966d77f5b3203"


@pytest.mark.parametrize("way", [{"batch_size": 8}, {"batch_tokens": 4096}], ids=str)
def test_batches_hold_other_rows_together_in_every_epoch(way) -> None:
    """With one global sort the same neighbours would meet in every epoch."""
    order = make_order(lengths_like_essays(1600), **way)
    epochs = [{frozenset(b.tolist()) for b in order.batches(epoch)} for epoch in range(2)]
    assert len(epochs[0] & epochs[1]) < 0.02 * len(epochs[0])


@pytest.mark.parametrize("way", [{"batch_size": 8}, {"batch_tokens": 4096}], ids=str)
def test_training_does_not_go_from_short_to_long(way) -> None:
    lengths = lengths_like_essays(1600)
    means = [lengths[b].mean() for b in make_order(lengths, **way).batches(0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_the_batches_of_each_epoch_are_counted_beforehand() -> None:
    """Cut by tokens their number hangs on the shuffle: for some rows, at least."""
    order = make_order(lengths_like_essays(1003), batch_tokens=4096, epochs=12)
    assert list(order.counts) == [len(order.batches(epoch)) for epoch in range(12)]
    assert len(set(order.counts)) > 1
    assert order.mean_rows == pytest.approx(1003 * 12 / sum(order.counts))


def test_inference_begins_with_the_longest() -> None:
    lengths = lengths_like_essays(100)
    batches = inference_batches(lengths, batch_tokens=4096)
    assert lengths[batches[0]].min() >= lengths[batches[1]].max()
    assert lengths[np.concatenate(batches)].tolist() == sorted(lengths, reverse=True)


def test_global_random_states_are_not_touched() -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    make_order([5] * 20).batches(0)
    assert np.random.random() == expected


@pytest.mark.parametrize("accumulated", [1, 3])
def test_cut_by_tokens_every_row_weighs_the_same_in_an_epoch(make_case, accumulated: int) -> None:
    """The updates' gradients of an epoch add up to a known multiple of that of the mean loss."""
    case = make_case(
        batch_tokens=100,
        gradient_accumulation_steps=accumulated,
        fgm_epsilon=0,
        max_grad_norm=1e9,
        learning_rate=1e-30,  # the weights stay where they are
        head_learning_rate=1e-30,
        weight_decay=0,
        epochs=2,
    )
    case.examples[:] = [
        type(e)(e.id, e.input_ids[: 5 + 3 * (number % 20)], e.target)
        for number, e in enumerate(case.examples)
    ]
    trainer = case.trainer()
    groups = trainer._accumulation_groups(1)
    assert len({sum(map(len, group)) for group in groups}) > 2  # of unlike numbers of rows
    seen = gradients_at_step(trainer)
    rows = len(trainer.train_examples)
    losses = [trainer.updater.update(group, None) for group in groups]
    total = [sum(seen[at :: len(seen) // len(groups)]) for at in range(len(seen) // len(groups))]

    whole = case.trainer()
    whole.updater.rows_per_update = None
    expected = gradients_at_step(whole)
    mean_loss = whole.updater.update([np.arange(rows)], None)
    scale = rows / (trainer.order.mean_rows * accumulated)
    assert scale == pytest.approx(sum(trainer.order.counts) / 2 / accumulated)
    for a, b in zip(total, expected, strict=True):
        assert torch.allclose(a, scale * b, atol=1e-5 * scale)
    sizes = [sum(map(len, group)) for group in groups]
    assert np.average(losses, weights=sizes) == pytest.approx(mean_loss, rel=1e-5)
    progress = trainer.state.progress
    assert progress.loss_rows == rows
    assert progress.loss_sum / rows == pytest.approx(mean_loss, rel=1e-5)
