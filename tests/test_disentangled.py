"""The arithmetic of disentangled attention, against the formula written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kernel_lib.model import disentangled
from kernel_lib.model.disentangled import DisentangledAttention, distances, skewed, windows

HEADS, SIZE = 2, 3


def made_up(
    batch: int, seq_len: int, *, keys: bool = True, queries: bool = True
) -> list[Tensor | None]:
    torch.manual_seed(seq_len)
    content = [torch.randn(batch, HEADS, seq_len, SIZE, dtype=torch.float64) for _ in range(3)]
    tables = [torch.randn(HEADS, 2 * seq_len - 1, SIZE, dtype=torch.float64) for _ in range(2)]
    wanted = [
        *content,
        *(table if there else None for table, there in zip(tables, (keys, queries), strict=True)),
    ]
    return [None if tensor is None else tensor.requires_grad_() for tensor in wanted]


def by_the_formula(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    position_keys: Tensor | None,
    position_queries: Tensor | None,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    seq_len = query.shape[2]
    scores = query @ key.mT
    middle = seq_len - 1
    for i in range(seq_len):
        for j in range(seq_len):
            extra = torch.zeros(query.shape[:2], dtype=query.dtype)
            if position_keys is not None:
                extra = extra + (query[:, :, i] * position_keys[:, middle + j - i]).sum(-1)
            if position_queries is not None:
                extra = extra + (key[:, :, j] * position_queries[:, middle + i - j]).sum(-1)
            place = torch.zeros(seq_len, seq_len, dtype=query.dtype)
            place[i, j] = 1
            scores = scores + extra[..., None, None] * place
    scores = scores * scale
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None], torch.finfo(scores.dtype).min)
    return torch.softmax(scores, -1) @ value


def gradients(output: Tensor, tensors: list[Tensor | None]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
    there = [tensor for tensor in tensors if tensor is not None]
    return list(torch.autograd.grad((output * weights).sum(), there))


def test_the_skewed_view_puts_each_distance_in_its_place() -> None:
    seq_len, block = 5, 2
    table = torch.arange(2 * seq_len - 1)
    found = torch.cat(
        [
            skewed(table[window].expand(rows.stop - rows.start, -1).contiguous(), seq_len)
            for rows, window in windows(seq_len, block)
        ]
    )
    positions = torch.arange(seq_len)
    behind = positions[None, :] - positions[:, None]
    assert distances(seq_len, torch.device("cpu"))[found].equal(behind)


@pytest.mark.parametrize("sizes", [(1, 128), (1, 3), (3, 7)], ids=["whole", "blocks", "at once"])
@pytest.mark.parametrize(("keys", "queries"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("padded", [False, True])
def test_outputs_and_gradients_are_those_of_the_formula(
    monkeypatch: pytest.MonkeyPatch,
    sizes: tuple[int, int],
    keys: bool,
    queries: bool,
    padded: bool,
) -> None:
    monkeypatch.setattr(disentangled, "_sizes", lambda query: sizes)
    mask = torch.ones(3, 7, dtype=torch.bool)
    if padded:
        mask[1, 4:] = mask[2, 1:] = False
    tensors = made_up(3, 7, keys=keys, queries=queries)
    expected = by_the_formula(*tensors, mask, 0.4)
    found = DisentangledAttention.apply(*tensors, mask, 0.4, 0.0)
    torch.testing.assert_close(found, expected)
    for one, other in zip(gradients(found, tensors), gradients(expected, tensors), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("seq_len", [1, 2])
def test_the_shortest_texts(seq_len: int) -> None:
    tensors = made_up(2, seq_len)
    found = DisentangledAttention.apply(*tensors, None, 1.0, 0.0)
    torch.testing.assert_close(found, by_the_formula(*tensors, None, 1.0))


def test_a_text_without_a_token_sees_all_alike() -> None:
    tensors = made_up(2, 4)
    mask = torch.tensor([[True] * 4, [False] * 4])
    found = DisentangledAttention.apply(*tensors, mask, 1.0, 0.0)
    value = tensors[2]
    assert value is not None
    torch.testing.assert_close(found[1], value[1].mean(1, keepdim=True).expand(-1, 4, -1))


def test_gradients_with_dropout_are_those_of_finite_differences() -> None:
    tensors = made_up(2, 5)

    def attend(*given: Tensor) -> Tensor:
        torch.manual_seed(7)  # the same weights are dropped each time
        result: Tensor = DisentangledAttention.apply(*given, None, 0.5, 0.4)
        return result

    assert torch.autograd.gradcheck(attend, tensors)


def test_dropout_drops_so_many_weights_and_keeps_the_mean() -> None:
    seq_len, dropout = 64, 0.25
    flat = torch.zeros(4, HEADS, seq_len, SIZE)
    ones = torch.ones(4, HEADS, seq_len, SIZE)
    torch.manual_seed(0)
    found = DisentangledAttention.apply(flat, flat, ones, None, None, None, 1.0, dropout)
    kept = found[..., 0] * seq_len * (1 - dropout)  # of 64 equal weights in each row
    torch.testing.assert_close(kept, kept.round(), atol=1e-4, rtol=0)
    expected, rows = seq_len * (1 - dropout), kept.numel()
    error = math.sqrt(seq_len * dropout * (1 - dropout) / rows)
    assert abs(float(kept.mean()) - expected) < 4 * error


def test_tables_gather_their_gradients_in_float32() -> None:
    """Added up in bf16, 400 small ones would end at 256 times the first."""
    batch = 400
    content = torch.full((batch, 1, 1, 1), 1.0, dtype=torch.bfloat16)
    two = torch.cat([content, -content], 2)
    table = torch.zeros(1, 3, 1, dtype=torch.bfloat16, requires_grad=True)
    query = torch.ones_like(two)
    output = DisentangledAttention.apply(query, two * 0, two, table, None, None, 1.0, 0.0)
    output[:, :, 0].sum().backward()
    assert table.grad is not None
    single = DisentangledAttention.apply(
        query[:1], two[:1] * 0, two[:1], table, None, None, 1.0, 0.0
    )
    (one,) = torch.autograd.grad(single[:, :, 0].sum(), table)
    torch.testing.assert_close(table.grad.float(), one.float() * batch, rtol=0.01, atol=0)
