"""Every pooling against a computation row by row without padding, and untouched by padding."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from torch import Tensor

from kernel_lib.errors import SettingsError
from kernel_lib.model import pooling as module
from kernel_lib.model.pooling import POOLINGS, Pooling, WeightedLayerPooling, make_pooling

HIDDEN, N_LAYERS, TOP = 6, 5, 3
LENGTHS = (7, 3, 1, 8)
SEQ_LEN = 8
ALL = sorted(POOLINGS)


def make(name: str) -> Pooling:
    """The pooling with all of its parameters away from their initial values."""
    torch.manual_seed(1)
    pooling = make_pooling(name, hidden=HIDDEN, layers=TOP, available_layers=N_LAYERS)
    with torch.no_grad():
        for key, parameter in pooling.named_parameters():
            parameter.fill_(2.5) if key == "power" else parameter.normal_(0, 0.7)
    return pooling


def states_and_mask() -> tuple[tuple[Tensor, ...], Tensor]:
    """Hidden states of embeddings and layers, padded positions holding plausible values."""
    torch.manual_seed(2)
    states = tuple(torch.randn(len(LENGTHS), SEQ_LEN, HIDDEN) for _ in range(N_LAYERS + 1))
    mask = torch.zeros(len(LENGTHS), SEQ_LEN, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = 1
    return states, mask


def with_padding(states: tuple[Tensor, ...], mask: Tensor, value: float) -> tuple[Tensor, ...]:
    return tuple(layer.masked_fill(mask.unsqueeze(-1) == 0, value) for layer in states)


def mean(vectors: list[Tensor]) -> Tensor:
    return torch.stack(vectors).sum(0) / len(vectors)


def softmax(scores: list[float]) -> list[float]:
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def pooled_by_hand(name: str, pooling: Pooling, layers: list[Tensor]) -> Tensor:
    """One row's pooled vector from its own tokens: ``layers`` are ``(length, hidden)`` each."""
    tokens = list(layers[-1])
    largest = torch.tensor([max(float(t[i]) for t in tokens) for i in range(HIDDEN)])
    if name == "cls":
        return tokens[0]
    if name == "mean":
        return mean(tokens)
    if name == "max":
        return largest
    if name == "min":
        return torch.tensor([min(float(t[i]) for t in tokens) for i in range(HIDDEN)])
    if name == "mean_max":
        return torch.cat([mean(tokens), largest])
    if name == "gem":
        p = float(pooling.power)
        features = [[max(float(t[i]), 1e-6) ** p for t in tokens] for i in range(HIDDEN)]
        return torch.tensor([(sum(f) / len(f)) ** (1 / p) for f in features])
    if name == "attention":
        shares = softmax([float(pooling.score(token)) for token in tokens])
        return sum(share * token for share, token in zip(shares, tokens, strict=True))
    if name == "weighted_layer":
        shares = softmax(pooling.layer_logits.tolist())
        top = layers[-TOP:]
        return sum(share * mean(list(layer)) for share, layer in zip(shares, top, strict=True))
    if name == "concat_last_n":
        return torch.cat([mean(list(layers[-1 - back])) for back in range(TOP)])
    if name == "multi_layer_cls":
        firsts = torch.stack([layer[0] for layer in layers[-TOP:]])
        return pooling.lstm(firsts.unsqueeze(0))[1][0].reshape(-1)
    if name == "lstm":
        outputs = pooling.lstm(layers[-1].unsqueeze(0))[0][0]
        return torch.cat([mean(list(outputs)), outputs.max(dim=0).values])
    raise AssertionError(f"no computation by hand for {name!r}: add one")


def test_every_pooling_class_can_be_chosen_by_name() -> None:
    classes = {
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Pooling) and cls is not Pooling
    }
    assert classes == set(POOLINGS.values())


@pytest.mark.parametrize("name", ALL)
def test_it_equals_the_computation_by_hand_without_padding(name: str) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    found = pooling(states, mask)
    for row, length in enumerate(LENGTHS):
        with torch.no_grad():
            expected = pooled_by_hand(name, pooling, [layer[row, :length] for layer in states])
        assert torch.allclose(found[row], expected, atol=1e-5), row


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [1e30, -1e30, 0.0])
def test_values_at_padded_positions_never_matter(name: str, value: float) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    expected = pooling(states, mask)
    found = pooling(with_padding(states, mask, value), mask)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ALL)
