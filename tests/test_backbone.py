"""Loading an encoder from a folder: float32, complete, offline; then fitting it to the run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from kernel_lib.errors import BackboneError, SettingsError
from kernel_lib.model.backbone import (
    FREEZE_TABLE,
    build_backbone,
    fit_embeddings,
    freeze,
    layer_index,
    load_backbone,
    reinitialise,
)
from kernel_lib.model.location import find_backbone
from kernel_lib.text.batches import collate
from kernel_lib.text.tokenizer import build_tokenizer, save_tokenizer

TINY = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 40,
}
DISENTANGLED = {
    "relative_attention": True,
    "max_position_embeddings": 64,
    "pos_att_type": ["c2p", "p2c"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
FAMILIES = {
    "bert": TINY,
    "roberta": TINY,
    "electra": {**TINY, "embedding_size": 16},
    "deberta": {**TINY, **DISENTANGLED},
    "deberta-v2": {**TINY, **DISENTANGLED},
    "modernbert": {
        **TINY,
        "pad_token_id": 0,
        "cls_token_id": 1,
        "bos_token_id": 1,
        "sep_token_id": 2,
        "eos_token_id": 2,
    },
}


def make_encoder(family: str, **settings):
    config = AutoConfig.for_model(family, **settings)
    if family == "funnel":  # AutoModel asks this one for its architecture
        config.architectures, config.block_repeats = ["FunnelModel"], [1, 1, 1]
    return AutoModel.from_config(config)


def make(family: str, **changes):
    return make_encoder(family, **{**FAMILIES[family], **changes})


@pytest.fixture
def folder(material, tmp_path) -> Path:
    """A copy of the tiny backbone that a test may damage."""
    return Path(shutil.copytree(material.backbone, tmp_path / "deberta-v3-tiny"))


def rewrite(folder: Path, change) -> None:
    """Changes the tensors of a weight file."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def load(folder: Path):
    return load_backbone(folder, dropout=0.0)


# loading


def test_weights_are_float32_though_the_file_is_float16(material) -> None:
    stored = load_file(material.backbone / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    encoder = load(material.backbone)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    state = encoder.state_dict()
    assert set(stored) <= set(state)
    for name, tensor in stored.items():
        assert torch.equal(state[name], tensor.float()), name


def test_the_old_bin_format_gives_the_same_weights(folder: Path) -> None:
    expected = load(folder).state_dict()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    found = load(folder).state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_file_of_a_whole_pretraining_model_loads_by_its_prefix(folder: Path) -> None:
    expected = load(folder).state_dict()

    def as_masked_language_model(tensors) -> None:
        for name in list(tensors):
            tensors[f"deberta.{name}"] = tensors.pop(name)
        tensors["cls.predictions.bias"] = torch.zeros(600)

    rewrite(folder, as_masked_language_model)
    found = load(folder).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_the_dropout_is_that_of_all_dropouts_of_the_encoder(material, dropout: float) -> None:
    encoder = load_backbone(material.backbone, dropout=dropout)
    found = {m.p for m in encoder.modules() if isinstance(m, torch.nn.Dropout)}
    assert found == {dropout}


def test_a_tensor_missing_in_the_file_is_named(folder: Path) -> None:
    rewrite(folder, lambda tensors: tensors.pop("encoder.layer.1.output.dense.weight"))
    with pytest.raises(BackboneError, match=r"encoder\.layer\.1\.output\.dense\.weight"):
        load(folder)


def test_a_tensor_of_another_shape_is_named(folder: Path) -> None:
    rewrite(
        folder,
        lambda tensors: tensors.update({"encoder.rel_embeddings.weight": torch.zeros(3, 32)}),
    )
    with pytest.raises(BackboneError, match=r"encoder\.rel_embeddings\.weight"):
        load(folder)


def test_berts_own_pooler_may_be_missing_and_is_left_out(tmp_path) -> None:
    make("bert").save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: [tensors.pop(n) for n in list(tensors) if "pooler" in n])
    assert not any("pooler" in name for name, _ in load(tmp_path).named_parameters())
    assert not any("pooler" in name for name, _ in build_backbone(tmp_path).named_parameters())


