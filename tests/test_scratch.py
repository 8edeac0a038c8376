"""A scratch backbone is a BERT folder like a downloaded one, with the vocabulary it was given."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer

from kernel_lib.bench import scratch
from kernel_lib.bench.scratch import write_scratch_backbone
from kernel_lib.errors import DataError, SettingsError
from kernel_lib.model.backbone import load_backbone
from tests.conftest import SHARED

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"我在图书馆", "\u2028", "##a"]
SIZES: dict[str, int] = {"hidden": 16, "layers": 2, "heads": 2, "intermediate": 24, "seed": 3}


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(ENTRIES) + "\n", encoding="utf-8", newline="")
    return path


def write(folder: Path, vocab: Path, **changes: Any) -> Path:
    write_scratch_backbone(folder, vocab, **{**SIZES, **changes})
    return folder


def test_the_kit_and_transformers_load_it(tmp_path: Path, vocab: Path) -> None:
    folder = write(tmp_path / "bert", vocab)
    backbone = load_backbone(folder, dropout=0.0)
    assert backbone.config.hidden_size == 16 and backbone.config.num_hidden_layers == 2
    _, loading = AutoModelForMaskedLM.from_pretrained(
        folder, local_files_only=True, output_loading_info=True, trust_remote_code=False
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    ids = tokenizer("我在图书馆")["input_ids"]
    assert ids == [2, 5, 6, 7, 8, 9, 3]
    vocab_lines = (folder / "vocab.txt").read_bytes()
    assert vocab_lines == vocab.read_bytes()


def test_a_roformer_is_loaded_too_and_reads_by_distance_alone(tmp_path: Path, vocab: Path) -> None:
    folder = write(tmp_path / "roformer", vocab, family="roformer", masked_lm_head=False)
    backbone = load_backbone(folder, dropout=0.0).eval()
    assert backbone.config.model_type == "roformer" and backbone.config.hidden_size == 16
    words = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        alone = backbone(words).last_hidden_state
        behind = backbone(
            torch.cat([torch.zeros(1, 3, dtype=torch.int64), words], 1),
            attention_mask=torch.tensor([[0, 0, 0, 1, 1, 1, 1]]),
        ).last_hidden_state
    torch.testing.assert_close(behind[:, 3:], alone, atol=1e-6, rtol=1e-5)
    with pytest.raises(SettingsError, match="heads have an even width: hidden = 6 over heads = 2"):
        write(tmp_path / "odd", vocab, family="roformer", hidden=6)
    with pytest.raises(SettingsError, match="family='rofomer': did you mean 'roformer'"):
        write(tmp_path / "other", vocab, family="rofomer")


def test_the_head_is_there_only_when_asked_for(tmp_path: Path, vocab: Path) -> None:
    with_head = load_file(write(tmp_path / "a", vocab) / "model.safetensors")
    without = load_file(write(tmp_path / "b", vocab, masked_lm_head=False) / "model.safetensors")
    assert any("predictions.transform" in name for name in with_head)
    assert not any("predictions" in name for name in without)


def test_weights_follow_the_seed_and_the_random_state_is_left_alone(
    tmp_path: Path, vocab: Path
) -> None:
    before = torch.random.get_rng_state()
    first = load_file(write(tmp_path / "a", vocab) / "model.safetensors")
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    again = load_file(write(tmp_path / "b", vocab) / "model.safetensors")
    other = load_file(write(tmp_path / "c", vocab, seed=4) / "model.safetensors")
    name = next(name for name in first if name.endswith("word_embeddings.weight"))
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])
    assert first[name].shape == (len(ENTRIES), 16) and first[name].dtype == torch.float32


@pytest.mark.parametrize(
    ("entries", "found"),
    [(ENTRIES[:4] + ENTRIES[5:], "MASK"), ([*ENTRIES, "馆"], "'馆' twice"), ([""], "PAD")],
)
def test_a_file_that_is_no_vocabulary_is_named(
    tmp_path: Path, vocab: Path, entries: list[str], found: str
) -> None:
    vocab.write_text("\n".join(entries), encoding="utf-8", newline="")
    with pytest.raises(DataError, match=found):
        write(tmp_path / "bert", vocab)
    assert not (tmp_path / "bert").exists()


def test_a_missing_or_foreign_file_is_named(tmp_path: Path, vocab: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        write(tmp_path / "bert", tmp_path / "no.txt")
    vocab.write_bytes("馆".encode("gbk"))
    with pytest.raises(DataError, match="not UTF-8"):
        write(tmp_path / "bert", vocab)


@pytest.mark.parametrize("changes", [{"hidden": 15}, {"layers": 0}, {"intermediate": -1}])
def test_sizes_that_make_no_sense_are_refused(
    tmp_path: Path, vocab: Path, changes: dict[str, int]
) -> None:
    with pytest.raises(SettingsError, match=next(iter(changes))):
        write(tmp_path / "bert", vocab, **changes)


def test_the_command(tmp_path: Path, vocab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = ["--hidden", "8", "--layers", "1", "--heads", "2", "--intermediate", "8"]
    monkeypatch.setattr(sys, "argv", ["scratch", str(vocab), str(tmp_path / "x"), *sizes])
    assert scratch.main() == 0
    config = json.loads((tmp_path / "x/config.json").read_text(encoding="utf-8"))
    assert (config["hidden_size"], config["vocab_size"]) == (8, len(ENTRIES))


VOCAB = SHARED / "models/bert-base-chinese-vocab/vocab.txt"


@pytest.mark.skipif(not VOCAB.is_file(), reason="needs shared/models/bert-base-chinese-vocab")
def test_the_genuine_vocabulary_keeps_its_ids(tmp_path: Path) -> None:
    folder = write(tmp_path / "bert", VOCAB)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    assert len(tokenizer) == 21128
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[MASK]", "的"]) == [
        0,
        100,
        103,
        4638,
    ]
