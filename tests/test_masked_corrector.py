"""System two: the mixture of layers, the two heads, and the model under the kit's tools."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from kernel_lib.artifacts import load_weights, save_tensors
from kernel_lib.config import TrainingSettings
from kernel_lib.errors import BackboneError
from kernel_lib.model.attention import use_fast_attention
from kernel_lib.model.backbone import checkpoint_activations
from kernel_lib.model.masked_corrector import ERROR_RATE, MaskedCorrector, ScalarMix
from kernel_lib.model.vocabulary_head import word_table
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch
from kernel_lib.training.adversarial import FGM
from kernel_lib.training.optimizer import parameter_groups
from kernel_lib.training.token_losses import IGNORE, binary_focal_loss, token_focal_loss
from tests.test_adversarial import attack, words_of
from tests.test_corrector import FAMILIES, IDS, MASK
from tests.test_vocabulary_head import TINY, tiny_encoder

TARGETS = torch.where(IDS > 3, torch.where(IDS % 5 == 0, IDS + 1, IDS), IGNORE)
WRONG = torch.where(IDS > 3, (TARGETS != IDS).long(), IGNORE)


def make(family: str = "bert", *, scalar_mix: bool = True, **changes) -> MaskedCorrector:
    encoder = tiny_encoder(family, **FAMILIES[family])
    use_fast_attention(encoder)
    return MaskedCorrector(encoder, scalar_mix=scalar_mix, **{"dropout": 0.0, **changes}).eval()


def loss_of(model, rows: slice = slice(None), width: int = 8) -> torch.Tensor:
    ids, mask, targets, wrong = (t[rows, :width] for t in (IDS, MASK, TARGETS, WRONG))
    output = model(ids, mask)
    return 0.3 * token_focal_loss(output.logits, targets, gamma=0) + 0.7 * binary_focal_loss(
        output.detection, wrong, gamma=2.0
    )


def test_the_scalar_mix_by_hand() -> None:
    mix = ScalarMix(3)
    states = [torch.full((1, 1, 2), value) for value in (1.0, 2.0, 6.0)]
    assert mix(states).flatten().tolist() == pytest.approx([3.0, 3.0])  # at first the mean
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.0, 1.0, 2.0]))
        mix.gamma.fill_(0.5)
    shares = [0.0900306, 0.2447285, 0.6652410]
    by_hand = 0.5 * (shares[0] + 2 * shares[1] + 6 * shares[2])
    assert mix(states).flatten().tolist() == pytest.approx([by_hand, by_hand], rel=1e-5)


@pytest.mark.parametrize("scalar_mix", [True, False])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_both_heads_see_the_mixture_or_the_last_state(family: str, scalar_mix: bool) -> None:
    model = make(family, scalar_mix=scalar_mix)
    seen, returned = [], []
    for head in (model.head, model.detection):
        head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model.backbone.register_forward_hook(lambda _, __, output: returned.append(output))
    output = model(IDS, MASK)
    states = returned[0].hidden_states
    assert (states is not None) == scalar_mix and (not scalar_mix or len(states) == 3)
    expected = torch.stack(states).mean(0) if scalar_mix else returned[0].last_hidden_state
    assert len(seen) == 2
    assert all(torch.allclose(given, expected, atol=1e-6) for given in seen)
    assert output.logits.shape == (2, 8, 60) and output.detection.shape == (2, 8)
    assert (model.mix is not None) == scalar_mix


def test_states_that_cannot_be_mixed_are_an_error_that_names_the_setting() -> None:
    config = AutoConfig.for_model(
        "funnel",
        vocab_size=60,
        d_model=16,
        n_head=2,
        d_head=8,
        d_inner=16,
        block_sizes=[1, 1],
        num_decoder_layers=1,
    )
    config.architectures, config.block_repeats = ["FunnelModel"], [1, 1]
    model = MaskedCorrector(AutoModel.from_config(config), scalar_mix=True, dropout=0.0)
    with pytest.raises(BackboneError, match=r"funnel.*Set scalar_mix=False"):
        model(IDS, MASK)


def test_at_the_start_few_characters_are_held_to_be_wrong() -> None:
    model = make()
    rates = torch.sigmoid(model(IDS, MASK).detection)
    assert torch.allclose(rates, torch.full_like(rates, ERROR_RATE), atol=0.02)
    assert model.detection.weight.any()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("scalar_mix", [True, False])
def test_both_outputs_are_float32_and_close_under_autocast(precision, scalar_mix) -> None:
    model = make(scalar_mix=scalar_mix)
    exact = model(IDS, MASK)
    with Precision(precision, "cpu").autocast():
        output = model(IDS, MASK)
    for found, wanted in zip(output, exact, strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found, wanted, atol=0.3)


def test_the_detection_layer_is_not_rounded_by_autocast() -> None:
    model = make()
    with Precision("bf16", "cpu").autocast():
        detection = model(IDS, MASK).detection
    assert not torch.equal(detection, detection.bfloat16().float())


def test_dropout_acts_in_training_alone() -> None:
    model = make(dropout=0.3)
    assert torch.equal(model(IDS, MASK).detection, model(IDS, MASK).detection)
    model.train()
    assert not torch.equal(model(IDS, MASK).detection, model(IDS, MASK).detection)


def test_with_its_pretrained_head_it_is_the_masked_language_model() -> None:
    """So a genuine MacBERT starts as it was pretrained."""
    config = AutoConfig.for_model("bert", **TINY, hidden_dropout_prob=0.0)
    whole = AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.normal_(std=0.3)
    transform = whole.cls.predictions.transform
    model = MaskedCorrector(whole.bert, scalar_mix=False, dropout=0.0).eval()
    taken = model.head.start_from(
        {
            "dense.weight": transform.dense.weight,
            "dense.bias": transform.dense.bias,
            "norm.weight": transform.LayerNorm.weight,
            "norm.bias": transform.LayerNorm.bias,
            "bias": whole.cls.predictions.bias,
        }
    )
    assert taken
    expected = whole(input_ids=IDS, attention_mask=MASK).logits
    assert torch.allclose(model(IDS, MASK).logits, expected, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_learns_and_is_in_a_group_of_its_rate(tied: bool) -> None:
    model = make(tied=tied).train()
    loss_of(model).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    settings = TrainingSettings(learning_rate=1e-5, head_learning_rate=1e-3)
    groups = parameter_groups(model, settings)
    heads = [id(p) for group in groups if group["lr"] == 1e-3 for p in group["params"]]
    own = {n: p for n, p in model.named_parameters() if not n.startswith("backbone.")}
    assert sorted(heads) == sorted(map(id, own.values()))
    assert {"mix.weights", "mix.gamma", "detection.weight", "head.bias"} <= set(own)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_saved_once_each_and_loaded_strictly(tied: bool, tmp_path: Path) -> None:
    model, other = make(tied=tied), make(tied=tied)
    state = model.state_dict()
    places = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    assert len(set(places)) == len(places), "two names of one tensor"
    save_tensors(state, tmp_path / "model.safetensors")
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    load_weights(other, tmp_path / "model.safetensors")
    for found, wanted in zip(other(IDS, MASK), model(IDS, MASK), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_fgm_perturbs_the_words_and_leaves_no_trace(family: str) -> None:
    model, runs = make(family), []
    words = model.backbone.get_input_embeddings()
    words.register_forward_hook(lambda *_: runs.append(1))
    fgm = FGM(words, epsilon=0.5)
    before, clean = word_table(model.backbone).detach().clone(), loss_of(model)
    clean.backward()
    with attack(fgm, words_of(Batch(IDS, MASK, None))) as weight:
        worse = loss_of(model)
        (worse * weight).backward()
    assert weight == 1 and worse > clean and len(runs) == 2
    assert torch.equal(word_table(model.backbone), before)
    fgm.close()


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_checkpointed_activations_give_the_same_gradients(family: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = make(family).train()
        if checkpointed:
            checkpoint_activations(model.backbone)
        loss_of(model).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_a_batch_cut_in_parts_gives_the_gradient_of_the_whole() -> None:
    whole, cut = make(), make()
    cut.load_state_dict(whole.state_dict())
    loss_of(whole).backward()
    for rows, width in ((slice(0, 1), 6), (slice(1, 2), 8)):
        (loss_of(cut, rows, width) / 2).backward()
    for (name, one), two in zip(whole.named_parameters(), cut.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-6), name


def test_it_learns_to_find_and_to_correct() -> None:
    model = make().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    logits, detection = model(IDS, MASK)
    counted = WRONG != IGNORE
    assert torch.equal((detection > 0)[counted], WRONG[counted] == 1)
    assert torch.equal(logits.argmax(-1)[counted], TARGETS[counted])
