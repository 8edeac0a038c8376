"""The made-up sentences go wrong where their context tells, and the tiny BERT is a Chinese one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
from safetensors.torch import load_file

from kernel_lib.offline.material import write_spelling_backbone, write_spelling_competition
from kernel_lib.offline.material.sentences import DOMAINS, GROUPS, confusions
from kernel_lib.offline.material.spelling import AWKWARD, UNKNOWN


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 training and 40 test sentences."""
    path = tmp_path_factory.mktemp("spelling")
    write_spelling_competition(path, train_rows=600, test_rows=40)
    return path


@pytest.fixture(scope="module")
def train(folder: Path) -> pd.DataFrame:
    return read(folder / "train.csv")


def test_the_files_have_the_columns_and_no_order_that_helps(folder: Path, train) -> None:
    test, sample = read(folder / "test.csv"), read(folder / "sample_submission.csv")
    assert list(train) == ["id", "source", "target", "domain"] and len(train) == 600
    assert list(test) == ["id", "source", "domain"] and list(sample) == ["id", "target"]
    assert set(test["id"]) == set(sample["id"]) and len(test) == len(sample) == 40
    ids = [*train["id"], *test["id"]]
    assert len(set(ids)) == len(ids) and ids != sorted(ids)
    assert all(len(name) == 6 for name in ids) and any(name[0] == "0" for name in ids)
    assert test["id"].tolist() != sample["id"].tolist()
    source = dict(zip(test["id"], test["source"], strict=True))
    assert sample["target"].tolist() == [source[name] for name in sample["id"]]


def test_half_of_the_sentences_are_clean_and_the_others_have_one_or_two_errors(train) -> None:
    assert (train["source"].str.len() == train["target"].str.len()).all()
    wrong = [
        sum(a != b for a, b in zip(*pair, strict=True))
        for pair in zip(train["source"], train["target"], strict=True)
    ]
    assert set(wrong) == {0, 1, 2} and 0.4 < wrong.count(0) / len(wrong) < 0.6
    assert train["target"].is_unique and set(train["domain"]) == set(DOMAINS)


def test_every_error_is_one_of_the_confusion_set(folder: Path, train) -> None:
    lines = (folder / "confusion.txt").read_text(encoding="utf-8").splitlines()
    listed = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    assert {one: "".join(others) for one, others in listed.items()} == confusions()
    for source, target in zip(train["source"], train["target"], strict=True):
        for wrong, right in zip(source, target, strict=True):
            assert wrong == right or wrong in listed[right]


def strict_f1(frame: pd.DataFrame, corrected: list[str]) -> float:
    changed = sum(a != b for a, b in zip(frame["source"], corrected, strict=True))
    wrong = int((frame["source"] != frame["target"]).sum())
    hits = sum(
        s != t == c for s, t, c in zip(frame["source"], frame["target"], corrected, strict=True)
    )
    return 2 * hits / (changed + wrong)


def test_neighbours_tell_which_character_is_right_and_the_character_alone_does_not(train) -> None:
    learned, held_out = train[:300], train[300:]
    assert set("".join(GROUPS)) <= set("".join(learned["target"]))  # each is right somewhere
    seen: Counter[str] = Counter()
    for text in learned["target"]:
        seen.update(text)
        seen.update(text[at : at + 2] for at in range(len(text) - 1))
    others = confusions()

    def corrected(text: str, *, neighbours: bool) -> str:
        def weight(at: int, one: str) -> int:
            return seen[text[at - 1] + one] + seen[one + text[at + 1]] if neighbours else seen[one]

        return "".join(
            max(one + others.get(one, ""), key=lambda other, at=at: weight(at, other))
            if 0 < at < len(text) - 1
            else one
            for at, one in enumerate(text)
        )

    with_neighbours = [corrected(text, neighbours=True) for text in held_out["source"]]
    alone = [corrected(text, neighbours=False) for text in held_out["source"]]
    assert strict_f1(held_out, with_neighbours) > 0.8
    assert strict_f1(held_out, alone) < 0.1


def test_a_quarter_of_the_test_is_awkward_and_never_more_than_half(
    folder: Path, tmp_path: Path
) -> None:
    sources = read(folder / "test.csv")["source"]
    assert set(AWKWARD) < set(sources) and sources.str.len().max() > 512
    assert sources.map(str.strip).eq("").sum() == 2
    write_spelling_competition(tmp_path, train_rows=3, test_rows=4)
    few = read(tmp_path / "test.csv")["source"]
    assert len(few) == 4 and few.isin(AWKWARD).sum() == 1 and (few.str.len() > 50).sum() == 1


def test_one_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_spelling_competition(tmp_path / name, train_rows=5, test_rows=4, seed=seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b and a["train.csv"] != c["train.csv"] and len(a) == 4


def vocabulary(folder: Path) -> list[str]:
    return (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("language_head", [True, False])
def test_the_backbone_has_the_genuine_ones_shape(tmp_path: Path, language_head: bool) -> None:
    write_spelling_backbone(tmp_path, corpus=["他说：“好”，走了。"], language_head=language_head)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"}
    words = vocabulary(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == "bert" and config["vocab_size"] == len(words)
    assert config["max_position_embeddings"] == 512
    weights = load_file(tmp_path / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float32"}
    assert ("cls.predictions.transform.dense.weight" in weights) == language_head
    embeddings = f"{'bert.' if language_head else ''}embeddings.word_embeddings.weight"
    assert weights[embeddings].shape == (len(words), 32)


def test_the_vocabulary_has_the_genuine_ones_order_and_gaps(folder: Path, tmp_path: Path) -> None:
    corpus = read(folder / "train.csv")["target"].tolist()
    write_spelling_backbone(tmp_path, corpus=[*corpus, f"{UNKNOWN} Ａ\t"])
    words = vocabulary(tmp_path)
    assert len(set(words)) == len(words)
    assert words[:2] == ["[PAD]", "[unused1]"]
    assert words[100:104] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert set("".join((*corpus, *GROUPS))) <= set(words)
    assert not set(UNKNOWN) & set(words) and "A" not in words and "##2" in words


def test_a_word_piece_tokenizer_makes_fewer_tokens_than_characters(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_spelling_backbone(tmp_path, corpus=["我用2026年的手机"])
    tokenizer = AutoTokenizer.from_pretrained(
        tmp_path, local_files_only=True, trust_remote_code=False
    )
    tokens = tokenizer.tokenize("用iPhone")
    assert tokens == ["用", "i", "##p", "##h", "##o", "##n", "##e"]
    assert tokenizer.tokenize("a playing") == ["a", "p", "##l", "##a", "##y", "##ing"]
