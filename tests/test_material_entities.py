"""The made-up names can be learned from the words around them; the files have a task's shape."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.metrics.tag_faults import check_tags
from kernel_lib.metrics.tags import read_spans
from kernel_lib.offline.material import write_backbone, write_entity_competition
from kernel_lib.offline.material.entities import AWKWARD, CHINESE, TYPES
from kernel_lib.offline.rehearsal.hidden import ODD_TEXTS, text_columns, write_hidden
from kernel_lib.text.tagged import read_tagged
from kernel_lib.text.tokenizer import build_tokenizer
from kernel_lib.text.words import encode_words, owned_words


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 training and 40 test sentences."""
    path = tmp_path_factory.mktemp("entities")
    write_entity_competition(path, train_rows=600, test_rows=40)
    return path


@pytest.fixture(scope="module")
def train(folder: Path) -> pd.DataFrame:
    return read_tagged(folder / "train.csv", needs_tags=True)


def test_the_files_have_the_columns_and_no_order_that_helps(folder: Path) -> None:
    train, test = read(folder / "train.csv"), read(folder / "test.csv")
    sample = read(folder / "sample_submission.csv")
    assert list(train) == ["id", "tokens", "tags"] and len(train) == 600
    assert list(test) == ["id", "tokens"] and list(sample) == ["id", "tags"]
    assert set(test["id"]) == set(sample["id"]) and len(test) == len(sample) == 40
    ids = [*train["id"], *test["id"]]
    assert len(set(ids)) == len(ids) and ids != sorted(ids) and train["tokens"].is_unique
    assert all(len(name) == 6 for name in ids) and any(name[0] == "0" for name in ids)
    assert test["id"].tolist() != sample["id"].tolist()
    words = dict(zip(test["id"], test["tokens"].str.split(), strict=True))
    assert [tags.split() for tags in sample["tags"]] == [
        ["O"] * len(words[name]) for name in sample["id"]
    ]


def test_tags_are_legal_and_all_types_there_in_english_and_chinese(train) -> None:
    check_tags(train["tags"].tolist(), ids=train["id"].tolist())
    chinese = train["tokens"].map(lambda words: any("一" <= word[0] <= "龥" for word in words))
    assert 0.7 * CHINESE < chinese.mean() < 1.3 * CHINESE
    assert all(len(word) == 1 for words in train["tokens"][chinese] for word in words)
    for part in (train["tags"][chinese], train["tags"][~chinese]):
        counts = Counter(span.type for tags in part for span in read_spans(tags, strict=True))
        assert set(counts) == set(TYPES.values()) and min(counts.values()) > 15
    spans = [read_spans(tags, strict=True) for tags in train["tags"]]
    assert 10 < sum(not found for found in spans) < 200
    touching = {
        one.type == other.type
        for found in spans
        for one, other in pairwise(found)
        if one.end == other.start
    }
    assert touching == {True, False}


def strict_f1(gold: list[list[str]], predicted: list[list[str]]) -> float:
    pairs = [
        (set(read_spans(g, strict=True)), set(read_spans(p, strict=True)))
        for g, p in zip(gold, predicted, strict=True)
    ]
    hits = sum(len(g & p) for g, p in pairs)
    return 2 * hits / sum(len(g) + len(p) for g, p in pairs)


def test_neighbours_tell_the_type_where_the_word_alone_does_not(train) -> None:
    seen: defaultdict[tuple[int, int, str, str], Counter[str]] = defaultdict(Counter)

    def views(words: list[str], place: int, reach: int) -> list[tuple[int, int, str, str]]:
        """The word beside each of those around it, and by itself."""
        places = range(place - reach, place + reach + 1)
        others = [words[at] if 0 <= at < len(words) else "" for at in places]
        return [(reach, at, words[place], other) for at, other in enumerate(others)]

    def tagged(words: list[str], reach: int) -> list[str]:
        tags = []
        for place in range(len(words)):
            votes: Counter[str] = Counter({"O": 1e-9})
            for view in views(words, place, reach):
                for tag, count in seen[view].items():
                    votes[tag] += (count / seen[view].total()) ** 2  # a sure one counts for more
            tags.append(votes.most_common(1)[0][0])
        return tags

    for words, tags in zip(train["tokens"][:300], train["tags"][:300], strict=True):
        for place, tag in enumerate(tags):
            for view in views(words, place, 0) + views(words, place, 2):
                seen[view][tag] += 1
    gold, texts = train["tags"][300:].tolist(), train["tokens"][300:]
    with_neighbours = strict_f1(gold, [tagged(words, 2) for words in texts])
    alone = strict_f1(gold, [tagged(words, 0) for words in texts])
    assert with_neighbours > 0.85 and alone < 0.65, (with_neighbours, alone)


def test_a_third_of_the_test_is_awkward_and_never_more_than_half(folder: Path, tmp_path) -> None:
    texts = read(folder / "test.csv")["tokens"]
    assert set(AWKWARD) < set(texts) and texts.str.split().map(len).max() > 512
    assert texts.map(str.strip).eq("").sum() == 2
    write_entity_competition(tmp_path, train_rows=3, test_rows=4)
    few = read(tmp_path / "test.csv")["tokens"]
    assert len(few) == 4 and few.isin(AWKWARD).sum() == 1 and (few.str.len() > 400).sum() == 1


def test_one_seed_gives_the_same_files(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_entity_competition(tmp_path / name, train_rows=5, test_rows=4, seed=seed)
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b and a["train.csv"] != c["train.csv"] and len(a) == 3


def test_a_rehearsals_hidden_test_is_read_and_cut_into_windows(folder: Path, tmp_path) -> None:
    assert text_columns(read(folder / "test.csv"), "id") == ["tokens"]
    assert text_columns(read(folder / "train.csv")[["id", "tokens"]], "id") == ["tokens"]
    rows = write_hidden(folder, tmp_path / "hidden")
    raw = read(tmp_path / "hidden/test.csv")
    assert set(ODD_TEXTS) <= set(raw["tokens"])
    frame = read_tagged(tmp_path / "hidden/test.csv", needs_tags=False)
    assert list(frame) == ["id", "tokens"] and len(frame) == rows
    assert frame["tokens"].tolist() == raw["tokens"].str.split().tolist()
    corpus = [" ".join(words) for words in frame["tokens"] if len(words) < 100]
    write_backbone(tmp_path / "backbone", corpus=corpus, pieces=600)
    tokenizer = build_tokenizer(tmp_path / "backbone", keep_newlines=True)
    for words in frame["tokens"]:
        windows = encode_words(tokenizer, words, max_length=512, overlap=64)
        owned = owned_words(windows)
        assert owned[0][0] == 0 and owned[-1][1] == len(words)
        assert max(len(window.input_ids) for window in windows) <= 512
