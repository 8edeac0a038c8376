"""Batches: padded under a mask, moved as a whole, made ahead for a GPU and only for a GPU."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from kernel_lib.text.batches import (
    IGNORE,
    Batch,
    Example,
    by_window,
    collate,
    collate_to,
    cut_texts,
    encode_texts,
    prefetched,
    split_tokens,
)

NEEDS_A_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def example(length: int, target=None) -> Example:
    return Example("id", np.arange(1, length + 1, dtype=np.int32), target)


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
    assert all(row.dtype == np.int32 for row in encoded)  # half the memory; a vocabulary fits
    assert [row.tolist() for row in encoded] == [tokenizer(text)["input_ids"] for text in texts]


TEXTS = [
    "",
    "\n",
    "One line.",
    "A first paragraph of some words.\n\nA second one,\r\nwith a line break.\n" * 4,
    "\n".join(f"line {number}" for number in range(60)),
    "naïve “quotes” 纠错 ½ e\u0301 " * 12,
]


@pytest.mark.parametrize("keep_newlines", [True, False])
@pytest.mark.parametrize("length", [8, 9, 16, 31, 64])
def test_a_text_that_is_cut_is_as_it_would_have_been_encoded_at_that_length(
    material, length: int, keep_newlines: bool
) -> None:
    from kernel_lib.text.tokenizer import build_tokenizer

    tokenizer = build_tokenizer(material.backbone, keep_newlines=keep_newlines)
    whole = [
        Example(str(row), ids, np.ones(2, np.float32), row=row)
        for row, ids in enumerate(encode_texts(tokenizer, TEXTS, max_length=256))
    ]
    expected = encode_texts(tokenizer, TEXTS, max_length=length)
    found = cut_texts(whole, length)
    assert [e.input_ids.tolist() for e in found] == [ids.tolist() for ids in expected]
    assert all(e.input_ids.dtype == np.int32 for e in found)
    assert [(e.id, e.row, e.target is w.target) for e, w in zip(found, whole, strict=True)] == [
        (w.id, w.row, True) for w in whole
    ]
    short = [len(e.input_ids) <= length for e in whole]
    assert any(short) and not all(short)
    assert [e is w for e, w in zip(found, whole, strict=True)] == short


def tensors(batch: Batch) -> list[torch.Tensor]:
    assert batch.targets is not None
    return [batch.input_ids, batch.attention_mask, batch.targets]


def some_examples(rows: int) -> list[Example]:
    random = np.random.default_rng(0)
    lengths = random.integers(1, 60, rows)
    return [example(int(n), random.normal(size=2).astype(np.float32)) for n in lengths]


SOME_BATCHES = [np.array([4, 0]), np.array([3, 1, 2]), np.array([5])]


def test_prefetched_batches_are_those_that_collate_makes_in_order() -> None:
    examples = some_examples(6)
    found = list(prefetched(SOME_BATCHES, examples, 7, torch.device("cpu")))
    assert len(found) == len(SOME_BATCHES)
    for rows, batch in zip(SOME_BATCHES, found, strict=True):
        expected = collate([examples[row] for row in rows], 7)
        for a, b in zip(tensors(batch), tensors(expected), strict=True):
            assert torch.equal(a, b)


def test_on_a_cpu_nothing_is_made_before_it_is_asked_for_and_in_no_other_thread() -> None:
    class Watched(list):
        def __getitem__(self, row):
            taken.append((int(row), threading.current_thread()))
            return super().__getitem__(row)

    taken: list = []
    batches = prefetched(SOME_BATCHES, Watched(some_examples(6)), 7, torch.device("cpu"))
    threads = threading.active_count()
    next(batches)
    assert [row for row, _ in taken] == [4, 0]
    assert {thread for _, thread in taken} == {threading.current_thread()}
    assert threading.active_count() == threads


def test_for_a_gpu_the_next_batch_is_made_in_a_thread_while_one_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without one: only the memory is not pinned."""
    made: list[tuple[int, threading.Thread]] = []

    def noting(examples, pad_id, device):
        made.append((len(examples), threading.current_thread()))
        return collate(examples, pad_id)

    monkeypatch.setattr("kernel_lib.text.batches._collate_for", noting)
    threads = threading.active_count()
    batches = prefetched(SOME_BATCHES, some_examples(6), 7, torch.device("cuda", 0))
    found = [next(batches)]
    for _ in range(500):
        if len(made) == 2:
            break
        threading.Event().wait(0.01)
    assert [rows for rows, _ in made] == [2, 3]  # one ahead, and no more
    assert threading.current_thread() not in {thread for _, thread in made}
    found += batches
    assert [len(batch) for batch in found] == [2, 3, 1]
    assert threading.active_count() == threads


