"""A later pass reads what an earlier one changed; what was changed stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.tasks.proposals import WIDTH
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import Example, split_tokens
from kernel_lib.training.passes import predict_in_passes
from kernel_lib.training.prediction import TimeIsUp

CLS, SEP, UNKNOWN, SURE = 1, 2, 3, 10
WRITABLE = range(10, 40)


class Chain(nn.Module):
    """Wants each character right of ``SURE`` to be the next number, so that a correction can only
    follow one to its left: 10 11 12 13 from 10 20 30 31 in three passes."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[list[list[int]]] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        rows = [row[mask > 0] for row, mask in zip(input_ids, attention_mask, strict=True)]
        self.read.append([row.tolist() for row in rows])
        output = torch.zeros(*input_ids.shape, WIDTH)
        output[..., 0] = 0.9
        output[..., 1], output[..., 2] = 30, 0.05
        wanted = input_ids[:, :-1] + 1
        follows = (input_ids[:, :-1] >= SURE) & (input_ids[:, :-1] < 20)
        wrong = follows & (input_ids[:, 1:] != wanted) & (input_ids[:, 1:] > SEP)
        rows_at, places = torch.nonzero(wrong, as_tuple=True)
        output[rows_at, places + 1, 0] = 0.2
        output[rows_at, places + 1, 1] = wanted[wrong].float()
        output[rows_at, places + 1, 2] = 0.7 + places.float() / 100
        return output


class Characters:
    writable = np.isin(np.arange(50), list(WRITABLE))
    unknown_id = UNKNOWN


def make_task(passes: int) -> SpellingTask:
    task = SpellingTask(SpellingSettings(max_passes=passes))
    task._characters = Characters()
    task.predictor = lambda model: model
    return task


def examples_of(*texts: list[int]) -> list[Example]:
    framed = [np.array([CLS, *text, SEP], np.int32) for text in texts]
    return [Example(str(row), ids, row=row) for row, ids in enumerate(framed)]


def run(passes: int, examples: list[Example], **options: Any) -> tuple[np.ndarray, Chain]:
    model = Chain()
    found = predict_in_passes(
        make_task(passes),
        model,
        examples,
        pad_id=0,
        batch_tokens=64,
        device=torch.device("cpu"),
        precision=Precision("float32", "cpu"),
        **options,
    )
    return found, model


CHAIN = [10, 20, 30, 31]
CLEAN = [30, 31, 32, 33, 34]


def changed(values: np.ndarray) -> list[tuple[int, int]]:
    """Places and new numbers."""
    places = np.flatnonzero(values[:, 2] > values[:, 0])
    return [(int(at), int(values[at, 1])) for at in places]


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_each_pass_reads_what_the_passes_before_have_changed(passes: int) -> None:
    examples = examples_of(CLEAN, CHAIN, [], [12, 20])
    found, model = run(passes, examples)
    assert found.shape == (7 + 6 + 2 + 4, passes * WIDTH) and found.dtype == np.float32
    clean, chain, empty, short = split_tokens(found, examples)
    one, two, three = (2, 11), (3, 12), (4, 13)
    expected = [[one], [one, two], [one, two, three], [one, two, three]][:passes]
    blocks = [slice(first, first + WIDTH) for first in range(0, passes * WIDTH, WIDTH)]
    assert [changed(chain[:, block]) for block in blocks] == expected
    assert [changed(short[:, block]) for block in blocks] == [[(2, 13)]] * passes
    for block in blocks[1:]:  # what is not read again is the same in all
        assert np.array_equal(clean[:, block], clean[:, :WIDTH])
        assert np.array_equal(empty[:, block], empty[:, :WIDTH])
        assert np.array_equal(chain[2, block], chain[2, :WIDTH])  # with its first probability
    later = sorted(row for batch in model.read[1:] for row in batch)
    texts = [[CLS, 10, 11, 30, 31, SEP], [CLS, 10, 11, 12, 31, SEP], [CLS, 10, 11, 12, 13, SEP]]
    assert [row for row in later if len(row) == 6] == sorted(texts[: passes - 1])
    assert sum(len(row) == 7 for row in later) == 0


def test_the_examples_are_not_changed_and_the_order_of_rows_does_not_matter() -> None:
    examples = examples_of(CHAIN, CLEAN, [12, 20])
    before = [example.input_ids.copy() for example in examples]
    found, _ = run(3, examples)
    assert all(np.array_equal(a, e.input_ids) for a, e in zip(before, examples, strict=True))
    turned, _ = run(3, examples[::-1])
    pairs = zip(
        split_tokens(found, examples), split_tokens(turned, examples[::-1])[::-1], strict=True
    )
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_nothing_is_read_again_when_nothing_was_changed() -> None:
    found, model = run(3, examples_of(CLEAN, [30]))
    assert len(model.read) == 1 and found.shape[1] == 3 * WIDTH
    assert np.array_equal(found[:, :WIDTH], found[:, 2 * WIDTH :])


def test_only_characters_that_may_be_changed_are_read_as_changed() -> None:
    found, model = run(2, examples_of([10, 5, 5]))  # 5 is no Chinese character
    assert changed(found[:, :WIDTH]) == [(2, 11)] and len(model.read) == 1


def test_the_bar_moves_in_the_first_pass_only_and_the_clock_is_asked_in_all() -> None:
    class Bar:
        moved = 0

        def update(self, count: int) -> None:
            self.moved += count

    bar = Bar()
    run(3, examples_of(CHAIN, CLEAN), bar=bar)
    assert bar.moved == 2
    moments = iter(range(100))
    clock = Clock(4.5, now=lambda: next(moments))
    with pytest.raises(TimeIsUp):
        run(3, examples_of(CHAIN), clock=clock)


def test_a_task_of_one_pass_is_not_asked_what_to_read_again() -> None:
    task = make_task(1)
    task.read_again = None
    predict_in_passes(
        task,
        Chain(),
        examples_of(CHAIN),
        pad_id=0,
        batch_tokens=8,
        device=torch.device("cpu"),
        precision=Precision("float32", "cpu"),
    )
