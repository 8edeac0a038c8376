"""System one: what the head sees by each switch, and the model under the kit's training tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kernel_lib.artifacts import load_weights, save_tensors
from kernel_lib.config import TrainingSettings
from kernel_lib.model.attention import use_fast_attention
from kernel_lib.model.backbone import checkpoint_activations
from kernel_lib.model.corrector import COPY_ID, CopyCorrector, CorrectorOutput
from kernel_lib.model.vocabulary_head import word_table
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Batch
from kernel_lib.training.adversarial import FGM
from kernel_lib.training.optimizer import parameter_groups
from kernel_lib.training.token_losses import IGNORE, token_focal_loss
from tests.test_adversarial import attack, rows_read, words_of
from tests.test_vocabulary_head import is_orthogonal, tiny_encoder

IDS = torch.tensor([[2, 11, 12, 13, 14, 3, 0, 0], [2, 21, 22, 23, 24, 25, 26, 3]])
MASK = (IDS != 0).long()
LABELS = torch.where((IDS > 3), torch.where(IDS % 5 == 0, IDS + 1, COPY_ID), IGNORE)
ALL_ON = {"embedding_path": True, "gate": True, "orthogonal": True, "tied": True, "dropout": 0.0}
FAMILIES = {
    "bert": {},
    "roberta": {"pad_token_id": 0},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "embedding_size": 8,
    },
}


def make(family: str = "bert", **changes) -> CopyCorrector:
    encoder = tiny_encoder(family, **FAMILIES[family])
    use_fast_attention(encoder)
    return CopyCorrector(encoder, **{**ALL_ON, **changes}).eval()


def loss_of(model, ids: torch.Tensor = IDS, labels: torch.Tensor = LABELS) -> torch.Tensor:
    return token_focal_loss(model(ids, (ids != 0).long()).logits, labels, gamma=2.0)


def what_the_head_saw(model) -> torch.Tensor:
    seen = []
    handle = model.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model(IDS, MASK)
    handle.remove()
    return seen[0]


def test_the_output_has_a_logit_for_each_entry_and_no_detection() -> None:
    output = make()(IDS, MASK)
    assert isinstance(output, CorrectorOutput) and output.detection is None
    assert output.logits.shape == (2, 8, 60) and output.logits.dtype == torch.float32


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("gate", [True, False])
def test_z_is_the_last_state_plus_the_gated_embeddings(family: str, gate: bool) -> None:
    model = make(family, gate=gate)
    encoded = model.backbone(input_ids=IDS, attention_mask=MASK)
    h, e = encoded.last_hidden_state, embeddings_of(model)
    expected = h + e
    if gate:
        expected = h + e / (1 + torch.exp(-(e @ model.gate.weight.T)))
    assert torch.allclose(what_the_head_saw(model), expected, atol=1e-6)


def embeddings_of(model) -> torch.Tensor:
    """What the encoder's own embedding layer gives, at the width of the states."""
    if hasattr(model.backbone, "encoder") and hasattr(
        model.backbone.encoder, "embedding_hidden_mapping_in"
    ):
        return model.backbone.encoder.embedding_hidden_mapping_in(model.backbone.embeddings(IDS))
    given = {"mask": MASK} if model.backbone.config.model_type == "deberta-v2" else {}
    embedded = model.backbone.embeddings(IDS, **given)
    project = getattr(model.backbone, "embeddings_project", None)
    return embedded if project is None else project(embedded)


def test_the_gated_path_by_hand() -> None:
    model = make("bert", gate=True)
    h, e = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 1.0])
    weight = torch.tensor([[0.0, 1.0], [1.0, -1.0]])  # W e = (1, 1)
    model.gate.weight = torch.nn.Parameter(weight)

    class Encoded:
        last_hidden_state, hidden_states = h[None, None], (e[None, None],)

    model.backbone.forward = lambda **_: Encoded()
    z = model._states(IDS, MASK)
    assert z.flatten().tolist() == pytest.approx([0.5 + 0.731059 * 2, -1 + 0.731059], abs=1e-5)


def test_without_the_embedding_path_the_head_sees_the_last_state_and_no_others_are_kept() -> None:
    model = make(embedding_path=False)
    asked = []
    model.backbone.register_forward_hook(lambda _, __, output: asked.append(output.hidden_states))
    last = model.backbone(input_ids=IDS, attention_mask=MASK).last_hidden_state
    assert torch.equal(what_the_head_saw(model), last)
    assert asked == [None, None] and model.gate is None


def test_gate_and_head_are_orthogonal_only_when_they_are_to_be() -> None:
    for orthogonal in (True, False):
        model = make(orthogonal=orthogonal, tied=False)
        for weight in (model.gate.weight, model.head.dense.weight, model.head.decoder.weight):
            assert is_orthogonal(weight) == orthogonal
    assert make().gate.bias is None


def test_tied_the_copy_entry_alone_has_a_row_of_its_own() -> None:
    model = make()
    before = model(IDS, MASK).logits.detach()
    with torch.no_grad():
        model.head.copy_row += 1
    changed = (model(IDS, MASK).logits != before).any(0).any(0)
    assert changed.nonzero().flatten().tolist() == [COPY_ID]


