"""Mixout: the paper's formula, an encoder with its names, and runs that go on as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.artifacts import WEIGHTS, load_weights, open_run, read_oof, read_tensors
from kernel_lib.errors import SettingsError
from kernel_lib.model.backbone import checkpoint_activations, freeze, load_backbone
from kernel_lib.model.mixout import MixoutLinear, add_mixout
from kernel_lib.runtime.device import Precision
from kernel_lib.tasks.entity_settings import EntitySettings
from kernel_lib.training.passes import predict_in_passes
from tests.test_state import stop_after

P = 0.3


def make_layer(inputs: int, outputs: int, *, moved: float = 1.0) -> MixoutLinear:
    """A layer whose weights have moved since it was pretrained."""
    module = nn.Sequential(nn.Linear(inputs, outputs))
    assert add_mixout(module, P) == 1
    layer: MixoutLinear = module[0]
    with torch.no_grad():
        layer.weight += moved * torch.randn_like(layer.weight)
    return layer


def used_weights(layer: MixoutLinear) -> np.ndarray:
    """What a training pass computes with: what the unit vectors give, less the bias."""
    return (layer(torch.eye(layer.in_features)) - layer.bias).detach().numpy().T


def test_a_weight_is_the_pretrained_one_or_as_far_beyond_as_makes_up_for_it() -> None:
    layer = make_layer(2000, 5)
    first, now = layer.pretrained.numpy(), layer.weight.detach().numpy()
    mixed = used_weights(layer)
    mask = np.isclose(mixed, first, atol=1e-6)
    expected = (mask * first + (1 - mask) * now - P * first) / (1 - P)
    assert np.allclose(mixed, expected, atol=1e-5)
    assert (mask == mask[:1]).all()  # one draw for all weights that lead from an input
    assert abs(mask[0].mean() - P) < 5 * np.sqrt(P * (1 - P) / 2000)
    assert (mask != np.isclose(used_weights(layer), first, atol=1e-6)).any()  # a draw each call


def test_the_mean_over_masks_is_the_weight_itself() -> None:
    layer = make_layer(8, 4)
    mean = np.mean([used_weights(layer) for _ in range(1000)], axis=0)
    spread = np.abs((layer.weight - layer.pretrained).detach().numpy()) * np.sqrt(P / (1 - P))
    error = np.abs(mean - layer.weight.detach().numpy())
    assert (error < 5 * spread / np.sqrt(1000) + 1e-6).all()


def test_the_gradient_is_that_of_the_formula() -> None:
    layer = make_layer(40, 4)
    inputs, ahead = torch.randn(3, 40), torch.randn(3, 4)
    torch.manual_seed(1)
    (layer(inputs) * ahead).sum().backward()
    torch.manual_seed(1)
    mask = np.isclose(used_weights(layer), layer.pretrained.numpy(), atol=1e-6)
    assert 0 < mask[0].sum() < 40
    plain = ahead.numpy().T @ inputs.numpy()
    assert np.allclose(layer.weight.grad.numpy(), plain * (1 - mask) / (1 - P), atol=1e-5)
    assert np.allclose(layer.bias.grad.numpy(), ahead.numpy().sum(axis=0), atol=1e-5)


def test_in_evaluation_it_is_a_plain_layer_that_draws_nothing() -> None:
    layer, inputs = make_layer(6, 4).eval(), torch.randn(3, 6)
    before = torch.get_rng_state()
    expected = nn.functional.linear(inputs, layer.weight, layer.bias)
    assert torch.equal(layer(inputs), expected)
    assert torch.equal(torch.get_rng_state(), before)


def encoder(material, attention: str = "fast"):
    return load_backbone(material.backbone, dropout=0.0, attention=attention)


def run(model) -> torch.Tensor:
    ids = torch.arange(24).reshape(2, 12) + 10
    return model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state


@pytest.mark.parametrize("attention", ["fast", "stock"])
def test_every_linear_layer_of_deberta_mixes_and_the_names_stay(material, attention) -> None:
    plain, mixing = encoder(material, attention), encoder(material, attention)
    linear = [name for name, module in plain.named_modules() if isinstance(module, nn.Linear)]
    assert add_mixout(mixing, P) == len(linear) > 0
    assert {type(mixing.get_submodule(name)) for name in linear} == {MixoutLinear}
    assert list(mixing.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in mixing.named_parameters()] == [
        name for name, _ in plain.named_parameters()
    ]
    # As long as nothing has moved there is nothing to mix.
    assert torch.equal(run(mixing.train()), run(plain.train()))
    with torch.no_grad():
        for parameter in mixing.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    assert not torch.equal(run(mixing), run(mixing))
    assert torch.equal(run(mixing.eval()), run(mixing))


def test_a_whole_encoder_computes_as_a_plain_one_with_the_mixed_weights(material) -> None:
    """The same draws, put into an encoder that knows nothing of Mixout by the paper's formula."""
    mixing, plain, first = moved(material), encoder(material), encoder(material)
    plain.load_state_dict(mixing.state_dict())

    def mix(layer: nn.Linear, w0: torch.Tensor):
        def hook(_, inputs, output) -> torch.Tensor:
            mask = (nn.functional.dropout(torch.ones(layer.in_features), P) == 0).float()
            mixed = (mask * w0 + (1 - mask) * layer.weight - P * w0) / (1 - P)
            return nn.functional.linear(inputs[0], mixed, layer.bias)

        return hook

    for name, module in plain.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(mix(module, first.get_submodule(name).weight.detach()))
    for found, wanted in zip(gradients(mixing, 3), gradients(plain, 3), strict=True):
        assert torch.allclose(found, wanted, atol=1e-4)


