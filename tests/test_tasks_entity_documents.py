"""Tagged texts of any format in one table; windows whose targets stand at words' first tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.tasks.entities import EntityTask
from kernel_lib.tasks.entity_documents import encode_documents, first_places, unknown_tags
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings
from kernel_lib.text.batches import IGNORE
from kernel_lib.text.tokenizer import build_tokenizer

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


@pytest.fixture
def data(entity_material, tmp_path: Path) -> Path:
    """A copy of the made-up texts that a test may spoil."""
    return Path(shutil.copytree(entity_material.competition, tmp_path / "data"))


@pytest.fixture(scope="module")
def tokenizer(entity_material) -> Any:
    return build_tokenizer(entity_material.backbone, keep_newlines=False)


def task(data: Path, **changes) -> EntityTask:
    return EntityTask(EntitySettings(data_dir=str(data), **changes))


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def row(tokens: str = "Anna moved", tags: str = "B-PER O", **others: Any) -> dict:
    return {"id": "a", "tokens": tokens.split(), "tags": tags.split(), **others}


def test_all_texts_are_read_as_they_stand_there(data: Path) -> None:
    expected = pd.read_csv(data / "train.csv", dtype=str, keep_default_na=False)
    one = task(data)
    frame = one.read_train()
    assert frame["id"].tolist() == expected["id"].tolist() and len(frame) == 60
    for name in ("tokens", "tags"):
        assert [" ".join(each) for each in frame[name]] == expected[name].tolist()
    assert set(frame["domain"]) == {"train"}
    types = ("LOCATION", "ORGANIZATION", "PERSON", "TIME")
    assert one.labels == ("O", *(f"{place}-{name}" for name in types for place in "BI"))
    assert one.kind == f"entities ({', '.join(one.labels)})"


def test_several_files_of_any_format_keep_their_ids_apart(data: Path) -> None:
    write(data / "sub/train.jsonl", [row(domain=None), {**row(domain=7), "id": "b"}])
    (data / "more.conll").write_text("Anna B-PER\n\nBoris B-PER\n")
    files = ("train.csv", "sub/train.jsonl", "more.conll")
    frame = task(data, train_files=files).read_train()
    assert frame["id"].is_unique and frame["id"][0].startswith("train.csv/")
    assert frame["id"].tolist()[60:] == [
        "sub/train.jsonl/a",
        "sub/train.jsonl/b",
        "more/1",
        "more/2",
    ]
    assert frame["domain"][0] == "train.csv" and frame["domain"].tolist()[62:] == ["more", "more"]
    assert frame["domain"][60] == "" and frame["domain"][61] in ("7", "7.0")


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("IOB1", "I-PER O I-PER B-PER"),
        ("BIOES", "S-PER O S-PER S-PER"),
        ("BILOU", "U-PER O U-PER U-PER"),
    ],
)
def test_other_schemes_become_bio_in_training_and_test(tmp_path, scheme: str, tags: str) -> None:
    for name in ("train.jsonl", "test.jsonl"):
        write(tmp_path / name, [row("Anna and Boris Clara", tags)])
    one = task(tmp_path, scheme=scheme, train_files=("train.jsonl",))
    assert one.read_train()["tags"].tolist() == [["B-PER", "O", "B-PER", "B-PER"]]
    test = one.read_test(EntityInferenceSettings(data_dir=str(tmp_path)))
    assert test.frame["tags"].tolist() == [["B-PER", "O", "B-PER", "B-PER"]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("Anna", "B-PER O")], r"a \(line 1\) has 1 words and 2 tags \(no word for tag 2, 'O'"),
        ([row("Anna moved", "B-PER")], r"no tag for word 2, 'moved'"),
        ([row(tags="X-PER O")], r"word 1, tag 'X-PER': no tag of BIO"),
        ([row(tags="O I-PER")], r"word 2, tag 'I-PER': behind O, where it continues nothing"),
        ([row(), row()], r"an id comes more than once: a \(line 1, line 2\)"),
        ([{"id": "a", "tokens": ["Anna"]}], "has no column 'tags'"),
        ([row(tags="O O")], r"no text of train\.jsonl has an entity"),
        ([{"id": "a", "tokens": ["\ud800"], "tags": ["O"]}], r"half of a surrogate pair.*U\+D800"),
    ],
)
def test_bad_training_texts_are_refused_with_their_place(tmp_path, rows, message: str) -> None:
    write(tmp_path / "train.jsonl", rows)
    with pytest.raises(DataError, match=message):
        task(tmp_path, train_files=("train.jsonl",)).read_train()


def test_empty_texts_and_words_that_cannot_be_seen_are_texts_and_words(tmp_path) -> None:
    tokens = ["\n", "Anna", "", " ", "\u200b", "\ufeff", "Weber"]
    tags = ["O", "B-PER", "I-PER", "I-PER", "I-PER", "I-PER", "I-PER"]
    rows = [{"id": "0", "tokens": [], "tags": []}, {"id": "1", "tokens": tokens, "tags": tags}]
    write(tmp_path / "train.jsonl", rows)
    frame = task(tmp_path, train_files=("train.jsonl",)).read_train()
    assert frame["tokens"].tolist() == [[], tokens] and frame["tags"].tolist() == [[], tags]


def test_the_test_file_is_found_by_its_name_or_named(data: Path) -> None:
    settings = EntityInferenceSettings(data_dir=str(data))
    one = task(data)
    one.read_train()
    unseen = one.read_test(settings)
    assert len(unseen.frame) == 30 and unseen.sample == data / "sample_submission.csv"
    assert "tags" not in unseen.frame and set(unseen.frame["domain"]) == {"test"}
    write(data / "test.jsonl", [row(tags="B-PERSON O")])
    with pytest.raises(DataError, match=r"holds test\.csv and test\.jsonl: one of .* test_files"):
        one.read_test(settings)
    named = settings.replace(test_files=("test.jsonl",))
    assert one.read_test(named).frame["tags"].tolist() == [["B-PERSON", "O"]]
    both = one.read_test(settings.replace(test_files=("test.csv", "test.jsonl"))).frame
    assert "tags" not in both and len(both) == 31  # not all have them
    for name in ("test.csv", "test.jsonl"):
        (data / name).unlink()
    with pytest.raises(DataError, match="holds no test file"):
        one.read_test(settings)


def test_a_folder_of_texts_can_be_read_as_feedbacks_is(tmp_path, monkeypatch) -> None:
    """Its types have blanks, and its test texts are a folder."""
    data = tmp_path / "kaggle/input/feedback"
    for name in ("train", "test"):
        (data / name).mkdir(parents=True)
        (data / name / "T1.txt").write_text("Phones are bad.\nSo I say.")
    (data / "train.csv").write_text(
        "id,discourse_start,discourse_end,discourse_type\nT1,16,25,Concluding Statement\n"
    )
    monkeypatch.setenv("KERNEL_LIB_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    one = task(Path(""), dataset="feedback").settings.replace(data_dir="")
    one = EntityTask(one)
    assert one.read_train()["tags"][0][2:] == [
        "O",
        "B-Concluding Statement",
        *["I-Concluding Statement"] * 2,
    ]
    for folder in ("", str(data)):
        unseen = one.read_test(EntityInferenceSettings(test_files=("test",), data_dir=folder))
        assert unseen.frame["tokens"][0] == ["Phones", "are", "bad.", "So", "I", "say."]
    with pytest.raises(DataError, match="has no tests"):
        one.read_test(EntityInferenceSettings(test_files=("tests",), data_dir=str(data)))


def test_max_rows_draws_the_same_rows_each_time(data: Path) -> None:
    one, two = (task(data, max_rows=10).read_train() for _ in range(2))
    assert one.equals(two) and one.index.tolist() == list(range(10))
    assert one["id"].tolist() != task(data).read_train()["id"].tolist()[:10]


@pytest.mark.parametrize("scheme", ["plain", "stratified", "multilabel"])
def test_folds_of_types_that_are_called_as_columns_are(tmp_path, scheme: str) -> None:
    kinds = [("id", "tokens"), ("group", "domain")]
    rows = [
        {**row("a b", f"B-{kinds[n % 2][0]} B-{kinds[n % 2][1]}"), "id": str(n), "group": "text"}
        for n in range(16)
    ]
    write(tmp_path / "train.jsonl", rows)
    one = task(tmp_path, train_files=("train.jsonl",), fold_scheme=scheme, n_folds=4)
    folds = one.folds(one.read_train())
    assert np.bincount(folds).tolist() == [4, 4, 4, 4]
    if scheme == "multilabel":  # each fold has two texts of each kind
        assert [sum(folds[::2] == fold) for fold in range(4)] == [2, 2, 2, 2]


def test_folds_keep_groups_together(tmp_path) -> None:
    rows = [{**row(), "id": str(n), "book": n % 5} for n in range(20)]
    write(tmp_path / "train.jsonl", rows)
    changes = {"train_files": ("train.jsonl",), "fold_scheme": "grouped", "n_folds": 2}
    one = task(tmp_path, group_column="book", **changes)
    frame = one.read_train()
    folds = pd.Series(one.folds(frame))
    assert (folds.groupby(frame["book"]).nunique() == 1).all() and set(folds) == {0, 1}
    with pytest.raises(DataError, match=r"train\.jsonl has no column 'author', the group_column"):
        task(tmp_path, group_column="author", **changes).read_train()
    with pytest.raises(DataError, match="1 groups in 'group' cannot be split into 2"):
        one = task(tmp_path, group_column="domain", **changes)
        one.folds(one.read_train())


def encoded(tokenizer: Any, texts: list[list[str]], tags: list | None = None, **changes: Any):
    frame = pd.DataFrame({"id": [f"t{n}" for n in range(len(texts))], "tokens": texts})
    frame["domain"] = "d"
    if tags is not None:
        frame["tags"] = tags
    settings = EntitySettings(**{"max_length": 12, "window_overlap": 4, **changes})
    return encode_documents(frame, tokenizer, LABELS, settings)


@pytest.mark.parametrize("special", [True, False])
def test_targets_stand_at_first_tokens_whatever_words_have_none(tokenizer, special: bool) -> None:
    tokens = ["\n", "Anna", "", "Lindqvist", " ", "in", "Riverton"]
    tags = ["O", "B-PER", "I-PER", "I-PER", "O", "O", "B-LOC"]
    (one,) = encoded(tokenizer, [tokens], [tags], max_length=64, special_tokens=special)
    first = np.flatnonzero(first_places(one.words))
    assert one.words[first].tolist() == [0, 2, 4, 5]  # from the first that has a token
    assert one.target[first].tolist() == [3, 4, 0, 1]
    others = np.delete(one.target, first)
    assert (others == IGNORE).all() and len(others) > 4
    assert (one.words[0] == -1) == (one.input_ids[0] == tokenizer.cls_token_id) == special
    text = "".join(tokenizer.convert_ids_to_tokens(one.input_ids[one.words >= 0]))
    assert text.replace("▁", "") == "AnnaLindqvistinRiverton"
    assert one.origin == {"tokens": tokens, "tags": tags, "domain": "d", "stop": 7, "lead": 1}
    assert one.target.dtype == one.input_ids.dtype == one.words.dtype == np.int32


def test_a_text_without_a_token_is_still_something_to_read(tokenizer) -> None:
    """An encoder cannot read nothing: rows of padding alone give NaN in some attentions."""
    examples = encoded(tokenizer, [[], ["\n", " "]], [[], ["O", "B-PER"]], special_tokens=False)
    for one, words in zip(examples, (0, 2), strict=True):
        assert one.input_ids.tolist() == [tokenizer.cls_token_id] and one.words.tolist() == [-1]
        assert one.target.tolist() == [IGNORE] and one.origin["stop"] == words


def test_long_texts_become_windows_in_order(tokenizer) -> None:
    long = ["Anna", "moved", "to", "Riverton", "and", "Boris", "to", "Norbury"]
    tags = ["B-PER", "O", "O", "B-LOC", "O", "B-PER", "O", "B-LOC"]
    examples = encoded(tokenizer, [["Anna"], long, []], [["B-PER"], tags, []])
    windows = examples[1:-1]
    assert len(windows) > 2 and [e.row for e in examples] == [0, *[1] * len(windows), 2]
    starts = [one.start for one in windows]
    assert starts == sorted(set(starts)) and starts[0] == 0
    assert [e.id for e in windows] == ["t1", *(f"t1@{start}" for start in starts[1:])]
    for one in windows:
        assert len(one.input_ids) <= 12
        assert set(one.words[1:-1]) == set(range(one.start, one.origin["stop"]))
        first = first_places(one.words)
        assert [LABELS[t] for t in one.target[first]] == tags[one.start : one.origin["stop"]]
        assert ("tokens" in one.origin) == (one.start == 0)
    assert windows[0].origin["tokens"] == long and windows[-1].origin["stop"] == len(long)
    without = encoded(tokenizer, [long])
    assert all(one.target is None for one in without) and without[0].origin["tags"] is None
    assert [one.input_ids.tolist() for one in without] == [e.input_ids.tolist() for e in windows]


def test_tags_that_training_never_saw_have_no_target_and_are_told(tokenizer, tmp_path, capsys):
    tags = ["B-PER", "B-ANIMAL", "O"]
    (one,) = encoded(tokenizer, [["Anna", "fox", "in"]], [tags], max_length=32)
    assert one.target[first_places(one.words)].tolist() == [3, IGNORE, 0]
    frame = pd.DataFrame({"id": ["a", "b"], "tags": [tags, ["O", "B-ANIMAL"]]})
    assert unknown_tags(frame, LABELS) == "B-ANIMAL (a, word 2, b, word 2)"
    assert unknown_tags(frame[["id"]], LABELS) == "" == unknown_tags(frame, [*LABELS, "B-ANIMAL"])
    write(tmp_path / "train.jsonl", [row()])
    write(tmp_path / "test.jsonl", [row(tags="B-ANIMAL O")])
    task_here = task(tmp_path, train_files=("train.jsonl",))
    task_here.read_train()
    task_here.read_test(EntityInferenceSettings(data_dir=str(tmp_path)))
    assert "cannot be named: B-ANIMAL (a, word 1)" in capsys.readouterr().out