def test_the_embeddings_run_once_a_forward_pass() -> None:
    model, runs = make().train(), []
    model.backbone.get_input_embeddings().register_forward_hook(lambda *_: runs.append(1))
    loss_of(model).backward()
    assert len(runs) == 1


def test_dropout_acts_on_z_in_training_alone() -> None:
    model = make(dropout=0.5)
    assert torch.equal(model(IDS, MASK).logits, model(IDS, MASK).logits)
    whole = what_the_head_saw(model)
    dropped = what_the_head_saw(model.train())
    kept = dropped != 0
    assert 0.3 < kept.float().mean() < 0.7
    assert torch.allclose(dropped[kept], 2 * whole[kept], atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_and_loss_are_float32_and_close_under_autocast(precision: str, tied: bool) -> None:
    model = make(tied=tied)
    exact = model(IDS, MASK).logits
    with Precision(precision, "cpu").autocast():
        logits = model(IDS, MASK).logits
        loss = token_focal_loss(logits, LABELS, gamma=2.0)
    assert logits.dtype == loss.dtype == torch.float32
    assert torch.allclose(logits, exact, atol=0.3)
    loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_padding_changes_nothing(family: str) -> None:
    model = make(family)
    alone = model(IDS[:1, :6], MASK[:1, :6]).logits
    assert torch.allclose(model(IDS, MASK).logits[:1, :6], alone, atol=1e-4)


# under the kit's training tools


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_a_group_and_all_but_the_encoder_is_the_head(tied: bool) -> None:
    model = make(tied=tied)
    settings = TrainingSettings(learning_rate=1e-5, head_learning_rate=1e-3)
    groups = parameter_groups(model, settings)
    heads = [id(p) for group in groups if group["lr"] == 1e-3 for p in group["params"]]
    own = [p for name, p in model.named_parameters() if not name.startswith("backbone.")]
    assert sorted(heads) == sorted(map(id, own)) and own
    table = word_table(model.backbone)
    assert sum(p is table for group in groups for p in group["params"]) == 1


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_learns(tied: bool) -> None:
    model = make(tied=tied).train()
    loss_of(model).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_saved_once_each_and_loaded_strictly(tied: bool, tmp_path: Path) -> None:
    model = make(tied=tied)
    state = model.state_dict()
    places = [tensor.data_ptr() for tensor in state.values() if tensor.numel()]
    assert len(set(places)) == len(places), "two names of one tensor"
    save_tensors(state, tmp_path / "model.safetensors")
    torch.manual_seed(7)
    other = make(tied=tied)
    for parameter in other.parameters():
        torch.nn.init.normal_(parameter)
    assert not torch.equal(other(IDS, MASK).logits, model(IDS, MASK).logits)
    load_weights(other, tmp_path / "model.safetensors")
    assert torch.equal(other(IDS, MASK).logits, model(IDS, MASK).logits)


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_fgm_perturbs_the_words_and_leaves_no_trace(family: str) -> None:
    model = make(family)
    table = word_table(model.backbone)
    fgm = FGM(model.backbone.get_input_embeddings(), epsilon=0.5)
    before, clean = table.detach().clone(), loss_of(model)
    clean.backward()
    with attack(fgm, words_of(Batch(IDS, MASK, None))) as weight:
        moved = (rows_read(fgm.embedding) - before).norm(dim=1)
        worse = loss_of(model)
        (worse * weight).backward()
    assert weight == 1 and worse > clean
    used = moved.nonzero().flatten().tolist()
    assert set(used) <= set(IDS[MASK == 1].tolist()) and len(used) > 5
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-4)
    assert torch.equal(table, before)
    fgm.close()


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_checkpointed_activations_give_the_same_gradients(family: str) -> None:
    gradients, runs = [], []
    for checkpointed in (False, True):
        model = make(family).train()
        if checkpointed:
            checkpoint_activations(model.backbone)
            inner = model.backbone.encoder.layer[0].attention
            inner.register_forward_pre_hook(lambda *_: runs.append(1))
        loss_of(model).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert len(runs) == 2, "the layers were not computed again"
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


def test_a_batch_cut_in_parts_gives_the_gradient_of_the_whole() -> None:
    whole, cut = make(), make()
    cut.load_state_dict(whole.state_dict())
    loss_of(whole).backward()
    for row, width in ((0, 6), (1, 8)):
        ids, labels = IDS[row : row + 1, :width], LABELS[row : row + 1, :width]
        (loss_of(cut, ids, labels) / 2).backward()
    for (name, one), two in zip(whole.named_parameters(), cut.parameters(), strict=True):
        assert torch.allclose(one.grad, two.grad, atol=1e-6), name


def test_it_learns_to_correct_and_to_copy() -> None:
    model = make().train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    counted = LABELS != IGNORE
    found = model(IDS, MASK).logits.argmax(-1)
    assert np.mean(losses[-5:]) < 0.01 * losses[0]
    assert torch.equal(found[counted], LABELS[counted])
    assert {COPY_ID, 26} <= set(LABELS[counted].tolist())
