"""The pretrained masked-language-model head: taken whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from kernel_lib.errors import BackboneError
from kernel_lib.model.backbone import load_backbone
from kernel_lib.model.corrector import COPY_ID, CopyCorrector
from kernel_lib.model.masked_corrector import MaskedCorrector
from kernel_lib.model.pretrained_head import load_pretrained_head
from tests.test_corrector import IDS, MASK
from tests.test_vocabulary_head import TINY

NAMES = {"dense.weight", "dense.bias", "norm.weight", "norm.bias", "bias"}


def write(folder: Path, family: str = "bert", *, head: bool = True, **settings) -> torch.nn.Module:
    """Saves a tiny model, with the head or without, every weight of it from a random draw."""
    config = AutoConfig.for_model(family, **TINY, **settings)
    model = (AutoModelForMaskedLM if head else AutoModel).from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.save_pretrained(folder)
    return model.eval()


def read(folder: Path) -> dict[str, torch.Tensor]:
    """A file's tensors, copied: they may be views of the file, which is about to be written."""
    found = load_file(folder / "model.safetensors")
    return {name: tensor.clone() for name, tensor in found.items()}


def rewrite(folder: Path, change) -> None:
    tensors = read(folder)
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


def test_the_head_of_a_bert_is_found_and_makes_system_two_the_pretrained_model(tmp_path) -> None:
    whole = write(tmp_path)
    head = load_pretrained_head(tmp_path)
    transform = whole.cls.predictions.transform
    assert set(head) == NAMES
    assert torch.equal(head["dense.weight"], transform.dense.weight)
    assert torch.equal(head["norm.bias"], transform.LayerNorm.bias)
    assert torch.equal(head["bias"], whole.cls.predictions.bias)
    assert not any(tensor.requires_grad for tensor in head.values())
    model = MaskedCorrector(load_backbone(tmp_path, dropout=0.0), scalar_mix=False, dropout=0.0)
    assert model.head.start_from(head)
    expected = whole(input_ids=IDS, attention_mask=MASK).logits
    assert torch.allclose(model.eval()(IDS, MASK).logits, expected, atol=1e-4)


def test_system_one_takes_it_too(tmp_path) -> None:
    whole = write(tmp_path)
    model = CopyCorrector(
        load_backbone(tmp_path, dropout=0.0),
        embedding_path=False,
        gate=False,
        orthogonal=True,
        tied=True,
        dropout=0.0,
    ).eval()
    assert model.head.start_from(load_pretrained_head(tmp_path))
    difference = (model(IDS, MASK).logits - whole(input_ids=IDS, attention_mask=MASK).logits).abs()
    others = torch.arange(60) != COPY_ID
    assert difference[..., others].max() < 1e-4 < difference[..., COPY_ID].max()


HEADS = [
    ("roberta", {}),
    ("electra", {"embedding_size": 8}),
    ("albert", {"embedding_size": 8, "hidden_act": "gelu"}),
]


@pytest.mark.parametrize(("family", "settings"), HEADS)
def test_heads_of_other_families_give_their_own_logits(tmp_path, family: str, settings) -> None:
    whole = write(tmp_path, family, **settings)
    backbone = load_backbone(tmp_path, dropout=0.0)
    model = MaskedCorrector(backbone, scalar_mix=False, dropout=0.0).eval()
    assert model.head.start_from(load_pretrained_head(tmp_path))
    expected = whole(input_ids=IDS, attention_mask=MASK).logits
    assert torch.allclose(model(IDS, MASK).logits, expected, atol=1e-4)


def test_a_file_in_half_precision_comes_as_float32(tmp_path) -> None:
    write(tmp_path)
    stored = read(tmp_path)
    rewrite(tmp_path, lambda tensors: {name: t.half() for name, t in tensors.items()})
    head = load_pretrained_head(tmp_path)
    assert {tensor.dtype for tensor in head.values()} == {torch.float32}
    wanted = stored["cls.predictions.transform.dense.weight"].half().float()
    assert torch.equal(head["dense.weight"], wanted)


def test_the_old_bin_format_with_its_old_names_is_read(tmp_path) -> None:
    """As Chinese BERTs were published: gamma and beta, the tied decoder stored beside the table."""
    write(tmp_path)
    expected = load_pretrained_head(tmp_path)
    tensors = read(tmp_path)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    old["cls.seq_relationship.weight"] = torch.zeros(2, 16)
    torch.save(old, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    found = load_pretrained_head(tmp_path)
    assert all(torch.equal(found[name], expected[name]) for name in NAMES)


def test_a_file_of_the_encoder_alone_holds_no_head(tmp_path) -> None:
    write(tmp_path, head=False)
    assert load_pretrained_head(tmp_path) is None


@pytest.mark.parametrize(
    "lost",
    ["cls.predictions.bias", "transform.dense.weight", "dense.bias", "transform.LayerNorm.bias"],
)
def test_a_head_that_is_not_whole_is_not_taken(tmp_path, lost: str) -> None:
    write(tmp_path)

    def without(tensors):
        kept = {
            name: t
            for name, t in tensors.items()
            if not (name.startswith("cls.") and name.endswith(lost))
        }
        assert len(kept) < len(tensors)
        return kept

    rewrite(tmp_path, without)
    assert load_pretrained_head(tmp_path) is None


def test_a_head_of_another_shape_is_not_taken(tmp_path) -> None:
    write(tmp_path)
    name = "cls.predictions.transform.dense.weight"
    rewrite(tmp_path, lambda tensors: {**tensors, name: torch.zeros(8, 16)})
    assert load_pretrained_head(tmp_path) is None


@pytest.mark.parametrize(
    "settings", [{"hidden_act": "relu"}, {"tie_word_embeddings": False}], ids=str
)
def test_a_head_of_another_form_is_not_taken(tmp_path, settings) -> None:
    write(tmp_path, **settings)
    assert load_pretrained_head(tmp_path) is None


def test_a_family_without_such_a_head_has_none(tmp_path) -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=60, n_embd=16, n_layer=1, n_head=2)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    assert load_pretrained_head(tmp_path) is None


def test_a_damaged_file_is_an_error_that_names_the_folder(tmp_path) -> None:
    write(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(BackboneError, match=str(tmp_path)):
        load_pretrained_head(tmp_path)
