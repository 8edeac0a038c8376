"""The head over the vocabulary: tied or not, its precision, and a pretrained start."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional
from transformers import AutoConfig, AutoModel

from kernel_lib.model.vocabulary_head import VocabularyHead, initialise, word_table
from kernel_lib.runtime.device import Precision

COPY, NEVER = 1, 33
TINY = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def tiny_encoder(family: str = "bert", **settings):
    """An encoder of random weights, its embeddings spread enough to tell the ids apart."""
    config = AutoConfig.for_model(
        family,
        **{**TINY, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        **settings,
    )
    torch.manual_seed(1)
    encoder = AutoModel.from_config(config, attn_implementation="eager")
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    with torch.no_grad():
        encoder.get_input_embeddings().weight.normal_()
    return encoder.eval()


def states(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, 16)


def test_tied_logits_are_the_formula_but_for_the_copy_entry() -> None:
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=True, copy_id=COPY)
    torch.nn.init.normal_(head.bias)
    torch.nn.init.normal_(head.norm.weight)
    z, table = states(2, 5), word_table(encoder)
    activated = functional.gelu(z @ head.dense.weight.T + head.dense.bias)
    centred = activated - activated.mean(-1, keepdim=True)
    spread = (activated.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()
    transformed = centred / spread * head.norm.weight + head.norm.bias
    expected = transformed @ table.T + head.bias
    expected[..., COPY] = transformed @ head.copy_row + head.bias[COPY]
    assert torch.allclose(head(z, table), expected, atol=1e-4)


def test_without_a_copy_entry_every_row_is_the_tables() -> None:
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=True)
    z, table = states(2, 5), word_table(encoder)
    transformed = head.norm(functional.gelu(head.dense(z)))
    assert head.copy_row is None
    assert torch.allclose(head(z, table), transformed @ table.T, atol=1e-5)


def test_a_decoder_of_ones_own_never_looks_at_the_table() -> None:
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=False, copy_id=COPY)
    z = states(2, 5)
    other = torch.full_like(word_table(encoder), torch.nan)
    assert torch.equal(head(z, other), head(z, word_table(encoder)))
    assert head.copy_row is None and head.decoder.weight.shape == (60, 16)


@pytest.mark.parametrize("tied", [True, False])
def test_the_table_is_not_among_the_heads_parameters(tied: bool) -> None:
    names = {
        True: {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias", "copy_row"},
        False: {
            "dense.weight",
            "dense.bias",
            "norm.weight",
            "norm.bias",
            "bias",
            "decoder.weight",
        },
    }
    head = VocabularyHead(tiny_encoder(), tied=tied, copy_id=COPY)
    assert set(head.state_dict()) == names[tied]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_logits_are_float32_with_biases_that_are_not_rounded(tied: bool, precision: str) -> None:
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=tied, copy_id=COPY, orthogonal=True)
    torch.nn.init.constant_(head.bias, 100.001)  # rounded to 100 in both
    z, table = states(2, 5), word_table(encoder)
    exact = head(z, table)
    with Precision(precision, "cpu").autocast():
        logits = head(z, table)
    assert logits.dtype == exact.dtype == torch.float32
    assert not torch.equal(logits, exact), "the product is not computed in the autocast's type"
    assert torch.allclose(logits, exact, atol=0.2)
    products = logits.double() - head.bias.double()
    half = getattr(torch, {"bf16": "bfloat16", "fp16": "float16"}[precision])
    assert torch.allclose(products, products.to(half).double(), atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_gradients_reach_the_table_the_copy_row_and_every_bias(precision: str) -> None:
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=True, copy_id=COPY)
    table = word_table(encoder)
    z = states(2, 5).requires_grad_()
    weights = torch.randn(2, 5, 60)
    with Precision(precision, "cpu").autocast():
        (head(z, table) * weights).sum().backward()
    transformed = head.norm(functional.gelu(head.dense(z))).detach()
    expected = torch.einsum("bsv,bsw->vw", weights, transformed)
    close = {"atol": 1e-4 if precision == "float32" else 0.3}
    assert torch.allclose(head.copy_row.grad, expected[COPY], **close)
    expected[COPY] = 0  # that row of the table is not used
    assert torch.allclose(table.grad, expected, **close)
    assert torch.allclose(head.bias.grad, weights.sum((0, 1)), atol=1e-5)
    assert z.grad.abs().sum() > 0


def is_orthogonal(weight: torch.Tensor) -> bool:
    small = weight.T @ weight if weight.shape[0] >= weight.shape[1] else weight @ weight.T
    return torch.allclose(small, torch.eye(len(small)), atol=1e-5)


@pytest.mark.parametrize("orthogonal", [True, False])
def test_orthogonal_reaches_both_matrices_of_an_untied_head(orthogonal: bool) -> None:
    head = VocabularyHead(tiny_encoder(), tied=False, orthogonal=orthogonal)
    assert is_orthogonal(head.dense.weight) == orthogonal
    assert is_orthogonal(head.decoder.weight) == orthogonal
    if not orthogonal:
        assert head.decoder.weight.std().item() == pytest.approx(0.02, rel=0.2)


def test_a_tied_orthogonal_head_leaves_the_table_alone() -> None:
    encoder = tiny_encoder()
    before = word_table(encoder).clone()
    assert is_orthogonal(VocabularyHead(encoder, tied=True, orthogonal=True).dense.weight)
    assert torch.equal(word_table(encoder), before)


def test_initialise_zeroes_the_bias() -> None:
    linear = torch.nn.Linear(4, 4)
    initialise(linear, orthogonal=True, deviation=0.02)
    assert is_orthogonal(linear.weight) and not linear.bias.any()


NARROW = [
    ("electra", {"embedding_size": 8}),
    ("albert", {"embedding_size": 8}),
    ("deberta-v2", {"embedding_size": 8, "relative_attention": True, "type_vocab_size": 0}),
]


@pytest.mark.parametrize(("family", "settings"), NARROW)
def test_narrow_embeddings_are_tied_at_their_own_width(family: str, settings) -> None:
    encoder = tiny_encoder(family, **settings)
    assert word_table(encoder).shape == (60, 8)
    head = VocabularyHead(encoder, tied=True, copy_id=COPY)
    assert head.dense.weight.shape == (8, 16)
    assert head(states(2, 5), word_table(encoder)).shape == (2, 5, 60)
    untied = VocabularyHead(encoder, tied=False)
    assert untied.decoder.weight.shape == (60, 16)


# a pretrained start


def pretrained(vocabulary: int = 60, width: int = 16) -> dict[str, torch.Tensor]:
    return {
        "dense.weight": torch.randn(width, 16),
        "dense.bias": torch.randn(width),
        "norm.weight": torch.randn(width),
        "norm.bias": torch.randn(width),
        "bias": torch.randn(vocabulary),
    }


def test_a_pretrained_head_is_taken_over_except_for_the_copy_entry() -> None:
    head, given = VocabularyHead(tiny_encoder(), tied=True, copy_id=COPY), pretrained()
    row = head.copy_row.clone()
    assert head.start_from(given)
    state = head.state_dict()
    for name in ("dense.weight", "dense.bias", "norm.weight", "norm.bias"):
        assert torch.equal(state[name], given[name]), name
    assert head.bias[COPY] == 0 and torch.equal(head.copy_row, row)
    others = torch.arange(60) != COPY
    assert torch.equal(head.bias[others], given["bias"][others])
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_without_a_copy_entry_the_whole_bias_is_taken() -> None:
    head, given = VocabularyHead(tiny_encoder(), tied=True), pretrained()
    assert head.start_from(given) and torch.equal(head.bias, given["bias"])


def test_entries_added_behind_the_pretrained_ones_have_no_bias() -> None:
    head, given = VocabularyHead(tiny_encoder(), tied=True), pretrained(vocabulary=50)
    assert head.start_from(given)
    assert torch.equal(head.bias[:50], given["bias"]) and not head.bias[50:].any()


@pytest.mark.parametrize(
    ("tied", "sizes"), [(True, {"width": 8}), (True, {"vocabulary": 61}), (False, {})]
)
def test_what_does_not_fit_is_not_taken_at_all(tied: bool, sizes) -> None:
    head = VocabularyHead(tiny_encoder(), tied=tied)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    assert not head.start_from(pretrained(**sizes))
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


# what the tie is for


def gains_of_a_character_that_was_never_a_target(tied: bool) -> tuple[float, float]:
    """Trains the head to name the token that a state came from, never for one character.

    The states are a fixed map of the embeddings, as an encoder's are a learnt one.

    Returns:
        The mean log probability of the character at its own states, before and after.
    """
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=tied, orthogonal=True)
    table = word_table(encoder).detach()
    turn = torch.linalg.qr(torch.randn(16, 16))[0]
    targets = torch.tensor([token for token in range(60) if token != NEVER])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)

    def log_p(tokens: torch.Tensor) -> torch.Tensor:
        logits = head((table[tokens] @ turn)[None], table)[0]
        return torch.log_softmax(logits, -1).gather(1, tokens[:, None])

    unseen = torch.tensor([NEVER])
    before = log_p(unseen).item()
    for _ in range(150):
        optimizer.zero_grad()
        (-log_p(targets).mean()).backward()
        optimizer.step()
    return before, log_p(unseen).item()


def test_tied_a_character_that_was_never_a_target_can_come_out_untied_it_cannot() -> None:
    before, after = gains_of_a_character_that_was_never_a_target(tied=True)
    assert after > before + 1
    before, after = gains_of_a_character_that_was_never_a_target(tied=False)
    assert after < before


def test_the_row_of_a_character_that_was_never_a_target_gets_the_softmaxs_gradient_alone() -> None:
    encoder = tiny_encoder()
    head = VocabularyHead(encoder, tied=False)
    z = states(1, 4)
    targets = torch.tensor([[5, 6, 7, 8]])
    logits = head(z, word_table(encoder))
    functional.cross_entropy(logits[0], targets[0], reduction="sum").backward()
    transformed = head.norm(functional.gelu(head.dense(z)))
    expected = torch.softmax(logits, -1)[0, :, NEVER] @ transformed[0]
    assert torch.allclose(head.decoder.weight.grad[NEVER], expected, atol=1e-6)
