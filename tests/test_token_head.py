"""Words from their pieces by hand, the head on them, and the model under the kit's tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kernel_lib.artifacts import load_weights, save_tensors
from kernel_lib.config import TrainingSettings
from kernel_lib.errors import SettingsError
from kernel_lib.model.attention import use_fast_attention
from kernel_lib.model.backbone import checkpoint_activations
from kernel_lib.model.crf import gather_words
from kernel_lib.model.token_head import (
    TokenModel,
    WordProbabilities,
    crf_loss,
    first_tokens,
    pool_words,
)
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch
from kernel_lib.training.adversarial import FGM
from kernel_lib.training.optimizer import parameter_groups
from kernel_lib.training.token_losses import IGNORE, token_focal_loss
from tests.test_adversarial import attack, words_of
from tests.test_corrector import FAMILIES, IDS, MASK
from tests.test_crf import bio
from tests.test_vocabulary_head import tiny_encoder

# A text's beginning with a word of two pieces; and a window that begins and ends within words, in
# which word 8 has no token.
WORDS = torch.tensor([[-1, 0, 0, 1, 2, -1, -1, -1], [-1, 6, 6, 6, 7, 9, 9, -1]])
FIRST = torch.tensor([[0, 1, 0, 1, 1, 0, 0, 0], [0, 1, 0, 0, 1, 1, 0, 0]], dtype=torch.bool)
LABELS = torch.tensor(
    [
        [IGNORE, 1, IGNORE, 2, 0, IGNORE, IGNORE, IGNORE],
        [IGNORE, 2, IGNORE, IGNORE, 0, 3, IGNORE, IGNORE],
    ]
)


def make(family: str = "bert", **changes) -> TokenModel:
    encoder = tiny_encoder(family, **FAMILIES[family])
    use_fast_attention(encoder)
    settings = {"num_labels": 5, "dropout": 0.0, "subtoken": "mean", "crf": False, **changes}
    if settings["crf"]:
        settings["illegal"] = bio()
    model = TokenModel(encoder, **settings).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def loss_of(model, rows: slice = slice(None)) -> torch.Tensor:
    output = model(IDS[rows], MASK[rows], WORDS[rows])
    if model.crf is None:
        return token_focal_loss(output.logits, LABELS[rows], gamma=0.0)
    return crf_loss(output, LABELS[rows])


# pooling


@pytest.mark.parametrize(
    ("subtoken", "pooled"),
    [
        ("first", [[0, 2, 0, 7, 1, 0, 0, 0], [0, 1, 0, 0, 8, 3, 0, 0]]),
        ("last", [[0, 4, 0, 7, 1, 0, 0, 0], [0, 6, 0, 0, 8, 9, 0, 0]]),
        ("mean", [[0, 3, 0, 7, 1, 0, 0, 0], [0, 3, 0, 0, 8, 6, 0, 0]]),
    ],
)
def test_a_words_vector_by_hand(subtoken: str, pooled: list[list[float]]) -> None:
    states = torch.tensor([[50.0, 2, 4, 7, 1, 60, 70, 80], [50, 1, 2, 6, 8, 3, 9, 60]])
    states = torch.stack([states, -states], -1)
    found = pool_words(states, WORDS, subtoken)
    assert found[..., 0].tolist() == pooled and torch.equal(found[..., 1], -found[..., 0])
    assert torch.equal(first_tokens(WORDS), FIRST)


def test_the_example_of_the_docstring() -> None:
    words, states = torch.tensor([[-1, 4, 4, 6]]), torch.tensor([[9.0, 1, 2, 5]])[..., None]
    assert pool_words(states, words, "mean").flatten().tolist() == [0, 1.5, 0, 5]


@pytest.mark.parametrize("subtoken", ["first", "last", "mean"])
def test_pooling_equals_a_loop_over_words_and_so_does_its_gradient(subtoken: str) -> None:
    rng = np.random.default_rng(0)
    rows = [np.repeat(np.arange(40) * 2 + 3, rng.integers(0, 5, 40))[:50] for _ in range(6)]
    rows[0] = np.full(50, -1)  # no word at all
    rows[1] = np.arange(50)  # one token each, no special ones
    rows[2] = np.zeros(50)  # one word
    words = torch.full((6, 50), -1)
    for row, numbers in enumerate(rows):
        words[row, : len(numbers)] = torch.from_numpy(numbers)
    states = torch.randn(6, 50, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros_like(states)
    for row in range(6):
        for word in set(words[row].tolist()) - {-1}:
            places = (words[row] == word).nonzero().flatten()
            pieces = states[row, places]
            pooled = {"first": pieces[0], "last": pieces[-1], "mean": pieces.mean(0)}[subtoken]
            expected = expected.index_put((torch.tensor(row), places[0]), pooled)
    found = pool_words(states, words, subtoken)
    assert torch.allclose(found, expected, atol=1e-15)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), states)[0]
    assert torch.allclose(torch.autograd.grad((found * weights).sum(), states)[0], wanted)


# the model


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("subtoken", ["first", "last", "mean"])
def test_logits_are_the_heads_of_the_words_vectors_and_0_elsewhere(family, subtoken) -> None:
    model = make(family, subtoken=subtoken)
    torch.nn.init.normal_(model.head.bias)
    output = model(IDS, MASK, WORDS)
    states = model.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
    expected = pool_words(states, WORDS, subtoken) @ model.head.weight.T + model.head.bias
    assert torch.allclose(output.logits[FIRST], expected[FIRST], atol=1e-5)
    assert not output.logits[~FIRST].any() and torch.equal(output.first, FIRST)
    assert output.logits.shape == (2, 8, 5) and output.logits.dtype == torch.float32
    assert output.crf is None


def test_a_row_continues_a_text_unless_its_first_word_is_there() -> None:
    assert make()(IDS, MASK, WORDS).continues.tolist() == [False, True]


def test_other_pieces_and_special_tokens_have_no_say() -> None:
    """Labels at other tokens would count in a loss: their logits are 0, so there must be none."""
    model = make(subtoken="first")
    states = model.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state

    class Encoded:
        last_hidden_state = torch.where(FIRST[..., None], states, torch.nan)

    model.backbone.forward = lambda **_: Encoded()
    model.zero_grad()
    loss_of(model).backward()
    assert torch.isfinite(model.head.weight.grad).all()


def test_dropout_acts_in_training_alone() -> None:
    model = make(dropout=0.5)
    assert torch.equal(model(IDS, MASK, WORDS).logits, model(IDS, MASK, WORDS).logits)
    model.train()
    assert not torch.equal(model(IDS, MASK, WORDS).logits, model(IDS, MASK, WORDS).logits)


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_logits_and_loss_are_float32_and_close_under_autocast(precision: str, crf: bool) -> None:
    model = make(crf=crf)
    exact = model(IDS, MASK, WORDS).logits
    with Precision(precision, "cpu").autocast():
        logits = model(IDS, MASK, WORDS).logits
        loss = loss_of(model)
        probabilities = WordProbabilities(model)(IDS, MASK, WORDS)
    assert logits.dtype == loss.dtype == probabilities.dtype == torch.float32
    assert torch.allclose(logits, exact, atol=0.3)
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_padding_changes_nothing(family: str) -> None:
    model = make(family, crf=True)
    alone = WordProbabilities(model)(IDS[:1, :6], MASK[:1, :6], WORDS[:1, :6])
    found = WordProbabilities(model)(IDS, MASK, WORDS)
    assert torch.allclose(found[:1, :6], alone, atol=1e-4) and not found[0, 6:].any()


def test_states_of_half_precision_are_averaged_in_float32() -> None:
    model, states = make(), torch.randn(2, 8, 16).bfloat16()

    class Encoded:
        last_hidden_state = states

    model.backbone.forward = lambda **_: Encoded()
    expected = pool_words(states.float(), WORDS, "mean") @ model.head.weight.T
    logits = model(IDS, MASK, WORDS).logits
    assert logits.dtype == torch.float32 and torch.allclose(logits, expected, atol=1e-5)


def test_an_unknown_subtoken_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean 'mean'"):
        make(subtoken="means")


# the loss


def test_the_crf_loss_is_the_mean_over_rows_of_that_of_a_word() -> None:
    model = make(crf=True)
    torch.nn.init.normal_(model.crf.transitions)
    output = model(IDS, MASK, WORDS)
    emissions, mask = gather_words(output.logits, output.first)
    tags = torch.tensor([[1, 2, 0], [2, 0, 3]])
    continues = torch.tensor([False, True])
    losses = model.crf.negative_log_likelihood(emissions, tags, mask, continues)
    assert torch.allclose(crf_loss(output, LABELS), (losses / 3).mean())
    elsewhere = LABELS.masked_fill(~FIRST, 4)  # labels of other tokens are not looked at
    assert torch.equal(crf_loss(output, elsewhere), crf_loss(output, LABELS))
    half = LABELS.clone()
    half[0, 3], half[1] = IGNORE, IGNORE
    losses = model.crf.negative_log_likelihood(
        emissions[:1], torch.tensor([[1, -1, 0]]), mask[:1], continues[:1]
    )
    assert torch.allclose(crf_loss(output, half), losses[0] / 2 / 2)


def test_an_untrained_crf_costs_what_a_softmax_does() -> None:
    model = make(crf=True)
    model.crf._illegal.fill_(False)
    output = model(IDS, MASK, WORDS)
    softmax = token_focal_loss(output.logits, LABELS, gamma=0.0)
    assert torch.allclose(crf_loss(output, LABELS), softmax, atol=1e-6)


@pytest.mark.parametrize("crf", [False, True])
def test_a_batch_in_parts_gives_the_same_gradient(crf: bool) -> None:
    model = make(crf=crf)
    whole = loss_of(model)
    whole.backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    parts = [loss_of(model, slice(row, row + 1)) / 2 for row in range(2)]
    sum(parts).backward()
    assert torch.allclose(sum(parts), whole, atol=1e-6)
    for wanted, parameter in zip(gradients, model.parameters(), strict=True):
        assert torch.allclose(parameter.grad, wanted, atol=1e-6)


@pytest.mark.parametrize("crf", [False, True])
def test_a_batch_without_any_word_or_label_has_a_loss_of_0(crf: bool) -> None:
    model = make(crf=crf)
    nothing = torch.full_like(WORDS, -1)
    output = model(IDS, MASK, nothing)
    assert not output.logits.any() and not output.first.any()
    assert not WordProbabilities(model)(IDS, MASK, nothing).any()
    unlabelled = torch.full_like(LABELS, IGNORE)
    for given in (output, model(IDS, MASK, WORDS)):
        if crf:
            loss = crf_loss(given, unlabelled)
        else:
            loss = token_focal_loss(given.logits, unlabelled, gamma=0.0)
        model.zero_grad()
        loss.backward()
        assert loss.detach().abs() < 1e-6
        assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in model.parameters())


# predicting


def test_log_probabilities_are_a_softmax_or_the_crfs_marginals() -> None:
    model = make()
    logits = model(IDS, MASK, WORDS).logits
    found = WordProbabilities(model)(IDS, MASK, WORDS)
    assert torch.equal(found[FIRST], torch.log_softmax(logits[FIRST], -1))
    assert not found[~FIRST].any()
    model = make(crf=True)
    for parameter in model.crf.parameters():
        torch.nn.init.normal_(parameter)
    output = model(IDS, MASK, WORDS)
    found = WordProbabilities(model)(IDS, MASK, WORDS)
    for row in range(2):
        emissions = output.logits[row, FIRST[row]][None]
        there = torch.ones(emissions.shape[:2], dtype=torch.bool)
        wanted = model.crf.marginals(emissions, there, output.continues[row, None])
        assert torch.allclose(found[row, FIRST[row]], wanted[0], atol=1e-6)
    assert not found[~FIRST].any() and torch.isfinite(found).all()
    sums = found.exp().sum(-1)
    assert torch.allclose(sums[FIRST], torch.ones(int(FIRST.sum())))


def test_its_mode_is_the_models() -> None:
    model = make()
    wrapper = WordProbabilities(model)
    assert not wrapper.training
    model.train()
    assert wrapper.training
    wrapper.eval()
    assert not model.training


# under the kit's training tools


def test_every_parameter_learns_and_the_crfs_at_the_heads_rate() -> None:
    model = make(crf=True).train()
    loss_of(model).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    settings = TrainingSettings(learning_rate=1e-5, head_learning_rate=1e-3)
    groups = parameter_groups(model, settings)
    heads = [id(p) for group in groups if group["lr"] == 1e-3 for p in group["params"]]
    own = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    assert sorted(heads) == sorted(map(id, own)) and len(own) == 5


@pytest.mark.parametrize("crf", [False, True])
def test_weights_are_saved_once_each_and_loaded_strictly(crf: bool, tmp_path: Path) -> None:
    model = make(crf=crf)
    state = model.state_dict()
    own = {name for name in state if not name.startswith("backbone.")}
    chain = {"crf.start", "crf.end", "crf.transitions"} if crf else set()
    assert own == {"head.weight", "head.bias"} | chain
    save_tensors(state, tmp_path / "model.safetensors")
    other = make(crf=crf)
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(loss_of(other), loss_of(model))


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_checkpointing_changes_no_gradient(family: str) -> None:
    gradients = []
    for checkpoints in (False, True):
        model = make(family, crf=True).train()
        torch.manual_seed(3)
        torch.nn.init.normal_(model.head.weight)
        if checkpoints:
            checkpoint_activations(model.backbone)
        loss_of(model).backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert (plain is None) == (recomputed is None)
        assert plain is None or torch.allclose(plain, recomputed, atol=1e-6)


@pytest.mark.parametrize("crf", [False, True])
def test_fgm_finds_the_embeddings_and_leaves_them_as_they_were(crf: bool) -> None:
    model = make(crf=crf).train()
    table = model.backbone.get_input_embeddings()
    before, fgm = table.weight.detach().clone(), FGM(table, epsilon=1.0)
    clean = loss_of(model)
    clean.backward()
    with attack(fgm, words_of(Batch(IDS, MASK, None))) as weight:
        assert loss_of(model) > clean and float(weight) == 1.0
    assert torch.equal(table.weight, before)
    fgm.close()


@pytest.mark.parametrize("subtoken", ["first", "last", "mean"])
@pytest.mark.parametrize("crf", [False, True])
def test_it_learns(crf: bool, subtoken: str) -> None:
    model = make(crf=crf, subtoken=subtoken).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    tags = WordProbabilities(model)(IDS, MASK, WORDS).argmax(-1)
    assert torch.equal(tags[FIRST], LABELS[FIRST])
