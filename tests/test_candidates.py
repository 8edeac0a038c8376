"""Candidates: equal to a softmax and a sort by hand, and the model's own mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from kernel_lib.errors import BackboneError
from kernel_lib.model import candidates
from kernel_lib.model.candidates import Candidates
from kernel_lib.model.corrector import CorrectorOutput
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Example
from kernel_lib.training.prediction import predict
from tests import test_corrector, test_masked_corrector
from tests.test_corrector import IDS, MASK

WRITABLE = torch.arange(60) >= 10


class Fixed(nn.Module):
    """A model that gives the same logits for every text."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> CorrectorOutput:
        return CorrectorOutput(self.logits, None)


def by_hand(logits, ids, writable, keep_ids: set[int], count: int) -> np.ndarray:
    """Each token for itself, in float64, with Python's sort."""
    rows = []
    for scores, token in zip(logits.double().flatten(0, 1), ids.flatten().tolist(), strict=True):
        p = (scores.exp() / scores.exp().sum()).tolist()
        row = [sum(p[label] for label in {token, *keep_ids})]
        others = [i for i in range(len(writable)) if writable[i] and i not in {token, *keep_ids}]
        best = sorted(others, key=lambda i: -p[i])[:count]
        for label in best:
            row += [label, p[label]]
        rows.append(row + [0.0] * (1 + 2 * count - len(row)))
    return np.array(rows).reshape(*ids.shape, 1 + 2 * count)


def expect(found: torch.Tensor, wanted: np.ndarray) -> None:
    assert found.dtype == torch.float32 and tuple(found.shape) == wanted.shape
    assert found[..., 1::2].tolist() == wanted[..., 1::2].tolist()
    assert np.allclose(found.numpy(), wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("at_once", [1, 60 * 5, 1 << 24])
@pytest.mark.parametrize("keep_ids", [(0, 1), ()])
def test_they_equal_a_softmax_and_a_sort(monkeypatch, at_once: int, keep_ids) -> None:
    monkeypatch.setattr(candidates, "AT_ONCE", at_once)
    logits = torch.randn(2, 8, 60) * 4
    ids = IDS.clone()
    ids[1, 7] = 1  # a keep id as the character itself is counted once
    found = Candidates(Fixed(logits), WRITABLE, keep_ids=keep_ids)(ids, MASK)
    expect(found, by_hand(logits, ids, WRITABLE, set(keep_ids), 5))


def test_a_keep_id_is_never_proposed_though_it_be_writable() -> None:
    logits = torch.randn(2, 8, 60)
    logits[..., 11] += 9
    wrapper = Candidates(Fixed(logits), WRITABLE, keep_ids=(11,), count=3)
    expect(wrapper(IDS, MASK), by_hand(logits, IDS, WRITABLE, {11}, 3))
    assert WRITABLE[11], "the caller's own was changed"


@pytest.mark.parametrize("writable_ids", [[], [11], [11, 12, 13]])
def test_where_too_few_are_writable_id_and_probability_are_0(writable_ids: list[int]) -> None:
    logits, writable = torch.randn(2, 8, 60), torch.zeros(60, dtype=torch.bool)
    writable[writable_ids] = True
    found = Candidates(Fixed(logits), writable, keep_ids=(0, 1), count=4)(IDS, MASK)
    expect(found, by_hand(logits, IDS, writable, {0, 1}, 4))
    assert not found[..., 7:].any()


@pytest.mark.parametrize("size", [3, 40])
def test_ids_beyond_the_end_of_writable_are_not(size: int) -> None:
    logits, writable = torch.randn(2, 8, 60), torch.ones(size, dtype=torch.bool)
    found = Candidates(Fixed(logits), writable, keep_ids=(0, 1), count=5)(IDS, MASK)
    expect(found, by_hand(logits, IDS, writable, {0, 1}, 5))


def test_huge_logits_are_no_harm() -> None:
    logits = torch.full((2, 8, 60), -1e4)
    logits[..., 20] = 1e4
    found = Candidates(Fixed(logits), WRITABLE, keep_ids=(0, 1), count=2)(IDS, MASK)
    assert found[..., 1:].unique(dim=0).tolist()[0][0] == [20, 1, 0, 0]
    assert torch.isfinite(found).all()


def test_large_ids_are_exact_and_too_large_vocabularies_refused() -> None:
    assert torch.tensor(candidates.EXACT_IDS - 1).float().int() == candidates.EXACT_IDS - 1
    too_many = torch.zeros(1, dtype=torch.bool).expand(candidates.EXACT_IDS + 1)
    with pytest.raises(BackboneError, match="16,777,217 entries"):
        Candidates(Fixed(torch.zeros(1)), too_many, keep_ids=())


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_of_both_systems_by_every_precision(precision: str) -> None:
    for made, keep_ids in ((test_corrector.make(), (0, 1)), (test_masked_corrector.make(), ())):
        wrapper = Candidates(made, WRITABLE, keep_ids=keep_ids)
        with torch.no_grad(), Precision(precision, "cpu").autocast():
            logits = made(IDS, MASK).logits
            found = wrapper(IDS, MASK)
        wanted = by_hand(logits, IDS, WRITABLE, set(keep_ids), 5)
        assert np.allclose(found[..., [0, 2, 4, 6, 8, 10]], wanted[..., [0, 2, 4, 6, 8, 10]])
        # In bf16 some are equally likely, and their order is free.
        of_found = torch.softmax(logits, -1).gather(-1, found[..., 1::2].long())
        assert torch.allclose(of_found, found[..., 2::2])
        assert WRITABLE[found[..., 1::2].long()].all()
        assert not found.requires_grad and not wrapper(IDS, MASK).requires_grad


def test_the_models_logits_stay_as_they_are() -> None:
    logits = torch.randn(2, 8, 60)
    before = logits.clone()
    Candidates(Fixed(logits), WRITABLE, keep_ids=(0, 1))(IDS, MASK)
    assert torch.equal(logits, before)


def test_it_shares_the_model_and_its_mode() -> None:
    model = test_corrector.make(dropout=0.5)
    wrapper = Candidates(model, WRITABLE, keep_ids=(0, 1))
    assert wrapper.model is model
    assert {id(p) for p in wrapper.parameters()} == {id(p) for p in model.parameters()}
    assert not wrapper.training
    model.train()
    assert wrapper.training
    wrapper.eval()
    assert not model.training and not model.dropout.training
    wrapper.train()
    assert model.training and model.dropout.training


@pytest.mark.parametrize("training", [True, False])
def test_prediction_leaves_the_model_in_the_mode_it_was_in(training: bool) -> None:
    model = test_corrector.make()
    wrapper = Candidates(model, WRITABLE, keep_ids=(0, 1))
    model.train(training)  # not through the wrapper
    examples = [Example(str(row), ids.numpy().astype(np.int32)) for row, ids in enumerate(IDS)]
    found = predict(
        wrapper,
        examples,
        pad_id=0,
        batch_tokens=64,
        device=torch.device("cpu"),
        precision=Precision("float32", "cpu"),
    )
    assert model.training == training and model.backbone.training == training
    expected = wrapper.eval()(IDS, torch.ones_like(IDS)).numpy()
    assert np.allclose(found.reshape(expected.shape), expected, rtol=1e-5)


def test_nothing_of_it_is_in_a_weight_file() -> None:
    model = test_corrector.make()
    wrapper = Candidates(model, WRITABLE, keep_ids=(0, 1))
    assert set(wrapper.state_dict()) == {f"model.{name}" for name in model.state_dict()}