@pytest.mark.parametrize("kept", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_weight_file_is_a_backbone_error(folder: Path, kept: float) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    with pytest.raises(BackboneError, match="deberta-v3-tiny"):
        load(folder)


def test_a_truncated_bin_file_is_a_backbone_error(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(BackboneError, match="deberta-v3-tiny"):
        load(folder)


def test_missing_weights_name_the_files_that_would_do(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"has no weights: none of model\.safetensors"):
        load(folder)


def test_a_missing_config_and_a_missing_folder_are_told_apart(folder: Path) -> None:
    with pytest.raises(BackboneError, match="does not exist"):
        load(folder / "nowhere")
    (folder / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"has no config\.json"):
        load(folder)


@pytest.mark.parametrize(
    "content", ["", "{", "{}", '{"model_type": "no-such-model"}'], ids=range(4)
)
def test_a_config_that_cannot_be_used_is_a_backbone_error(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(BackboneError, match=r"config\.json cannot be used"):
        load(folder)


def test_the_empty_model_of_a_folds_config_is_float32_and_of_the_same_shape(folder: Path) -> None:
    expected = load(folder).state_dict()
    (folder / "model.safetensors").unlink()
    found = build_backbone(folder)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    assert {n: t.shape for n, t in found.state_dict().items()} == {
        n: t.shape for n, t in expected.items()
    }


# layers, freezing, drawing anew


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("encoder.layer.3.output.dense.bias", 3),
        ("encoder.layer.11.attention.self.query_proj.weight", 11),
        ("backbone.encoder.layer.0.intermediate.dense.weight", 0),
        ("encoder.blocks.2.1.ffn.linear_1.weight", 2),
        ("layers.7.attn.Wqkv.weight", 7),
        ("layers.7", 7),
        ("h.5.mlp.weight", 5),
        ("encoder.rel_embeddings.weight", None),
        ("encoder.LayerNorm.weight", None),
        ("embeddings.word_embeddings.weight", None),
        ("encoder.conv.conv.weight", None),
        ("pooling.score.0.weight", None),
        ("hash.5.weight", None),
    ],
)
def test_the_layer_is_read_from_the_name(name: str, index: int | None) -> None:
    assert layer_index(name) == index


def frozen(encoder) -> set[str]:
    return {name for name, p in encoder.named_parameters() if not p.requires_grad}


XLARGE = {"conv_kernel_size": 3, "norm_rel_ebd": "layer_norm", "position_buckets": 8}


def test_freezing_stops_the_lowest_layers_the_embeddings_and_what_else_feeds_them() -> None:
    encoder = make("deberta-v2", **XLARGE)
    assert freeze(encoder, embeddings=True, layers=2) == (True, 2)
    names = {name for name, _ in encoder.named_parameters()}
    assert names - frozen(encoder) == {n for n in names if n.startswith("encoder.layer.2.")}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        *((family, {}) for family in FAMILIES),
        ("deberta-v2", XLARGE),
        ("electra", {"embedding_size": 8}),
        ("mpnet", TINY),
    ],
    ids=str,
)
@pytest.mark.parametrize("layers", [1, 2])
def test_no_gradient_goes_through_frozen_layers(family: str, changes, layers: int) -> None:
    encoder = make_encoder(family, **{**FAMILIES.get(family, {}), **changes})
    freeze(encoder, embeddings=None, layers=layers)
    trains: dict[int, bool] = {}
    for name, module in encoder.named_modules():
        if (index := layer_index(name)) is not None and name.endswith(f".{index}"):
            module.register_forward_hook(
                lambda module, inputs, output, index=index: trains.update(
                    {index: (output if torch.is_tensor(output) else output[0]).requires_grad}
                )
            )
    encoder(input_ids=torch.randint(3, 40, (2, 8)))
    assert trains == {0: False, 1: layers < 2, 2: True}


def test_none_goes_through_them_with_the_kits_own_attention_either(material) -> None:
    encoder = load_backbone(material.backbone, dropout=0.0, attention="fast")
    freeze(encoder, embeddings=None, layers=1)
    found = encoder(input_ids=torch.randint(3, 40, (2, 8)), output_hidden_states=True)
    assert [states.requires_grad for states in found.hidden_states] == [False, False, True]


def test_layers_and_embeddings_freeze_independently() -> None:
    encoder = make("deberta-v2")
    freeze(encoder, embeddings=False, layers=1)
    assert frozen(encoder) and all(name.startswith("encoder.layer.0.") for name in frozen(encoder))
    encoder = make("deberta-v2")
    freeze(encoder, embeddings=True, layers=0)
    assert frozen(encoder) and all(name.startswith("embeddings.") for name in frozen(encoder))


