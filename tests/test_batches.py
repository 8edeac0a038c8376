"""Batches: every row once, little padding, orders that repeat."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernel_lib.text.batches import (
    Batch,
    Example,
    collate,
    encode_texts,
    inference_batches,
    training_batches,
)


def lengths_like_essays(rows: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(6.05, 0.45, size=rows), 30, 1500).astype(int)


def waste(batches: list[np.ndarray], lengths: np.ndarray) -> float:
    """Padded positions and tokens together, for each token."""
    return sum(lengths[b].max() * len(b) for b in batches) / lengths.sum()


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 400, 401, 1003])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_every_row_comes_exactly_once_and_the_last_partial_batch_is_kept(rows, batch_size) -> None:
    lengths = lengths_like_essays(rows)
    for batches in (
        training_batches(lengths, batch_size=batch_size, seed=(1, 2, 3)),
        inference_batches(lengths, batch_size=batch_size),
    ):
        assert sorted(np.concatenate(batches)) == list(range(rows))
        assert len(batches) == -(-rows // batch_size)
        assert max(map(len, batches)) <= batch_size


def test_no_rows_make_no_batches() -> None:
    assert training_batches([], batch_size=8, seed=(0,)) == []
    assert inference_batches([], batch_size=8) == []


def test_batches_are_of_like_length() -> None:
    lengths = lengths_like_essays(1600)
    order = np.random.default_rng(0).permutation(1600)
    random = [order[at : at + 8] for at in range(0, 1600, 8)]
    assert waste(random, lengths) > 1.3
    assert waste(training_batches(lengths, batch_size=8, seed=(0, 0, 0)), lengths) < 1.05
    assert waste(inference_batches(lengths, batch_size=8), lengths) < 1.05


def test_the_order_is_fixed_by_the_seed_and_new_in_every_epoch_and_fold() -> None:
    lengths = lengths_like_essays(200)

    def order(*seed: int) -> list[int]:
        return np.concatenate(training_batches(lengths, batch_size=8, seed=seed)).tolist()

    assert order(42, 0, 0) == order(42, 0, 0)
    seeds = [(42, 0, 0), (42, 0, 1), (42, 0, 2), (42, 1, 0), (43, 0, 0)]
    assert len({tuple(order(*seed)) for seed in seeds}) == len(seeds)


def test_batches_hold_other_rows_together_in_every_epoch() -> None:
    """With one global sort the same neighbours would meet in every epoch."""
    lengths = lengths_like_essays(1600)
    epochs = [
        {frozenset(b.tolist()) for b in training_batches(lengths, batch_size=8, seed=(0, epoch))}
        for epoch in range(2)
    ]
    assert len(epochs[0] & epochs[1]) < 0.02 * len(epochs[0])


def test_training_does_not_go_from_short_to_long() -> None:
    lengths = lengths_like_essays(1600)
    means = [lengths[b].mean() for b in training_batches(lengths, batch_size=8, seed=(0,))]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_inference_begins_with_the_longest() -> None:
    lengths = lengths_like_essays(100)
    batches = inference_batches(lengths, batch_size=8)
    assert lengths[batches[0]].min() >= lengths[batches[1]].max()
    assert lengths[np.concatenate(batches)].tolist() == sorted(lengths, reverse=True)


def test_global_random_states_are_not_touched() -> None:
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    training_batches([5] * 20, batch_size=4, seed=(0,))
    assert np.random.random() == expected


def example(length: int, target=None) -> Example:
    return Example("id", np.arange(1, length + 1, dtype=np.int64), target)


@pytest.mark.parametrize(
    ("lengths", "width"), [((3, 5), 8), ((8, 2), 8), ((9, 16, 1), 16), ((1,), 8)]
)
def test_padding_goes_to_the_next_multiple_of_eight_under_a_mask(lengths, width: int) -> None:
    batch = collate([example(length) for length in lengths], pad_id=77)
    assert batch.input_ids.shape == batch.attention_mask.shape == (len(lengths), width)
    assert batch.input_ids.dtype == batch.attention_mask.dtype == torch.int64
    for row, length in enumerate(lengths):
        assert batch.input_ids[row, :length].tolist() == list(range(1, length + 1))
        assert (batch.input_ids[row, length:] == 77).all()
        assert batch.attention_mask[row].tolist() == [1] * length + [0] * (width - length)
    assert len(batch) == len(lengths)


def test_targets_stay_with_their_rows_and_are_absent_at_inference() -> None:
    targets = [np.array([1.5, 2.0], np.float32), np.array([4.0, 5.0], np.float32)]
    batch = collate([example(4, targets[0]), example(9, targets[1])], pad_id=0)
    assert batch.targets is not None and batch.targets.dtype == torch.float32
    assert batch.targets.tolist() == [[1.5, 2.0], [4.0, 5.0]]
    assert collate([example(4)], pad_id=0).targets is None


def test_a_batch_moves_as_a_whole() -> None:
    batch = collate([example(4, np.ones(2, np.float32))], pad_id=0).to(torch.device("meta"))
    assert isinstance(batch, Batch)
    assert batch.targets is not None
    assert {t.device.type for t in (batch.input_ids, batch.attention_mask, batch.targets)} == {
        "meta"
    }


def test_texts_are_encoded_in_order_over_many_chunks(material) -> None:
    from kernel_lib.text.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(material.backbone, keep_newlines=True)
    texts = [f"essay {number}" for number in range(600)]
    encoded = encode_texts(tokenizer, texts, max_length=32)
    assert all(row.dtype == np.int64 for row in encoded)
    assert [row.tolist() for row in encoded] == [tokenizer(text)["input_ids"] for text in texts]
