"""One vector a text from a frozen encoder."""

from __future__ import annotations

import torch

from kernel_lib.model.backbone import load_backbone
from kernel_lib.model.embedding import FIXED_POOLINGS, Embedder


def test_poolings_of_layers_stand_side_by_side_without_padding(material) -> None:
    backbone = load_backbone(material.backbone, dropout=0.0)
    model = Embedder(backbone, poolings=FIXED_POOLINGS, layers=2).eval()
    ids, mask = torch.randint(5, 400, (2, 16)), torch.ones(2, 16, dtype=torch.int64)
    mask[1, 10:] = 0
    with torch.no_grad():
        found = model(ids, mask)
        states = backbone(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    assert found.shape == (2, model.output_size) == (2, 4 * 2 * 32)
    last, below = states.hidden_states[-1][1, :10], states.hidden_states[-2][1, :10]
    parts = [
        part
        for layer in (last, below)
        for part in (layer.mean(0), layer.amax(0), layer.amin(0), layer[0])
    ]
    assert torch.allclose(found[1], torch.cat(parts), atol=1e-6)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_one_layer_is_the_last_one_and_no_more_are_read_than_there_are(material) -> None:
    backbone = load_backbone(material.backbone, dropout=0.0)
    ids, mask = torch.randint(5, 400, (2, 8)), torch.ones(2, 8, dtype=torch.int64)
    with torch.no_grad():
        found = Embedder(backbone, poolings=("mean",)).eval()(ids, mask)
        expected = backbone(input_ids=ids, attention_mask=mask).last_hidden_state.mean(1)
    assert torch.allclose(found, expected, atol=1e-6)
    assert Embedder(backbone, poolings=("mean", "max"), layers=9).output_size == 2 * 2 * 32
