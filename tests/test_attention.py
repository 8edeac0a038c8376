"""The fast attention is the stock one: outputs, every gradient, in every kind of encoder."""

from __future__ import annotations

import copy
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertConfig, BertModel, DebertaV2Config, DebertaV2Model

from kernel_lib.model.attention import (
    FastSelfAttention,
    choose_attention,
    use_fast_attention,
    use_stock_attention,
)
from kernel_lib.model.backbone import checkpoint_activations

KINDS = {
    "v3": {},
    "own projections": {"share_att_key": False},
    "c2p": {"pos_att_type": ["c2p"]},
    "p2c": {"pos_att_type": ["p2c"]},
    "plain distances": {"position_buckets": -1},
    "v2 with convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
    "content only": {"pos_att_type": []},
}


def encoder(**changes: Any) -> DebertaV2Model:
    settings: dict[str, Any] = {
        "vocab_size": 60,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 32,
        "relative_attention": True,
        "position_buckets": 32,
        "max_relative_positions": -1,
        "max_position_embeddings": 64,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "type_vocab_size": 0,
        **changes,
    }
    torch.manual_seed(3)
    model = DebertaV2Model(DebertaV2Config(**settings))
    for parameter in model.parameters():  # strong enough that attention is far from uniform
        torch.nn.init.normal_(parameter, std=0.3)
    return model.train()


