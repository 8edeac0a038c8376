"""FGM: what it perturbs, how far, and that nothing of it stays."""

from __future__ import annotations

import math
import weakref
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from kernel_lib.errors import TrainingError
from kernel_lib.text.batches import Batch
from kernel_lib.training.adversarial import FGM, GradientProbe, Words, find_words

IDS = torch.tensor([[1, 2, 2, 5], [3, 1, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
BATCH = Batch(IDS, MASK, None)
USED = [1, 2, 3, 5]


def texts_of(batch: Batch) -> list[np.ndarray]:
    """The token ids of a batch's texts, without padding."""
    masks = batch.attention_mask.bool()
    return [ids[mask].numpy() for ids, mask in zip(batch.input_ids, masks, strict=True)]


def words_of(*parts: Batch) -> Words:
    """The words of a batch that goes through the model in these parts."""
    texts = [texts_of(part) for part in parts]
    whole = [ids for part in texts for ids in part]
    return find_words(whole, list(zip(texts, parts, strict=True)), torch.device("cpu"))


WORDS = words_of(BATCH)


def attack(fgm: FGM, words: Words = WORDS) -> AbstractContextManager[torch.Tensor]:
    """The attack after the backward passes of a batch."""
    return fgm.attack(words, fgm.gradient(words))


@torch.no_grad()
def rows_read(words: nn.Embedding) -> torch.Tensor:
    """What the layer gives for each row of its table."""
    return words(torch.arange(words.num_embeddings))


class Toy(nn.Module):
    """Word embeddings and a small network on their masked sum."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.out = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.out((self.words(ids) * mask.unsqueeze(-1)).sum(1)).square().mean()


@pytest.fixture
def toy() -> Toy:
    return Toy()


def test_the_step_is_epsilon_long_along_the_gradient_and_only_on_used_rows(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=0.7)
    before = toy.words.weight.detach().clone()
    toy(IDS, MASK).backward()
    gradient = toy.words.weight.grad.clone()
    with attack(fgm) as weight:
        moved = rows_read(toy.words) - before
    assert weight == 1
    assert moved.norm().item() == pytest.approx(0.7, rel=1e-5)
    assert torch.allclose(moved, 0.7 * gradient / gradient.norm(), atol=1e-6)
    assert moved.abs().sum(1).nonzero().flatten().tolist() == USED


def test_the_loss_is_worse_inside_the_attack(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=0.1)
    clean = toy(IDS, MASK)
    clean.backward()
    with attack(fgm), torch.no_grad():
        assert toy(IDS, MASK) > clean


def test_weights_are_bit_for_bit_as_before(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=1e3)
    before = toy.words.weight.detach().clone()
    toy(IDS, MASK).backward()
    with attack(fgm):
        assert not torch.equal(rows_read(toy.words), before)
        assert torch.equal(toy.words.weight, before)
    assert torch.equal(toy.words.weight, before) and torch.equal(rows_read(toy.words), before)


def test_weights_are_as_before_after_an_exception(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=1.0)
    before = toy.words.weight.detach().clone()
    toy(IDS, MASK).backward()
    with pytest.raises(RuntimeError, match="out of memory"), attack(fgm):
        raise RuntimeError("out of memory")
    assert torch.equal(toy.words.weight, before) and torch.equal(rows_read(toy.words), before)


@pytest.mark.parametrize("scale", [0.0, math.inf, math.nan])
def test_no_attack_on_a_zero_or_non_finite_gradient(toy: Toy, scale: float) -> None:
    fgm = FGM(toy.words, epsilon=1.0)
    before = toy.words.weight.detach().clone()
    (toy(IDS, MASK) * scale).backward()
    with attack(fgm) as weight:
        assert weight == 0
        assert torch.equal(rows_read(toy.words), before)


def test_the_step_does_not_depend_on_the_loss_scale(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=0.5)
    before = toy.words.weight.detach().clone()
    steps = []
    for scale in (1.0, 65536.0):
        (toy(IDS, MASK) * scale).backward()
        with attack(fgm):
            steps.append(rows_read(toy.words) - before)
    assert torch.allclose(*steps, atol=1e-6)


def test_accumulated_gradients_of_other_batches_do_not_steer_the_attack(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=0.5)
    before = toy.words.weight.detach().clone()
    toy(IDS, MASK).backward()
    with attack(fgm):
        alone = rows_read(toy.words) - before
    toy.zero_grad()
    (toy(torch.tensor([[1, 3]]), torch.tensor([[1, 1]])) * 100).backward()
    toy(IDS, MASK).backward()
    with attack(fgm):
        assert torch.allclose(rows_read(toy.words) - before, alone, atol=1e-6)


def test_it_works_on_frozen_embeddings(toy: Toy) -> None:
    toy.words.weight.requires_grad_(False)
    fgm = FGM(toy.words, epsilon=0.5)
    before = toy.words.weight.clone()
    toy(IDS, MASK).backward()
    with attack(fgm) as weight:
        assert weight == 1
        assert (rows_read(toy.words) - before).norm().item() == pytest.approx(0.5, rel=1e-5)
    assert torch.equal(toy.words.weight, before)
    assert toy.words.weight.grad is None


def test_an_attack_without_a_backward_pass_is_refused(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=1.0)
    toy(IDS, MASK)
    with pytest.raises(TrainingError, match="backward pass"):
        fgm.gradient(WORDS)


def test_closing_takes_the_hook_off(toy: Toy) -> None:
    FGM(toy.words, epsilon=1.0).close()
    assert not toy.words._forward_hooks


def test_the_probe_measures_what_was_added(toy: Toy) -> None:
    probe = GradientProbe(toy)
    toy(IDS, MASK).backward()
    probe.mark()
    for parameter in toy.parameters():
        parameter.grad *= 1.5
    clean_and_added = probe.measure()
    assert probe.added_ratio().item() == pytest.approx(0.5)
    for tensor in clean_and_added[: len(clean_and_added) // 2]:
        tensor *= 5  # as a sum over processes changes them
    assert probe.added_ratio().item() == pytest.approx(0.1)


class MadeTensors(TorchFunctionMode):
    """Notes the size of every tensor that is made; the table itself does not count."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.place, self.sizes = table.data_ptr(), [0]

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.data_ptr() != self.place:
            self.sizes.append(made.numel())
        return made


def test_the_table_is_not_copied(toy: Toy) -> None:
    toy.words = nn.Embedding(5000, 4)
    fgm = FGM(toy.words, epsilon=1.0)
    toy(IDS, MASK).backward()
    with MadeTensors(toy.words.weight) as made, attack(fgm) as weight:
        assert weight == 1
    assert 0 < max(made.sizes) < 200


def test_unused_rows_are_not_even_written(toy: Toy) -> None:
    with torch.no_grad():
        toy.words.weight[6:] = -0.0  # adding 0 would make it +0.0
    fgm = FGM(toy.words, epsilon=1.0)
    toy(IDS, MASK).backward()
    with attack(fgm):
        assert torch.signbit(toy.words.weight[6:]).all()


def test_the_second_pass_is_that_of_a_table_with_the_step_in_it_bit_for_bit(toy: Toy) -> None:
    fgm, by_hand = FGM(toy.words, epsilon=0.5), Toy()
    by_hand.load_state_dict(toy.state_dict())
    toy(IDS, MASK).backward()
    gradient = toy.words.weight.grad[USED].clone()
    step = (torch.tensor(0.5, dtype=torch.float64) / gradient.norm()).float() * gradient
    with torch.no_grad():
        by_hand.words.weight[USED] += step
    toy.zero_grad()
    with fgm.attack(WORDS, gradient):
        toy(IDS, MASK).backward()
    by_hand(IDS, MASK).backward()
    for (name, one), other in zip(toy.named_parameters(), by_hand.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad), name


def test_a_head_that_is_tied_to_the_table_is_not_attacked(make_spelling_case) -> None:
    model = make_spelling_case(tied_decoder=True).trainer().model.eval()
    words = model.backbone.get_input_embeddings()
    fgm, batch = FGM(words, epsilon=5.0), Batch(IDS + 5, MASK, None)
    states = torch.randn(1, 3, model.head.dense.in_features)
    clean = model(*batch.inputs).logits
    clean.square().mean().backward()
    scores = model.head(states, words.weight)
    with attack(fgm, words_of(batch)) as weight, torch.no_grad():
        assert weight == 1
        assert torch.equal(model.head(states, words.weight), scores)
        assert not torch.equal(model(*batch.inputs).logits, clean)


def test_padding_is_not_perturbed_though_a_gradient_reaches_it(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=1.0)
    before = toy.words.weight.detach().clone()
    toy(IDS, torch.ones_like(MASK)).backward()
    with attack(fgm):
        moved = rows_read(toy.words) - before
    assert moved.abs().sum(1).nonzero().flatten().tolist() == USED


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_words_are_found_where_they_stand(dtype: type) -> None:
    texts = [np.array([7, 3, 7], dtype), np.array([3], dtype), np.array([9, 1], dtype)]
    whole = [*texts, np.array([2, 7], dtype)]  # that one goes through another process
    widths = [torch.zeros(2, 8), torch.zeros(1, 16)]
    parts = [(texts[:2], Batch(widths[0], widths[0], None))]
    parts += [(texts[2:], Batch(widths[1], widths[1], None))]
    words = find_words(whole, parts, torch.device("cpu"))
    assert words.rows.tolist() == [1, 2, 3, 7, 9]
    assert words.shapes == [(2, 8), (1, 16)]
    assert [p.tolist() for p in words.positions] == [[0, 1, 2, 8], [0, 1]]
    assert [p.tolist() for p in words.places] == [[3, 2, 3, 2], [4, 0]]


def test_shares_of_a_batch_in_several_processes_add_up_to_its_gradient(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=0.5)
    toy(IDS, MASK).backward()
    expected = fgm.gradient(WORDS)
    shares = []
    for part in (Batch(IDS[:1], MASK[:1], None), Batch(IDS[1:, :2], MASK[1:, :2], None)):
        toy(part.input_ids, part.attention_mask).backward()
        words = find_words(texts_of(BATCH), [(texts_of(part), part)], torch.device("cpu"))
        shares.append(fgm.gradient(words) / 2)  # toy's loss is a mean over texts
    nothing = fgm.gradient(find_words(texts_of(BATCH), [], torch.device("cpu")))
    assert torch.allclose(sum(shares, start=nothing), expected, atol=1e-6)
    assert not nothing.any() and nothing.shape == expected.shape


def test_parts_of_a_batch_are_attacked_with_the_step_of_the_whole(toy: Toy) -> None:
    def loss(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = toy.words(ids) * mask.unsqueeze(-1)
        return toy.out(hidden.sum(1)).square().sum() / len(IDS)  # a share by rows

    fgm = FGM(toy.words, epsilon=0.5)
    before = toy.words.weight.detach().clone()
    loss(IDS, MASK).backward()
    with attack(fgm):
        whole = rows_read(toy.words) - before
    parts = [Batch(IDS[:1], MASK[:1], None), Batch(IDS[1:, :2], MASK[1:, :2], None)]
    for part in parts:
        loss(part.input_ids, part.attention_mask).backward()
    with attack(fgm, words_of(*parts)) as weight:
        assert weight == 1
        assert torch.allclose(rows_read(toy.words) - before, whole, atol=1e-6)
    assert torch.equal(toy.words.weight, before)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_forward_pass_that_is_made_again_does_not_count_twice(toy: Toy, frozen: bool) -> None:
    toy.words.weight.requires_grad_(not frozen)
    fgm = FGM(toy.words, epsilon=0.5)
    before = toy.words.weight.detach().clone()
    passes: list[int] = []
    toy.words.register_forward_hook(lambda *_: passes.append(1))

    def loss(again: bool) -> torch.Tensor:
        if again:
            return checkpoint(toy, IDS, MASK, use_reentrant=False, preserve_rng_state=False)
        return toy(IDS, MASK)

    steps, gradients = [], []
    for again in (False, True):
        loss(again).backward()
        passes.clear()
        with attack(fgm) as weight:
            assert weight == 1
            steps.append(rows_read(toy.words) - before)
            toy.zero_grad()
            loss(again).backward()
            gradients.append(toy.out[0].weight.grad.clone())
        assert len(passes) == (3 if again else 2)  # one of them looks at the rows
    assert torch.allclose(*steps, atol=1e-6) and torch.allclose(*gradients, atol=1e-6)


def test_other_batches_than_those_of_the_backward_passes_are_refused(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=1.0)
    toy(IDS, MASK).backward()
    for wrong in ([BATCH, BATCH], [Batch(IDS[:1], MASK[:1], None)]):
        with pytest.raises(TrainingError, match="same parts"):
            fgm.gradient(words_of(*wrong))


def test_nothing_is_held_after_an_attack_or_when_told_to_forget(toy: Toy) -> None:
    fgm = FGM(toy.words, epsilon=1.0)
    gradients: list[weakref.ref] = []

    def look(module, inputs, output) -> None:
        output.register_hook(lambda gradient: gradients.append(weakref.ref(gradient)))

    toy.words.register_forward_hook(look)
    toy(IDS, MASK).backward()
    with attack(fgm):
        toy(IDS, MASK).backward()
    assert [reference() for reference in gradients] == [None, None]
    toy(IDS, MASK).backward()
    assert gradients[2]() is not None
    fgm.forget()
    assert gradients[2]() is None
