"""Adapting an encoder to texts: what is read, what is learned, and the folder that is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from kernel_lib.errors import ArtifactError, DataError, SettingsError, TrainingError
from kernel_lib.model.backbone import fit_embeddings, load_backbone
from kernel_lib.model.pretrained_head import load_pretrained_head
from kernel_lib.runtime.clock import Clock
from kernel_lib.text.batches import IGNORE
from kernel_lib.text.tokenizer import NEWLINE, build_tokenizer, token_fingerprint
from kernel_lib.training import adapt as module
from kernel_lib.training import masked_course
from kernel_lib.training.adapt import adapt, cut_pieces, main, read_texts
from kernel_lib.training.masked_course import Course
from kernel_lib.training.masked_language import MaskedLanguageModel, Recipe
from tests.conftest import Material

QUICK = {"epochs": 5, "max_length": 32, "batch_size": 8, "learning_rate": 1e-2}


def write_texts(path: Path, texts: list[str]) -> Path:
    pd.DataFrame({"full_text": texts}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with an order to be learned, and line breaks."""
    random, lines = np.random.default_rng(0), []
    for _ in range(60):
        start = random.integers(4)
        words = [("the", "cat", "sat", "down")[(start + n) % 4] for n in range(12)]
        lines.append(" ".join(words[:6]) + "\n\n" + " ".join(words[6:]) + f" {len(lines)}.")
    return write_texts(tmp_path_factory.mktemp("texts") / "train.csv", lines)


@pytest.fixture(scope="module")
def adapted(material: Material, texts: Path, tmp_path_factory: pytest.TempPathFactory):
    """An adapted folder, and the losses before and after."""
    out = tmp_path_factory.mktemp("adapted") / "backbone"
    return out, adapt(str(material.backbone), [texts], out, **QUICK)


def test_the_held_out_loss_falls(adapted) -> None:
    _, (before, after) = adapted
    print(f"held-out loss {before:.3f} -> {after:.3f}")
    assert before > 5 and after < 0.75 * before


def test_the_folder_loads_as_a_backbone_with_all_that_was_learned(
    adapted, material: Material
) -> None:
    out, _ = adapted
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    tensors = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert "dtype" in json.loads((out / "config.json").read_text())
    first, backbone = load_backbone(material.backbone, dropout=0.0), load_backbone(out, dropout=0.0)
    assert set(backbone.state_dict()) == set(first.state_dict())
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, tensors[name]), name
        assert not torch.equal(value, first.state_dict()[name]), name


def test_its_tokenizer_gives_the_same_ids_and_its_new_row_is_kept(
    adapted, material: Material
) -> None:
    out, _ = adapted
    before, after = (build_tokenizer(p, keep_newlines=True) for p in (material.backbone, out))
    assert token_fingerprint(before) == token_fingerprint(after)
    backbone, newline = load_backbone(out, dropout=0.0), after.convert_tokens_to_ids(NEWLINE)
    learned = backbone.get_input_embeddings().weight.detach().clone()
    fit_embeddings(backbone, after)
    assert torch.equal(backbone.get_input_embeddings().weight, learned)
    stop = after.convert_tokens_to_ids("\u2581.")
    assert not torch.equal(learned[newline], learned[stop])


def test_a_training_run_takes_it(adapted, make_case) -> None:
    out, _ = adapted
    result = make_case(backbone=str(out), fgm_epsilon=0).trainer().train()
    assert np.isfinite(list(result.scores.values())).all()


def test_the_same_seed_gives_the_same_weights_and_random_states_do_not_matter(
    material: Material, tmp_path: Path
) -> None:
    few = write_texts(tmp_path / "few.csv", [f"the cat sat down {n} times." for n in range(12)])
    losses, files = [], []
    for number in range(2):
        torch.manual_seed(number)
        out = tmp_path / str(number)
        losses.append(adapt(str(material.backbone), [few], out, **{**QUICK, "epochs": 2}))
        files.append(load_file(out / "model.safetensors"))
    assert losses[0] == losses[1]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


