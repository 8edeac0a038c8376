"""The loss over hidden tokens, and the updates."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from kernel_lib.model.backbone import load_backbone
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import IGNORE, Batch
from kernel_lib.training.masked_language import MaskedLanguageModel, Recipe, masked_updates

IDS = torch.tensor([[1, 9, 8, 7, 2, 0, 0, 0], [1, 5, 6, 7, 30, 31, 32, 2]])
BATCH = Batch(
    IDS,
    (IDS != 0).long(),
    torch.tensor(
        [
            [IGNORE, 11, IGNORE, 7, IGNORE, IGNORE, IGNORE, IGNORE],
            [IGNORE, IGNORE, IGNORE, 50, IGNORE, IGNORE, IGNORE, IGNORE],
        ]
    ),
)
NOTHING = Batch(IDS, BATCH.attention_mask, torch.full_like(IDS, IGNORE))


@pytest.fixture
def model(material) -> MaskedLanguageModel:
    return MaskedLanguageModel(load_backbone(material.backbone, dropout=0.0), None)


def test_the_loss_is_the_mean_over_the_tokens_to_be_named(model) -> None:
    with torch.no_grad():
        model.head.bias.normal_()
        states = model.backbone(input_ids=IDS, attention_mask=BATCH.attention_mask)[0]
        hidden = functional.gelu(model.head.dense(states)).double().numpy()
    hidden = hidden - hidden.mean(-1, keepdims=True)
    hidden = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-7)
    table = model.backbone.embeddings.word_embeddings.weight.detach().double().numpy()
    logits = hidden @ table.T + model.head.bias.detach().double().numpy()
    losses = []
    for row, place, token in ((0, 1, 11), (0, 3, 7), (1, 3, 50)):
        of_token = logits[row, place]
        losses.append(np.log(np.exp(of_token).sum()) - of_token[token])
    total, count = model(BATCH)
    assert count == 3 and total.item() == pytest.approx(sum(losses), rel=1e-4)
    assert model.mean_loss(BATCH).item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_batch_without_a_token_to_be_named_has_no_loss(model) -> None:
    loss = model.mean_loss(NOTHING)
    loss.backward()
    assert loss == 0


def test_the_rate_follows_what_is_done_and_all_ends_with_it(model, monkeypatch) -> None:
    shares, rates = iter([0.05, 0.1, 0.55, 1.0]), []
    step = torch.optim.AdamW.step

    def noting(optimizer, *args):
        rates.append([group["lr"] for group in optimizer.param_groups])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", noting)
    updates = masked_updates(
        model,
        model.mean_loss,
        [(number, BATCH) for number in range(9)],
        Recipe(learning_rate=0.01, weight_decay=0.0, warm_up=0.1),
        share_done=lambda: next(shares),
        precision=Precision("float32", "cpu"),
    )
    epochs, losses = zip(*updates, strict=True)
    assert epochs == (0, 1, 2)
    assert losses[2] < losses[0]
    expected = [[0.005] * 2, [0.01] * 2, [0.005] * 2]
    assert np.allclose(rates, expected)


@pytest.mark.parametrize("precision", ["float32", "fp16"])
def test_an_update_that_is_not_finite_is_left_out(model, precision: str) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    factors = iter([float("inf"), 1.0])
    updates = masked_updates(
        model,
        lambda batch: model.mean_loss(batch) * next(factors),
        [(0, BATCH)] * 2,
        Recipe(learning_rate=0.01, weight_decay=0.0, warm_up=0.1),
        share_done=lambda: 0.5,
        precision=Precision(precision, "cpu"),
    )
    next(updates)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    next(updates)
    assert not torch.equal(model.head.bias, before["head.bias"])
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