def test_a_prefetch_that_is_given_up_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_lib.text.batches._collate_for", lambda some, pad, _: len(some))
    threads = threading.active_count()
    batches = prefetched(SOME_BATCHES, some_examples(6), 7, torch.device("cuda", 0))
    next(batches)
    batches.close()
    assert threading.active_count() == threads


def test_an_error_while_a_batch_is_made_ahead_reaches_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(examples, pad_id, device):
        raise MemoryError("no room")

    monkeypatch.setattr("kernel_lib.text.batches._collate_for", failing)
    with pytest.raises(MemoryError, match="no room"):
        next(prefetched(SOME_BATCHES, some_examples(6), 7, torch.device("cuda", 0)))


def test_collate_to_a_cpu_is_collate() -> None:
    examples = some_examples(4)
    found = collate_to(examples, 7, torch.device("cpu"))
    for a, b in zip(tensors(found), tensors(collate(examples, 7)), strict=True):
        assert torch.equal(a, b) and not a.is_pinned()


@NEEDS_A_GPU
def test_a_gpu_gets_its_batches_from_pinned_memory() -> None:
    device, examples = torch.device("cuda", 0), some_examples(6)
    for rows, batch in zip(
        SOME_BATCHES, prefetched(SOME_BATCHES, examples, 7, device), strict=True
    ):
        assert all(tensor.is_pinned() for tensor in tensors(batch))
        expected = collate([examples[row] for row in rows], 7)
        for a, b in zip(tensors(batch.to(device)), tensors(expected), strict=True):
            assert a.device == device and torch.equal(a.cpu(), b)


def of_tokens(length: int, *, row: int = 0, start: int = 0) -> Example:
    ids = np.arange(1, length + 1, dtype=np.int32)
    return Example("id", ids, ids * 10, row=row, start=start)


def test_targets_of_tokens_are_padded_as_the_tokens_are() -> None:
    batch = collate([of_tokens(3), of_tokens(9)], pad_id=0)
    assert batch.targets is not None and batch.targets.dtype == torch.int64
    assert batch.targets.shape == batch.input_ids.shape == (2, 16)
    assert batch.targets[0].tolist() == [10, 20, 30] + [IGNORE] * 13
    assert batch.targets[1].tolist() == [10 * n for n in range(1, 10)] + [IGNORE] * 7
    assert collate([of_tokens(3), example(3)], pad_id=0).targets is None  # not all have some


def test_a_value_of_a_text_is_that_of_each_of_its_windows() -> None:
    examples = [of_tokens(5, row=0), of_tokens(5, row=1), of_tokens(5, row=1, start=3)]
    assert by_window(np.array([7, 9, 8]), examples).tolist() == [7, 9, 9]
    assert by_window(np.array(["a", "b"]), examples[::-1]).tolist() == ["b", "b", "a"]


def test_tokens_are_split_by_example_without_copying() -> None:
    examples = [of_tokens(length) for length in (2, 5, 1)]
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    parts = split_tokens(values, examples)
    assert [len(part) for part in parts] == [2, 5, 1]
    assert np.array_equal(np.concatenate(parts), values)
    parts[1][:] = -1
    assert (values[2:7] == -1).all() and (values[[0, 1, 7]] >= 0).all()