def texts(seq_len: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seq_len)
    mask = torch.ones(3, seq_len, dtype=torch.int64)
    mask[1, max(1, seq_len // 2) :] = 0
    mask[2, max(1, seq_len - 1) :] = 0
    return torch.randint(0, 60, (3, seq_len)), mask


def run(model: DebertaV2Model, seq_len: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The states of the tokens, and the gradients of all parameters."""
    ids, mask = texts(seq_len)
    model.zero_grad()
    states = model(input_ids=ids, attention_mask=mask).last_hidden_state * mask[..., None]
    weights = torch.sin(torch.arange(states.numel(), dtype=states.dtype)).view_as(states)
    (states * weights).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return states.detach(), found


def fast(model: DebertaV2Model) -> DebertaV2Model:
    other = copy.deepcopy(model)
    assert use_fast_attention(other)
    assert any(isinstance(module, FastSelfAttention) for module in other.modules())
    return other


def error(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Relative error of all tensors together, in float64."""
    assert found.keys() == expected.keys()
    off = sum(float((found[name].double() - expected[name]).square().sum()) for name in expected)
    whole = sum(float(expected[name].double().square().sum()) for name in expected)
    return (off / whole) ** 0.5


@pytest.mark.parametrize("seq_len", [1, 2, 40, 131, 300])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_every_gradient_are_exact(kind: str, seq_len: int) -> None:
    """In float64, where nothing hides; only its scale the stock module rounds to float32."""
    stock = encoder(**KINDS[kind]).double()
    expected_states, expected = run(stock, seq_len)
    states, found = run(fast(stock), seq_len)
    torch.testing.assert_close(states, expected_states, rtol=1e-6, atol=1e-7)
    assert found.keys() == expected.keys()
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        off = float((found[name] - gradient).abs().max())
        assert off <= 1e-6 * float(gradient.abs().max()) + 1e-9 * largest, name


@pytest.mark.parametrize("seq_len", [1, 64, 512, 700, 1500])
def test_float32_stays_within_rounding(seq_len: int) -> None:
    stock = encoder(hidden_size=16, num_attention_heads=2, position_buckets=256)
    exact_states, exact = run(copy.deepcopy(stock).double(), seq_len)
    states, found = run(fast(stock), seq_len)
    assert error({"states": states}, {"states": exact_states}) < 1e-5
    assert error(found, exact) < 1e-5


def test_autocast_is_as_exact_as_the_stock_path() -> None:
    """Both against float64, over eight texts: in a single one either may be the luckier."""
    stock = encoder()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    exact = copy.deepcopy(stock).double()
    errors = {"stock": [0.0, 0.0], "fast": [0.0, 0.0]}
    for seq_len in range(100, 260, 20):
        exact_states, exact_gradients = run(exact, seq_len)
        for name, model in (("stock", stock), ("fast", fast(stock))):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                states, gradients = run(model, seq_len)
            errors[name][0] += error({"states": states}, {"states": exact_states})
            errors[name][1] += error(gradients, exact_gradients)
    assert 0 < errors["fast"][0] <= 1.02 * errors["stock"][0]
    assert 0 < errors["fast"][1] <= 1.05 * errors["stock"][1]


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = fast(encoder())
    again = copy.deepcopy(plain)
    checkpoint_activations(again)
    states, gradients = run(plain, 40)
    states_again, gradients_again = run(again, 40)
    assert states.equal(states_again)
    assert all(gradients[name].equal(gradients_again[name]) for name in gradients)


def test_dropout_works_in_training_and_rests_in_evaluation() -> None:
    stock = encoder(attention_probs_dropout_prob=0.5)
    model = fast(stock)
    ids, mask = texts(20)
    one, other = (model(input_ids=ids, attention_mask=mask)[0] for _ in range(2))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(run(model.eval(), 20)[0], run(stock.eval(), 20)[0])


def test_weights_keep_their_names_and_the_stock_path_comes_back() -> None:
    stock = encoder()
    model = fast(stock)
    assert {n: p.shape for n, p in stock.state_dict().items()} == {
        n: p.shape for n, p in model.state_dict().items()
    }
    use_stock_attention(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in stock.modules()]
    assert run(model, 30)[0].equal(run(stock, 30)[0])


def test_states_of_all_layers_are_kept_only_when_asked_for() -> None:
    stock = encoder()
    model = fast(stock)
    ids, mask = texts(20)
    plain = model(input_ids=ids, attention_mask=mask)
    assert plain.hidden_states is None
    asked = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    expected = stock(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    assert len(asked.hidden_states) == 3
    for found, wanted in zip(asked.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(found * mask[..., None], wanted * mask[..., None])


def test_no_layer_outlives_the_next_one_in_inference() -> None:
    """The stock encoder keeps every layer's states to the end, whatever is asked for."""
    ids, mask = texts(20)
    alive: dict[str, list[int]] = {}
    stock = encoder(num_hidden_layers=4)
    for name, model in (("stock", stock), ("fast", fast(stock))):
        states: list[weakref.ref[Tensor]] = []
        for layer in model.encoder.layer:
            layer.register_forward_hook(lambda m, i, o, s=states: s.append(weakref.ref(o[0])))
        alive[name] = []
        model.encoder.layer[-1].register_forward_pre_hook(
            lambda m, i, s=states, n=name: alive[n].append(sum(r() is not None for r in s))
        )
        with torch.no_grad():
            model(input_ids=ids, attention_mask=mask)
    assert alive == {"stock": [3], "fast": [1]}


def test_what_nobody_asks_for_is_left_to_the_stock_code() -> None:
    stock = encoder().eval()
    model = fast(stock)
    ids, mask = texts(20)
    ours = model(input_ids=ids, attention_mask=torch.ones_like(mask), output_attentions=True)
    theirs = stock(input_ids=ids, attention_mask=torch.ones_like(mask), output_attentions=True)
    for found, expected in zip(ours.attentions, theirs.attentions, strict=True):
        torch.testing.assert_close(found, expected)
    as_tuple = model(input_ids=ids, attention_mask=torch.ones_like(mask), return_dict=False)
    torch.testing.assert_close(as_tuple[0], theirs.last_hidden_state)

    each_query_its_own = mask[:, None, :].expand(-1, 20, -1) * mask[:, :, None]
    states = stock.embeddings(ids, mask=mask)
    torch.testing.assert_close(
        model.encoder(states, each_query_its_own).last_hidden_state,
        stock.encoder(states, each_query_its_own).last_hidden_state,
    )


def test_other_encoders_are_left_alone() -> None:
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    bert = BertModel(config)
    before = [type(module) for module in bert.modules()]
    assert not use_fast_attention(bert)
    assert not use_fast_attention(encoder(relative_attention=False, position_biased_input=True))
    assert [type(module) for module in choose_attention(bert, "fast").modules()] == before


@pytest.mark.parametrize(
    ("wanted", "has_gpu", "is_fast"),
    [("auto", False, True), ("auto", True, False), ("fast", True, True), ("stock", False, False)],
)
def test_the_setting_chooses(
    monkeypatch: pytest.MonkeyPatch, wanted: str, has_gpu: bool, is_fast: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    chosen = choose_attention(encoder(), wanted)
    assert any(isinstance(module, FastSelfAttention) for module in chosen.modules()) == is_fast
