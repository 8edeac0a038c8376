"""The whole model: float32 out, dropout only in training, no more states than needed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kernel_lib.model.backbone import load_backbone
from kernel_lib.model.heads import PooledModel
from kernel_lib.model.pooling import POOLINGS, make_pooling
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch, Example, collate


def make_model(
    material, pooling: str = "mean", dropout: float = 0.0, samples: int = 1
) -> PooledModel:
    torch.manual_seed(0)
    return PooledModel(
        load_backbone(material.backbone, dropout=dropout),
        make_pooling(pooling, hidden=32, layers=2, available_layers=2),
        num_outputs=6,
        dropout=dropout,
        dropout_samples=samples,
    ).eval()


def run(model: PooledModel, batch: Batch) -> torch.Tensor:
    return model(batch.input_ids, batch.attention_mask)


def make_batch(*lengths: int) -> Batch:
    random = np.random.default_rng(0)
    rows = [np.concatenate([[1], random.integers(10, 300, size=40), [2]]) for _ in lengths]
    examples = [
        Example(str(length), row[:length].astype(np.int64))
        for row, length in zip(rows, lengths, strict=True)
    ]
    return collate(examples, pad_id=0)


# Not every CPU has an LSTM in fp16, and the kit picks fp16 on GPUs only.
WITH_PRECISION = [
    (pooling, precision)
    for pooling in sorted(POOLINGS)
    for precision in ("float32", "bf16", "fp16")
    if precision != "fp16" or pooling not in ("lstm", "multi_layer_cls")
]


@pytest.mark.parametrize(("pooling", "precision"), WITH_PRECISION)
def test_outputs_are_finite_float32_under_every_precision(material, pooling, precision) -> None:
    model = make_model(material, pooling)
    exact = run(model, make_batch(20, 9))
    with Precision(precision, "cpu").autocast():
        outputs = run(model, make_batch(20, 9))
    assert outputs.shape == (2, 6) and outputs.dtype == torch.float32
    assert torch.allclose(outputs, exact, atol=0.1)


def test_the_linear_layer_is_not_rounded_by_autocast(material) -> None:
    """Scores half a step apart on a scale to 5 would come out in steps of 1/64 in bf16."""
    model = make_model(material)
    torch.nn.init.constant_(model.head.bias, 3.0)
    with Precision("bf16", "cpu").autocast():
        outputs = run(model, make_batch(20, 9, 30))
    assert not torch.equal(outputs, outputs.bfloat16().float())


def test_without_dropout_training_mode_is_deterministic(material) -> None:
    model = make_model(material, dropout=0.0).train()
    batch = make_batch(20, 9)
    assert torch.equal(run(model, batch), run(model, batch))
    assert torch.equal(run(model, batch), run(model.eval(), batch))


def test_dropout_acts_in_training_and_only_there(material) -> None:
    model, batch = make_model(material, dropout=0.3), make_batch(20, 9)
    assert torch.equal(run(model, batch), run(model, batch))
    model.train()
    assert not torch.equal(run(model, batch), run(model, batch))


def test_dropout_acts_before_the_linear_layer_too(material) -> None:
    model, batch = make_model(material, dropout=0.3), make_batch(20, 9)
    model.train()
    model.backbone.eval()
    assert not torch.equal(run(model, batch), run(model, batch))


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_hidden_states_are_asked_for_only_when_the_pooling_needs_them(material, pooling) -> None:
    model = make_model(material, pooling)
    returned = []
    model.backbone.register_forward_hook(lambda _, __, output: returned.append(output))
    run(model, make_batch(9))
    layers = returned[0].hidden_states
    assert (layers is not None) == model.pooling.needs_all_layers
    assert layers is None or len(layers) == 3


@pytest.mark.parametrize("pooling", sorted(POOLINGS))
def test_a_text_scores_the_same_alone_and_padded_beside_a_longer_one(material, pooling) -> None:
    model = make_model(material, pooling)
    batch = make_batch(9, 38)
    alone = Batch(batch.input_ids[:1, :9], batch.attention_mask[:1, :9], None)
    assert torch.allclose(run(model, batch)[:1], run(model, alone), atol=1e-5)


def test_what_stands_in_padded_positions_does_not_matter(material) -> None:
    model, batch = make_model(material), make_batch(9, 38)
    other = torch.where(batch.attention_mask == 1, batch.input_ids, 77)
    assert torch.equal(run(model, batch), run(model, Batch(other, batch.attention_mask, None)))


def test_the_bias_starts_at_zero_and_the_weights_as_the_backbones(material) -> None:
    model = make_model(material)
    assert (model.head.bias == 0).all()
    deviation = model.backbone.config.initializer_range
    assert model.head.weight.std().item() == pytest.approx(deviation, rel=0.2)


def test_parameters_bear_the_three_names_that_files_and_rates_go_by(material) -> None:
    names = {name.split(".")[0] for name in make_model(material, "attention").state_dict()}
    assert names == {"backbone", "pooling", "head"}


def test_dropout_samples_are_the_same_vectors_under_masks_of_their_own(material) -> None:
    model, batch = make_model(material, dropout=0.5, samples=4).train(), make_batch(20, 9, 30)
    model.backbone.eval()
    seen: list[torch.Tensor] = []
    model.dropout.register_forward_hook(lambda _, given, output: seen.extend([*given, output]))
    outputs = run(model, batch)
    given, dropped = seen
    assert outputs.shape == (4, 3, 6) and outputs.dtype == torch.float32
    assert all(torch.equal(sample, given[0]) for sample in given)
    masks = dropped != 0
    assert torch.equal(dropped, torch.where(masks, given / 0.5, 0))
    flat = masks.flatten(0, 1)
    assert len(torch.unique(flat, dim=0)) == len(flat) == 12
    expected = torch.stack([model.head(vectors) for vectors in dropped])
    assert torch.allclose(outputs, expected, atol=1e-6)


def test_one_dropout_sample_changes_nothing_and_many_only_training(material) -> None:
    batch = make_batch(20, 9)
    outputs = []
    for samples in (1, 5):
        model = make_model(material, dropout=0.3, samples=samples)
        outputs.append(run(model, batch))
        assert outputs[-1].shape == (2, 6)
    assert torch.equal(*outputs)
    before = torch.get_rng_state()
    run(model, batch)
    assert torch.equal(torch.get_rng_state(), before)
