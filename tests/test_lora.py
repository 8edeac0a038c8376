"""LoRA: beside the encoder without touching it, equal when merged, and under the kit's tools."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import FunnelConfig, FunnelModel

from kernel_lib.artifacts import load_weights, save_tensors
from kernel_lib.config import TrainingSettings
from kernel_lib.errors import SettingsError
from kernel_lib.model.attention import use_fast_attention, use_stock_attention
from kernel_lib.model.backbone import checkpoint_activations
from kernel_lib.model.lora import TARGETS, LoraLinear, add_lora, merge_lora, warn_if_slow
from kernel_lib.model.token_head import TokenModel
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch
from kernel_lib.training.adversarial import FGM
from kernel_lib.training.optimizer import parameter_groups
from kernel_lib.training.token_losses import token_focal_loss
from tests import test_corrector
from tests.test_adversarial import attack, rows_read, words_of
from tests.test_corrector import IDS, MASK
from tests.test_token_head import LABELS, WORDS
from tests.test_vocabulary_head import tiny_encoder

FAMILIES = {
    **test_corrector.FAMILIES,
    "camembert": {"pad_token_id": 0},
    "deberta": test_corrector.FAMILIES["deberta-v2"],
    "distilbert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "pad_token_id": 0},
    "ernie": {},
    "funnel": {"block_sizes": [1, 1], "d_model": 16, "n_head": 2, "d_head": 8, "d_inner": 24},
    "modernbert": {"pad_token_id": 0},
    "mpnet": {"pad_token_id": 0},
    "roformer": {"embedding_size": 8},
    "xlm-roberta": {"pad_token_id": 0},
}


def encoder(family: str = "bert", *, fast: bool = True, **changes):
    """An encoder whose attention tells the words apart, as that of a pretrained one does."""
    settings = {**FAMILIES[family], **changes}
    if family == "funnel":  # it counts blocks, and will not hear of layers
        torch.manual_seed(1)
        backbone = FunnelModel(FunnelConfig(vocab_size=60, hidden_dropout=0.0, **settings)).eval()
    else:
        backbone = tiny_encoder(family, **settings)
    for module in backbone.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    if fast:
        use_fast_attention(backbone)
    return backbone


def states(backbone) -> torch.Tensor:
    return backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state


def add(backbone, **changes):
    settings = {"rank": 3, "alpha": 6.0, "dropout": 0.0, "targets": None, **changes}
    return add_lora(backbone, **settings)


def learnt(backbone) -> None:
    """Products as training could leave them."""
    torch.manual_seed(5)
    for module in backbone.modules():
        if isinstance(module, LoraLinear):
            nn.init.normal_(module.lora_b, std=0.3)


def linear_names(backbone) -> list[str]:
    return [name for name, module in backbone.named_modules() if type(module) is nn.Linear]


def make(family: str = "bert", **changes) -> TokenModel:
    backbone = encoder(family)
    add(backbone, **changes)
    return TokenModel(backbone, num_labels=5, dropout=0.0, subtoken="mean", crf=False).eval()


def loss_of(model) -> torch.Tensor:
    return token_focal_loss(model(IDS, MASK, WORDS).logits, LABELS, gamma=0.0)


def train(model, updates: int = 5) -> None:
    settings = TrainingSettings(learning_rate=1e-2, head_learning_rate=1e-2, layer_decay=0.9)
    optimizer = torch.optim.AdamW(parameter_groups(model, settings))
    for _ in range(updates):
        optimizer.zero_grad()
        loss_of(model.train()).backward()
        optimizer.step()
    model.eval()


# what it computes


def test_a_layer_by_hand() -> None:
    plain = nn.Linear(2, 1)
    plain.weight.data, plain.bias.data = torch.tensor([[1.0, 2.0]]), torch.tensor([0.5])
    layer = LoraLinear(plain, rank=2, alpha=3.0, dropout=0.0)
    layer.lora_a.data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    layer.lora_b.data = torch.tensor([[2.0, -1.0]])
    x = torch.tensor([[3.0, 4.0]])  # A x = (3, 7), B A x = -1
    assert layer(x).item() == 11.5 - 1 * 1.5
    merged = layer.merged()
    assert type(merged) is nn.Linear and merged(x).item() == 10.0
    assert merged.weight.tolist() == [[1 + 1.5 * 1, 2 - 1.5 * 1]]


def test_a_begins_as_kaiming_has_it_and_b_with_zeros() -> None:
    layer = LoraLinear(nn.Linear(400, 7), rank=50, alpha=8.0, dropout=0.0)
    bound = 1 / math.sqrt(400)
    assert layer.lora_a.abs().max() <= bound and layer.lora_a.std() > 0.5 * bound
    assert not layer.lora_b.any() and layer.scale == 8 / 50
    assert LoraLinear(nn.Linear(4, 4, bias=False), rank=1, alpha=1.0, dropout=0.0).bias is None


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_at_first_it_is_the_plain_model_bit_for_bit(family: str, precision: str) -> None:
    if (family, precision) == ("deberta", "bf16"):
        pytest.skip("DeBERTa v1 of transformers does not run in bf16")
    backbone = encoder(family)
    with Precision(precision, "cpu").autocast():
        plain = states(backbone)
        add(backbone)
        assert torch.equal(states(backbone), plain)


def test_without_dropout_of_its_own_it_leaves_the_encoders_as_it_was() -> None:
    backbone = encoder().train()
    for module in backbone.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    torch.manual_seed(9)
    plain = states(backbone)
    add(backbone)
    torch.manual_seed(9)
    assert torch.equal(states(backbone), plain)


def test_dropout_acts_on_what_goes_into_a_in_training_alone() -> None:
    layer = LoraLinear(nn.Linear(6, 6), rank=6, alpha=6.0, dropout=0.5)
    nn.init.eye_(layer.lora_a)
    nn.init.eye_(layer.lora_b)
    x = torch.ones(200, 6)
    base = nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.allclose(layer.eval()(x) - base, x, atol=1e-6)
    assert not LoraLinear(nn.Linear(6, 6).eval(), rank=1, alpha=1.0, dropout=0.5).training
    beside = layer.train()(x) - base
    assert set(beside.detach().round(decimals=3).flatten().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("family", [*sorted(FAMILIES), "deberta-v2, stock"])
def test_every_linear_layer_of_an_encoder_is_called_and_not_read(family: str) -> None:
    """An attention that took a layer's weight for itself would pass the product by: then merging
    would change what the encoder gives."""
    backbone = encoder(family.removesuffix(", stock"), fast=not family.endswith("stock"))
    with torch.no_grad():
        plain, names = states(backbone), linear_names(backbone)
        for name in names:
            assert add(backbone, targets=[name]).layers[:1] == (name,)
            learnt(backbone)
            beside = states(backbone)
            merge_lora(backbone)
            merged = states(backbone)
            assert torch.allclose(merged, beside, atol=2e-5), name
            assert (beside - plain).abs().max() > 1e-3, name
            plain = merged
        assert linear_names(backbone) == names


def test_the_fast_attention_of_deberta_gives_what_the_stock_one_gives() -> None:
    backbone = encoder("deberta-v2", share_att_key=True)
    add(backbone, targets=["query_proj", "key_proj", "value_proj"])
    learnt(backbone)
    fast = states(backbone)
    use_stock_attention(backbone)
    there = MASK.bool()
    assert torch.allclose(states(backbone)[there], fast[there], atol=1e-5)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_usual_targets_are_in_every_layer(family: str) -> None:
    backbone = encoder(family)
    report = add(backbone)
    assert report.targets == TARGETS[family] and set(FAMILIES) == set(TARGETS)
    if family == "funnel":  # two blocks of one layer, and a decoder of two
        layers = [f"encoder.blocks.{i}.0" for i in (0, 1)]
        layers += [f"decoder.layers.{i}" for i in (0, 1)]
    elif family == "albert":  # one layer, used again and again
        layers = ["encoder.albert_layer_groups.0"]
    else:
        layers = ["layer.0", "layer.1"] if family != "modernbert" else ["layers.0", "layers.1"]
    assert len(report.layers) == len(layers) * len(report.targets)
    for layer in layers:
        assert sum(f"{layer}." in name for name in report.layers) == len(report.targets)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's, of transformers
def test_it_equals_peft_with_the_same_weights() -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    for family in ("bert", "deberta-v2", "modernbert"):
        ours, theirs = encoder(family), encoder(family)
        targets = list(TARGETS[family])
        add(ours, rank=4, alpha=6.0)
        learnt(ours)
        config = peft.LoraConfig(r=4, lora_alpha=6.0, target_modules=targets, lora_dropout=0.0)
        wrapped = peft.get_peft_model(theirs, config).eval()
        for name, module in ours.named_modules():
            if isinstance(module, LoraLinear):
                other = wrapped.base_model.model.get_submodule(name)
                other.lora_A["default"].weight.data = module.lora_a.data.clone()
                other.lora_B["default"].weight.data = module.lora_b.data.clone()
        found = wrapped(input_ids=IDS, attention_mask=MASK).last_hidden_state
        assert torch.equal(states(ours), found)
        trained = [
            sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (ours, theirs)
        ]
        assert trained[0] == trained[1]
        merge_lora(ours)
        merged = wrapped.merge_and_unload()
        assert list(merged.state_dict()) == list(ours.state_dict())
        for name, value in merged.state_dict().items():
            assert torch.allclose(value, ours.state_dict()[name], atol=1e-6), name


# merging


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_after_training_merged_equals_beside_and_no_trace_is_left(family: str) -> None:
    plain = encoder(family)
    model = make(family)
    train(model)
    beside = model(IDS, MASK, WORDS).logits
    randomness = torch.get_rng_state()
    merge_lora(model.backbone)
    assert torch.equal(torch.get_rng_state(), randomness)
    assert torch.allclose(model(IDS, MASK, WORDS).logits, beside, atol=1e-6)
    assert list(model.backbone.state_dict()) == list(plain.state_dict())
    assert list(map(type, model.backbone.modules())) == list(map(type, plain.modules()))
    assert vars(model.backbone).keys() == vars(plain).keys()
    assert all(p.requires_grad for p in model.backbone.parameters())
    assert not any(module.training for module in model.modules())
    torch.manual_seed(1)
    plain.load_state_dict(model.backbone.state_dict())
    assert torch.equal(states(plain), states(model.backbone))


def test_what_was_frozen_before_stays_frozen_after() -> None:
    backbone = encoder()
    backbone.embeddings.requires_grad_(False)
    add(backbone)
    merge_lora(backbone)
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith("embeddings.") for name in frozen)
    merge_lora(backbone)  # nothing there, nothing happens
    add(backbone)
    assert sum(p.requires_grad for p in backbone.parameters()) == 8


# training


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_only_products_and_head_move(family: str) -> None:
    model = make(family, dropout=0.1)
    before = copy.deepcopy(model.state_dict())
    train(model)
    moved = {
        name for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    products = {name for name in before if name.rsplit(".", 1)[-1] in ("lora_a", "lora_b")}
    assert moved == products | {"head.weight", "head.bias"} and len(products) == 8
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        name for name in before if name in moved
    ]


def test_layers_learn_at_their_own_rates_and_the_head_at_its() -> None:
    settings = TrainingSettings(learning_rate=1e-3, head_learning_rate=5e-3, layer_decay=0.5)
    groups = parameter_groups(make(), settings)
    found = {(group["name"], group["lr"], len(group["params"])) for group in groups}
    assert found == {
        ("layer 0", 5e-4, 4),
        ("layer 1", 1e-3, 4),
        ("pooling and head", 5e-3, 1),
        ("pooling and head, vectors", 5e-3, 1),
    }


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_checkpointed_activations_give_the_same_gradients(family: str) -> None:
    gradients, runs = [], []
    for checkpointed in (False, True):
        torch.manual_seed(2)
        model = make(family, dropout=0.2).train()
        learnt(model.backbone)
        if checkpointed:
            checkpoint_activations(model.backbone)
            inner = model.backbone.encoder.layer[0].attention
            inner.register_forward_pre_hook(lambda *_: runs.append(1))
        torch.manual_seed(3)
        loss_of(model).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    assert len(runs) == 2, "the layers were not computed again"
    for name, gradient in gradients[0].items():
        assert gradient.any() and torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_fgm_perturbs_the_frozen_words_and_leaves_no_trace(family: str, checkpointed) -> None:
    model = make(family).train()
    learnt(model.backbone)
    if checkpointed:
        checkpoint_activations(model.backbone)
    table = model.backbone.get_input_embeddings().weight
    fgm = FGM(model.backbone.get_input_embeddings(), epsilon=0.5)
    before, clean = table.detach().clone(), loss_of(model)
    clean.backward()
    with attack(fgm, words_of(Batch(IDS, MASK, None))) as weight:
        moved = (rows_read(fgm.embedding) - before).norm()
        worse = loss_of(model)
        (worse * weight).backward()
    assert weight == 1 and worse > clean and moved.item() == pytest.approx(0.5, rel=1e-4)
    assert torch.equal(table, before) and table.grad is None and not table.requires_grad
    fgm.close()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_under_autocast_it_stays_close_and_its_gradients_finite(precision: str) -> None:
    model = make()
    learnt(model.backbone)
    exact = model(IDS, MASK, WORDS).logits
    with Precision(precision, "cpu").autocast():
        logits = model(IDS, MASK, WORDS).logits
        loss = loss_of(model)
    assert logits.dtype == torch.float32 and torch.allclose(logits, exact, atol=0.1)
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_weights_are_saved_and_loaded_with_and_without_the_products(tmp_path: Path) -> None:
    model, other = make(), make()
    train(model)
    save_tensors(model.state_dict(), tmp_path / "resume.safetensors")
    load_weights(other, tmp_path / "resume.safetensors")
    assert torch.equal(loss_of(other), loss_of(model))
    merge_lora(model.backbone)
    save_tensors(model.state_dict(), tmp_path / "model.safetensors")
    plain = TokenModel(encoder(), num_labels=5, dropout=0.0, subtoken="mean", crf=False).eval()
    load_weights(plain, tmp_path / "model.safetensors")
    assert torch.equal(loss_of(plain), loss_of(model))


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path) -> None:
    weights, settings = [], TrainingSettings(learning_rate=1e-2)
    for breaks in (False, True):
        torch.manual_seed(4)
        model = make(dropout=0.2).train()
        optimizer = torch.optim.AdamW(parameter_groups(model, settings))
        for update in range(4):
            if breaks and update == 2:
                state, randomness = model.state_dict(), torch.get_rng_state()
                save_tensors(state, tmp_path / "resume.safetensors")
                moments = copy.deepcopy(optimizer.state_dict())
                model = make(dropout=0.2).train()
                load_weights(model, tmp_path / "resume.safetensors")
                optimizer = torch.optim.AdamW(parameter_groups(model, settings))
                optimizer.load_state_dict(moments)
                torch.set_rng_state(randomness)
            optimizer.zero_grad()
            loss_of(model).backward()
            optimizer.step()
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


# what it says, and what it refuses


def test_the_report_counts_what_is_trained() -> None:
    backbone = encoder()
    total = sum(p.numel() for p in backbone.parameters())
    report = add(backbone, rank=3)
    assert report.layers == tuple(
        f"encoder.layer.{layer}.attention.self.{name}"
        for layer in range(2)
        for name in ("query", "value")
    )
    assert report.trained == 4 * 3 * (16 + 16) == 384 and report.total == total
    line = str(report)
    assert "rank 3 beside 4 linear layers (query, value): 384 parameters" in line
    assert f"{384 / total:.2%} of the encoder's {total:,}" in line


def test_targets_may_be_more_than_a_names_last_part() -> None:
    found = add(encoder(), targets=["intermediate.dense", "key", "key"])
    assert found.targets == ("intermediate.dense", "key") and len(found.layers) == 4
    assert all(name.endswith((".intermediate.dense", ".key")) for name in found.layers)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["query", "value_proj"], r"bert.*is named 'value_proj'.*dense, key, query, value"),
        (["quer", "nothing"], "'quer' or 'nothing'"),
        (["word_embeddings"], "'word_embeddings'"),
        (["encoder"], "'encoder'"),
        ([], "no targets"),
    ],
)
def test_targets_that_match_nothing_are_named_and_nothing_is_changed(targets, said) -> None:
    backbone = encoder()
    with pytest.raises(SettingsError, match=said):
        add(backbone, targets=targets)
    assert all(p.requires_grad for p in backbone.parameters())
    assert not any(isinstance(module, LoraLinear) for module in backbone.modules())


def test_an_unknown_family_needs_targets() -> None:
    backbone = encoder()
    backbone.config.model_type = "brandnew"
    with pytest.raises(SettingsError, match=r"'brandnew'.*dense, key, query, value"):
        add(backbone)
    assert len(add(backbone, targets=["query"]).layers) == 2


def test_a_layer_that_is_read_and_not_called_is_no_target() -> None:
    backbone = encoder()
    backbone.encoder.layer[0].strange = nn.MultiheadAttention(16, 2)
    with pytest.raises(SettingsError, match="'out_proj'"):
        add(backbone, targets=["out_proj"])


@pytest.mark.parametrize(
    "changes", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}]
)
def test_numbers_out_of_range_are_refused(changes) -> None:
    with pytest.raises(SettingsError, match="rank must be 1 or more"):
        add(encoder(), **changes)


def test_it_is_not_added_twice() -> None:
    backbone = encoder()
    add(backbone)
    with pytest.raises(SettingsError, match="already"):
        add(backbone)


def test_a_rate_too_low_for_it_draws_a_warning(recwarn) -> None:
    with pytest.warns(UserWarning, match=r"learning_rate=2e-05 is low for LoRA"):
        warn_if_slow(2e-5)
    warn_if_slow(1e-4)
    warn_if_slow(1e-3)
    assert not recwarn