def write_bert(folder: Path) -> torch.nn.Module:
    """A BERT with its head, its table full."""
    from transformers import BertConfig

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "down", "."]
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
    )
    model = AutoModelForMaskedLM.from_config(config)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    return model


def test_a_pretrained_head_is_gone_on_with_and_written(texts: Path, tmp_path: Path) -> None:
    first = write_bert(tmp_path / "bert")
    out = tmp_path / "out"
    _, after = adapt(str(tmp_path / "bert"), [texts], out, **{**QUICK, "epochs": 2})
    before, head = (load_pretrained_head(folder) for folder in (tmp_path / "bert", out))
    assert set(head) == set(before)
    assert len(head["bias"]) == len(before["bias"]) + 1  # the line break's
    for name in ("dense.weight", "norm.bias"):
        assert 0 < (head[name] - before[name]).abs().max() < 0.2  # not a new one
    # transformers reads the same model out of it.
    whole, loading = AutoModelForMaskedLM.from_pretrained(
        out, local_files_only=True, output_loading_info=True
    )
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    mine = MaskedLanguageModel(load_backbone(out, dropout=0.0), head).eval()
    ids = torch.tensor([[2, 5, 4, 7, 10, 3]])
    states = mine.backbone(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
    logits = mine.head(states, mine.backbone.get_input_embeddings().weight)
    expected = whole.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert torch.allclose(logits, expected, atol=1e-4)
    assert type(first) is type(whole) and np.isfinite(after)


def test_texts_are_read_once_and_cut_into_pieces_that_hold_all_of_them(tmp_path: Path) -> None:
    one = write_texts(tmp_path / "a.csv", ["NA", "b b", " ", "b b"])
    other = write_texts(tmp_path / "b.csv", ["c", "NA"])
    assert read_texts([one, other], "full_text") == ["NA", "b b", "c"]
    with pytest.raises(DataError, match="1 different"):
        read_texts([write_texts(tmp_path / "c.csv", ["x", "x"])], "full_text")
    encoded = [np.array([1, *range(10, 10 + n), 2], dtype=np.int32) for n in (0, 6, 7, 20)]
    pieces = cut_pieces(encoded, 8)
    assert [len(piece) for piece in pieces] == [2, 8, 6, 5, 7, 7, 7, 7]
    assert all((piece[0], piece[-1]) == (1, 2) for piece in pieces)
    inner = [token for piece in pieces for token in piece[1:-1]]
    assert inner == [token for ids in encoded for token in ids[1:-1]]


def make_course(material: Material, **changes) -> Course:
    tokenizer = build_tokenizer(material.backbone, keep_newlines=True)
    model = MaskedLanguageModel(load_backbone(material.backbone, dropout=0.0), None)
    return Course(model, tokenizer, **{"mask_share": 0.3, "seed": 5, **changes})


PIECES = [np.array([1, *range(20, 20 + n), 2], dtype=np.int32) for n in (30, 12, 25, 3)]


def test_the_held_out_loss_is_the_mean_over_tokens_of_all_batches(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = make_course(material)
    found = course.held_out_loss(PIECES)
    sums = []
    for row in range(len(PIECES)):  # by themselves, each with the masks that its number fixes
        with torch.no_grad():
            sums.append(
                [float(value) for value in course.model(course.batch(PIECES, np.array([row])))]
            )
    total, count = np.sum(sums, axis=0)
    assert count > 5 and found == pytest.approx(total / count, rel=1e-5)
    monkeypatch.setattr(masked_course, "EVAL_BATCH_TOKENS", 1)
    assert course.held_out_loss(PIECES) == pytest.approx(found, rel=1e-5)


def test_masks_change_from_epoch_to_epoch_and_hold_no_special_token(material: Material) -> None:
    course = make_course(material)
    rows = np.arange(4)
    batches = [course.batch(PIECES, rows, *seed) for seed in ((0,), (0,), (1,), ())]
    targets = [batch.targets for batch in batches]
    assert torch.equal(targets[0], targets[1])
    assert not torch.equal(targets[0], targets[2]) and not torch.equal(targets[0], targets[3])
    mask = build_tokenizer(material.backbone, keep_newlines=True).mask_token_id
    assert (batches[0].input_ids == mask).any()
    assert (targets[0][batches[0].attention_mask == 0] == IGNORE).all()


def test_each_epoch_of_training_has_masks_of_its_own(material: Material) -> None:
    course, seen = make_course(material), []
    mean_loss = course.model.mean_loss

    def noting(batch):
        seen.append(batch.targets)
        return mean_loss(batch)

    course.model.mean_loss = noting
    course.train(PIECES[:1], Recipe(1e-3, 0.0, 0.1), 3, 1, Clock(1e9), 0.0)
    assert len({tuple(targets.flatten().tolist()) for targets in seen}) == 3


class StepsClock(Clock):
    """A second goes by at each look."""

    def __init__(self, budget_seconds: float) -> None:
        self.seconds = 0.0
        super().__init__(budget_seconds, now=self.tick)

    def tick(self) -> float:
        self.seconds += 1
        return self.seconds


def test_the_minutes_end_it(material: Material, capsys: pytest.CaptureFixture[str]) -> None:
    course = make_course(material)
    recipe = Recipe(1e-3, 0.0, 0.1)
    made = course.train(PIECES, recipe, 50, 1, StepsClock(20), 5.0)
    assert 10 <= made <= 14
    assert f"after {made} of 200 updates" in capsys.readouterr().out
    assert course.train(PIECES, recipe, 2, 1, Clock(1e9), 5.0) == 8


def test_it_writes_nothing_where_nothing_was_learned(
    material: Material, texts: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="more minutes"):
        adapt(str(material.backbone), [texts], tmp_path / "out", **QUICK, minutes=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_written_whole_or_not_at_all(
    material: Material, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(tokenizer, folder) -> None:
        assert (folder / "model.safetensors").is_file()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_tokenizer", full)
    with pytest.raises(ArtifactError, match="No space left"):
        adapt(str(material.backbone), [texts], tmp_path / "out", **{**QUICK, "epochs": 1})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mask_share": 1.0}, "mask_share"),
        ({"epochs": 0}, "epochs"),
        ({"max_length": 7}, "max_length"),
        ({"minutes": float("nan")}, "minutes"),
    ],
)
def test_what_cannot_be_done_is_refused(
    material: Material, texts: Path, tmp_path: Path, changes, words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        adapt(str(material.backbone), [texts], tmp_path / "out", **{**QUICK, **changes})


def test_a_folder_that_is_there_is_left_alone(
    material: Material, texts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArtifactError, match="there already"):
        adapt(str(material.backbone), [texts], tmp_path, **QUICK)


def test_memory_that_is_full_is_told(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    course = make_course(material)

    def fail(batch) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    course.model.mean_loss = fail
    with pytest.raises(TrainingError, match="--batch-size"):
        course.train(PIECES, Recipe(1e-3, 0.0, 0.1), 1, 2, Clock(1e9), 0.0)


def test_the_command_line(
    material: Material, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "out"
    words = f"adapt {material.backbone} --texts {texts} {texts} --out {out} --epochs 1"
    words += " --max-length 32 --batch-size 16 --no-keep-newlines --minutes 5 --seed 3"
    monkeypatch.setattr(sys, "argv", words.split())
    assert main() == 0
    assert "held-out loss" in capsys.readouterr().out
    before, after = (build_tokenizer(p, keep_newlines=False) for p in (material.backbone, out))
    assert token_fingerprint(before) == token_fingerprint(after)
    assert main() == 1
    assert "there already" in capsys.readouterr().err