def test_more_padding_changes_nothing(name: str) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    wider = tuple(torch.nn.functional.pad(layer, (0, 0, 0, 5), value=9.0) for layer in states)
    found = pooling(wider, torch.nn.functional.pad(mask, (0, 5)))
    assert torch.allclose(found, pooling(states, mask), atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_gradients_are_finite_and_none_reaches_padding(name: str) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    leaves = tuple(layer.requires_grad_() for layer in with_padding(states, mask, 1e4))
    pooling(leaves, mask).square().sum().backward()
    for leaf in leaves:
        if leaf.grad is not None:
            assert torch.isfinite(leaf.grad).all()
            assert (leaf.grad[mask == 0] == 0).all()
    assert leaves[-1].grad is not None and leaves[-1].grad.abs().sum() > 0
    for key, parameter in pooling.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rows", [1, 4])
def test_the_shape_is_batch_by_output_size_for_one_row_too(name: str, rows: int) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    found = pooling(tuple(layer[:rows] for layer in states), mask[:rows])
    assert found.shape == (rows, pooling.output_size)


@pytest.mark.parametrize("name", ALL)
def test_a_row_is_pooled_the_same_in_any_company(name: str) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    together = pooling(states, mask)
    alone = pooling(tuple(layer[1:2] for layer in states), mask[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ALL if not make(name).needs_all_layers])
def test_the_last_layer_alone_is_enough_where_the_pooling_says_so(name: str) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    assert torch.equal(pooling((states[-1],), mask), pooling(states, mask))


@pytest.mark.parametrize("name", [name for name in ALL if make(name).needs_all_layers])
def test_lower_layers_than_asked_for_do_not_matter(name: str) -> None:
    pooling, (states, mask) = make(name), states_and_mask()
    expected = pooling(states, mask)
    lower = tuple(torch.full_like(layer, 7.0) for layer in states[:-TOP])
    assert torch.equal(pooling((*lower, *states[-TOP:]), mask), expected)
    lowest_used = (*states[:-TOP], states[-TOP] + 1.0, *states[-TOP + 1 :])
    assert not torch.allclose(pooling(lowest_used, mask), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["min", "max"])
def test_min_and_max_are_exact_in_every_precision(name: str, dtype) -> None:
    """Every feature of a row on the far side of any fixed filling value."""
    sign = 1.0 if name == "min" else -1.0
    states, mask = states_and_mask()
    far = sign * (20_000 + 1000 * states[-1].abs())
    layer = far.to(dtype)
    found = make(name)((layer,), mask)
    assert found.dtype == dtype
    for row, length in enumerate(LENGTHS):
        tokens = layer[row, :length].float()
        expected = tokens.amin(0) if name == "min" else tokens.amax(0)
        assert torch.equal(found[row].float(), expected)


def test_gem_lies_between_mean_and_max_and_counts_negatives_as_nothing() -> None:
    states, mask = states_and_mask()
    positive = tuple(layer.abs() + 0.1 for layer in states)
    gem = POOLINGS["gem"](HIDDEN, 1)
    found = gem(positive, mask)
    assert (found >= make("mean")(positive, mask) - 1e-5).all()
    assert (found <= make("max")(positive, mask) + 1e-5).all()
    assert torch.allclose(gem(tuple(-layer for layer in positive), mask), torch.tensor(1e-6))


def test_gem_of_half_precision_states_is_computed_in_float32() -> None:
    mask = torch.ones(1, 4, dtype=torch.int64)
    gem = POOLINGS["gem"](2, 1)
    found = gem((torch.full((1, 4, 2), 300.0, dtype=torch.float16),), mask)  # 300^3 overflows
    assert torch.allclose(found, torch.tensor(300.0), rtol=1e-4)


def test_weighted_layer_begins_as_the_mean_of_the_layers() -> None:
    states, mask = states_and_mask()
    pooling = WeightedLayerPooling(HIDDEN, TOP)
    expected = sum(make("mean")((layer,), mask) for layer in states[-TOP:]) / TOP
    assert torch.allclose(pooling(states, mask), expected, atol=1e-6)


def test_concat_has_the_last_layer_first() -> None:
    states, mask = states_and_mask()
    found = make("concat_last_n")(states, mask).split(HIDDEN, dim=-1)
    for back, part in zip(range(TOP), found, strict=True):
        assert torch.allclose(part, make("mean")((states[-1 - back],), mask), atol=1e-6)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"pooling='atention'.*'attention'"):
        make_pooling("atention", hidden=4, layers=1, available_layers=2)


@pytest.mark.parametrize("name", [name for name in ALL if make(name).needs_all_layers])
def test_more_layers_than_the_encoder_has_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="pooling_layers=4, but the encoder has 3"):
        make_pooling(name, hidden=4, layers=4, available_layers=3)
    assert make_pooling(name, hidden=4, layers=3, available_layers=3).layers == 3


@pytest.mark.parametrize("name", [name for name in ALL if not make(name).needs_all_layers])
def test_the_number_of_layers_does_not_concern_poolings_of_the_last(name: str) -> None:
    make_pooling(name, hidden=4, layers=4, available_layers=2)


@pytest.mark.parametrize("name", ["lstm", "mean_max"])
def test_an_odd_width_has_a_true_output_size(name: str) -> None:
    pooling = make_pooling(name, hidden=5, layers=1, available_layers=2)
    found = pooling((torch.randn(2, 4, 5),), torch.ones(2, 4, dtype=torch.int64))
    assert found.shape == (2, pooling.output_size)