def test_a_family_that_is_not_in_the_table_trains_whole() -> None:
    encoder = make("deberta-v2")
    assert freeze(encoder, embeddings=None, layers=None) == (False, 0)
    assert frozen(encoder) == set()


def test_the_table_holds_unless_the_settings_say_otherwise(monkeypatch) -> None:
    monkeypatch.setitem(FREEZE_TABLE, ("deberta-v2", 16, 3), 2)
    assert freeze(make("deberta-v2"), embeddings=None, layers=None) == (True, 2)
    assert freeze(make("deberta-v2"), embeddings=False, layers=0) == (False, 0)
    assert freeze(make("deberta-v2"), embeddings=None, layers=1) == (True, 1)
    assert freeze(make("deberta-v2"), embeddings=None, layers=0) == (False, 0)


def test_the_embeddings_freeze_where_layers_do_unless_the_settings_say_otherwise() -> None:
    encoder = make("deberta-v2")
    assert freeze(encoder, embeddings=None, layers=1) == (True, 1)
    assert "embeddings.word_embeddings.weight" in frozen(encoder)
    assert freeze(make("deberta-v2"), embeddings=False, layers=1) == (False, 1)


@pytest.mark.parametrize(
    ("family", "shape", "layers"),
    [
        ("deberta-v2", {"hidden_size": 1536, "num_hidden_layers": 48}, 24),
        ("deberta-v2", {"hidden_size": 1536, "num_hidden_layers": 24}, 12),
        ("deberta", {"hidden_size": 1024, "num_hidden_layers": 24}, 16),
        ("deberta", {"hidden_size": 1024, "num_hidden_layers": 48}, 36),
        ("funnel", {"d_model": 1024, "block_sizes": [8, 8, 8]}, 1),
        ("funnel", {"d_model": 1024, "block_sizes": [10, 10, 10]}, 1),
        ("deberta-v2", {"hidden_size": 768, "num_hidden_layers": 12}, 0),
        ("deberta-v2", {"hidden_size": 1024, "num_hidden_layers": 24}, 0),
    ],
    ids=[
        "v2-xxlarge",
        "v2-xlarge",
        "v1-large",
        "v1-xlarge",
        "funnel-large",
        "funnel-xlarge",
        "v3-base",
        "v3-large",
    ],
)
def test_the_table_knows_the_published_shapes(family: str, shape, layers: int) -> None:
    """Shapes of the published configs; on the meta device they weigh nothing."""
    heads = {"n_head": 16} if family == "funnel" else {"num_attention_heads": 16}
    with torch.device("meta"):
        encoder = make_encoder(family, **shape, **heads)
    assert freeze(encoder, embeddings=None, layers=None) == (layers > 0, layers)
    held = frozen(encoder)
    assert all(
        name.startswith(("embeddings.", "encoder.")) and (layer_index(name) or 0) < layers
        for name in held
    )
    assert bool(held) == (layers > 0)


def test_freezing_more_layers_than_there_are_is_an_error() -> None:
    with pytest.raises(SettingsError, match="freeze_layers=4, but the encoder has 3 layers"):
        freeze(make("deberta-v2"), embeddings=None, layers=4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_top_layers_are_drawn_anew_whole_and_nothing_else_changes(family: str) -> None:
    encoder = make(family, initializer_range=0.05)
    for parameter in encoder.parameters():
        torch.nn.init.constant_(parameter, 7.0)
    reinitialise(encoder, 2)
    for name, parameter in encoder.named_parameters():
        index = layer_index(name)
        if index is None or index < 1:
            assert (parameter == 7.0).all(), name
        elif "norm" in name.lower():
            assert (parameter == (1.0 if name.endswith("weight") else 0.0)).all(), name
        elif name.endswith("bias"):
            assert (parameter == 0.0).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.05, rel=0.35), name
            assert abs(parameter.mean().item()) < 0.02, name


def test_drawing_no_layer_anew_changes_nothing_and_too_many_are_an_error() -> None:
    encoder = make("deberta-v2")
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    reinitialise(encoder, 0)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    with pytest.raises(SettingsError, match="reinit_layers=4, but the encoder has 3 layers"):
        reinitialise(encoder, 4)


# embeddings