def gradients(model, seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    model.zero_grad()
    run(model.train()).square().sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def moved(material) -> nn.Module:
    model = encoder(material)
    add_mixout(model, P)
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def test_checkpointed_activations_are_made_again_with_the_same_masks(material) -> None:
    expected, model = gradients(moved(material), 3), moved(material)
    checkpoint_activations(model)
    for found, wanted in zip(gradients(model, 3), expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-5)
    others = gradients(model, 4)
    assert not all(torch.allclose(a, b, atol=1e-5) for a, b in zip(others, expected, strict=True))


def test_under_autocast_the_mixed_weights_are_rounded_and_the_own_ones_are_not() -> None:
    layer, inputs = make_layer(32, 4), torch.randn(3, 32)
    torch.manual_seed(1)
    exact = layer(inputs)
    torch.manual_seed(1)
    with Precision("bf16", "cpu").autocast():
        output = layer(inputs)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16 and layer.weight.grad.dtype == torch.float32
    assert torch.allclose(output.float(), exact, atol=0.1)


def test_frozen_layers_have_nothing_to_mix_and_without_others_it_is_refused(material) -> None:
    model = encoder(material)
    freeze(model, embeddings=True, layers=1)
    add_mixout(model, P)
    mixing = [name for name, m in model.named_modules() if isinstance(m, MixoutLinear)]
    assert mixing and all(".layer.1." in name for name in mixing)
    model = encoder(material)
    freeze(model, embeddings=True, layers=2)
    with pytest.raises(SettingsError, match=r"mixout_probability=0\.3, but no linear layer"):
        add_mixout(model, P)


def test_lora_and_mixout_exclude_each_other() -> None:
    with pytest.raises(SettingsError, match=r"mixout_probability=0\.1.*lora_rank"):
        EntitySettings(lora_rank=4, mixout_probability=0.1)


@pytest.mark.parametrize("kind", ["make_case", "make_spelling_case", "make_entity_case"])
def test_every_task_has_it_and_none_without_being_asked(kind: str, request) -> None:
    for p in (0.0, P):
        case = request.getfixturevalue(kind)(mixout_probability=p)
        backbone = case.task.settings.backbone
        model = case.task.build_model(Path(backbone), case.tokenizer, case.examples)
        found = [m for m in model.modules() if isinstance(m, MixoutLinear)]
        assert bool(found) == (p > 0)
        assert all(m.probability == p for m in found)


def test_in_layers_drawn_anew_it_draws_towards_what_was_drawn(make_case, material) -> None:
    case = make_case(mixout_probability=P, reinit_layers=1)
    model = case.task.build_model(material.backbone, case.tokenizer, case.examples)
    plain = encoder(material)
    drawn = set()
    for name, module in model.backbone.named_modules():
        if isinstance(module, MixoutLinear):
            assert torch.equal(module.pretrained, module.weight)
            is_pretrained = torch.equal(module.pretrained, plain.get_submodule(name).weight)
            drawn.add((is_pretrained, ".layer.1." in name))
    assert drawn == {(True, False), (False, True)}


def test_resumed_equals_unbroken(make_case, tmp_path) -> None:
    changes = {"mixout_probability": P, "reinit_layers": 1, "epochs": 2, "fgm_epsilon": 0.0}
    unbroken = make_case(**changes, output_dir=str(tmp_path / "a")).trainer()
    expected = unbroken.train()
    case = make_case(**changes, output_dir=str(tmp_path / "b"))
    for steps in (2, 3):
        trainer = case.trainer()
        stop_after(trainer, steps)
        assert trainer.train() is None
        torch.manual_seed(999)  # another session begins with other random states
    resumed = case.trainer()
    result = resumed.train()
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert result.oof.equals(expected.oof)


def test_a_run_leaves_a_plain_model_with_the_usual_names(make_case, trained) -> None:
    case = make_case(mixout_probability=P, folds=(0,))
    runs = {0.0: open_run(trained(folds=(0,))), P: case.cross_validate()}
    tensors = {p: read_tensors(run.fold_folder(0) / WEIGHTS) for p, run in runs.items()}
    assert list(tensors[P]) == list(tensors[0.0])
    assert any(not torch.equal(tensors[P][name], tensors[0.0][name]) for name in tensors[P])
    model = case.task.empty_model(runs[P].fold_folder(0))
    assert not any(isinstance(module, MixoutLinear) for module in model.modules())
    load_weights(model, runs[P].fold_folder(0) / WEIGHTS)
    valid = [e for e, at in zip(case.examples, case.folds, strict=True) if at == 0]
    predictions = predict_in_passes(
        case.task,
        model,
        valid,
        pad_id=case.tokenizer.pad_token_id,
        batch_tokens=case.task.settings.eval_batch_tokens,
        device=torch.device("cpu"),
        precision=Precision("float32", "cpu"),
    )
    again = case.task.oof_frame(valid, predictions).filter(like="pred_").to_numpy()
    oof = read_oof(runs[P], 0).filter(like="pred_").to_numpy()
    assert np.allclose(again, oof, atol=1e-5)