def test_a_table_with_rows_to_spare_does_not_shrink(material) -> None:
    encoder = load(material.backbone)
    tokenizer = build_tokenizer(material.backbone, keep_newlines=True)
    table = encoder.get_input_embeddings().weight
    before = table.detach().clone()
    new = tokenizer.convert_tokens_to_ids("\n")
    assert len(tokenizer) < len(before)
    fit_embeddings(encoder, tokenizer)
    after = encoder.get_input_embeddings().weight.detach()
    assert after.shape == before.shape and encoder.config.vocab_size == len(before)
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(material.backbone / "spm.model"))
    assert torch.equal(after[new], before[pieces.encode(".")[-1]])
    others = torch.arange(len(before)) != new
    assert torch.equal(after[others], before[others])


def write_bert(folder: Path) -> Path:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *(chr(97 + i) for i in range(26)),
        ".",
        ",",
    ]
    make("bert", vocab_size=len(words)).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return folder


def test_a_full_table_grows_and_the_new_row_begins_as_the_full_stops(tmp_path) -> None:
    encoder = load(write_bert(tmp_path))
    before = encoder.get_input_embeddings().weight.detach().clone()
    fit_embeddings(encoder, build_tokenizer(tmp_path, keep_newlines=True))
    after = encoder.get_input_embeddings().weight
    assert len(after) == len(before) + 1 == encoder.config.vocab_size
    assert torch.equal(after[:-1], before)
    assert torch.equal(after[-1], before[-2])
    assert after.requires_grad
    ids = torch.tensor([[2, len(before), 3]])
    assert torch.isfinite(encoder(input_ids=ids).last_hidden_state).all()


def test_the_new_row_is_about_as_long_as_the_others(material) -> None:
    """A short one, such as the mean of all, gets nearly all of the gradient and of FGM's step."""
    encoder = load(material.backbone)
    tokenizer = build_tokenizer(material.backbone, keep_newlines=True)
    fit_embeddings(encoder, tokenizer)
    lengths = encoder.get_input_embeddings().weight.detach().norm(dim=1)
    new = tokenizer.convert_tokens_to_ids("\n")
    assert 0.5 < lengths[new] / lengths[1:new].median() < 2


def test_without_a_new_token_no_row_changes(tmp_path) -> None:
    encoder = load(write_bert(tmp_path))
    before = encoder.get_input_embeddings().weight.detach().clone()
    fit_embeddings(encoder, build_tokenizer(tmp_path, keep_newlines=False))
    assert torch.equal(encoder.get_input_embeddings().weight, before)


@pytest.mark.parametrize("keep_newlines", [False, True])
def test_added_tokens_that_pretraining_knew_keep_their_rows(
    material, tmp_path, keep_newlines
) -> None:
    """A ``tokenizer.json`` may list pretrained tokens as added ones, even from id 0 on."""
    pretrained = build_tokenizer(material.backbone, keep_newlines=False)
    known = pretrained.convert_tokens_to_ids("\u2581and")
    pretrained.add_tokens(["\u2581and", "<phone>"])
    save_tokenizer(pretrained, tmp_path)
    tokenizer = build_tokenizer(tmp_path, keep_newlines=keep_newlines)
    encoder = load(material.backbone)
    before = encoder.get_input_embeddings().weight.detach().clone()
    fit_embeddings(encoder, tokenizer)
    after = encoder.get_input_embeddings().weight.detach()
    for index in (known, tokenizer.convert_tokens_to_ids("<phone>")):
        assert torch.equal(after[index], before[index])


# gradient checkpointing


def test_gradient_checkpointing_recomputes_every_layer_and_changes_no_gradient(make_case) -> None:
    calls, gradients = {}, {}
    for on in (False, True):
        case = make_case(gradient_checkpointing=on)
        torch.manual_seed(0)
        model = case.task.build_model(
            find_backbone(case.task.settings.backbone), case.tokenizer, case.examples
        ).train()
        counted = [0]

        def count(*_, counted=counted) -> None:
            counted[0] += 1

        for layer in model.backbone.encoder.layer:
            layer.attention.register_forward_pre_hook(count)
        batch = collate(case.examples[:3], case.tokenizer.pad_token_id)
        model(batch.input_ids, batch.attention_mask).sum().backward()
        calls[on] = counted[0]
        gradients[on] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert calls == {False: 2, True: 4}
    assert set(gradients[True]) == set(gradients[False])
    for name, gradient in gradients[False].items():
        assert torch.allclose(gradients[True][name], gradient, atol=1e-6), name
