"""The made-up tests look like the competition's own and hold what a real one may."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.rehearsal.hidden import (
    HIDDEN_ROWS,
    ODD_TEXTS,
    PUBLIC_ROWS,
    _new_ids,
    text_columns,
    write_hidden,
    write_public,
)


def essay(number: int) -> str:
    return f"Essay {number} has some words, and {'more ' * (number % 7)}to say."


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@pytest.fixture
def competition(tmp_path: Path) -> Any:
    """Writes a competition; ``test`` and ``train`` are columns, ``answers`` those of the sample."""

    def write(
        test: dict[str, list], train: dict[str, list] | None = None, order: list[int] | None = None
    ) -> Path:
        folder = tmp_path / "data"
        folder.mkdir()
        frame = pd.DataFrame(test)
        frame.to_csv(folder / "test.csv", index=False)
        ids = frame[[frame.columns[0]]].assign(score=0.5, other=2)
        (ids.iloc[order] if order else ids).to_csv(folder / "sample_submission.csv", index=False)
        if train:
            pd.DataFrame(train).to_csv(folder / "train.csv", index=False)
        return folder

    return write


def make_hidden(data: Path, **options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    target = data.parent / "hidden"
    rows = write_hidden(data, target, **options)
    test, sample = read(target / "test.csv"), read(target / "sample_submission.csv")
    assert {path.name for path in target.iterdir()} == {"test.csv", "sample_submission.csv"}
    assert len(test) == len(sample) == rows
    return test, sample


# the public test


def test_the_public_test_is_the_samples_first_three_rows(competition) -> None:
    ids = ["d", "b", "a", "c", "e"]
    data = competition({"id": ids, "text": list("DBACE")}, order=[3, 0, 4, 1, 2])
    assert write_public(data, data.parent / "public") == PUBLIC_ROWS
    test = read(data.parent / "public/test.csv")
    sample = read(data.parent / "public/sample_submission.csv")
    assert sample["id"].tolist() == ["c", "d", "e"]  # the sample's order
    assert test["id"].tolist() == ["d", "c", "e"]  # the test's
    assert test["text"].tolist() == ["D", "C", "E"]


def test_a_test_of_one_row_stays_one(competition) -> None:
    data = competition({"id": ["a"], "text": ["one"]})
    assert write_public(data, data.parent / "public") == 1
    test, _ = make_hidden(data)
    assert len(test) == HIDDEN_ROWS


# the hidden test


@pytest.fixture
def fb3_like(competition) -> Path:
    train = {
        "text_id": [f"{n * 7919:012X}" for n in range(40)],
        "full_text": [essay(n) for n in range(40)],
        "score": [3.0] * 40,
    }
    test = {
        "text_id": ["0000C359D63E", "000BAD50D026", "00367BB2546B"],
        "full_text": [essay(n) for n in (91, 92, 93)],
    }
    return competition(test, train)


def test_ids_are_new_and_of_the_same_look_and_the_sample_agrees(fb3_like: Path) -> None:
    test, sample = make_hidden(fb3_like)
    assert all(re.fullmatch("0[0-9A-F]{11}", name) for name in test["text_id"])
    assert test["text_id"].is_unique
    assert not set(test["text_id"]) & set(read(fb3_like / "test.csv")["text_id"])
    assert test["text_id"].tolist() == sample["text_id"].tolist() != sorted(test["text_id"])
    assert list(test) == ["text_id", "full_text"] and list(sample) == ["text_id", "score", "other"]
    assert set(sample["score"]) == {"0.5"} and set(sample["other"]) == {"2"}


def test_every_odd_text_is_there_beside_texts_of_the_training(fb3_like: Path) -> None:
    test, _ = make_hidden(fb3_like)
    texts = test["full_text"].tolist()
    assert set(ODD_TEXTS) <= set(texts)
    others = [text for text in texts if text not in ODD_TEXTS]
    assert len(others) == HIDDEN_ROWS - len(ODD_TEXTS)
    assert set(others) <= set(read(fb3_like / "train.csv")["full_text"])


def test_a_seed_gives_the_same_test_again_and_another_another(fb3_like: Path) -> None:
    made = []
    for number, seed in enumerate((0, 0, 1)):
        target = fb3_like.parent / f"hidden{number}"
        write_hidden(fb3_like, target, seed=seed)
        made.append((target / "test.csv").read_bytes())
    assert made[0] == made[1] != made[2]


def test_more_or_fewer_rows_can_be_asked_for(fb3_like: Path) -> None:
    test, _ = make_hidden(fb3_like, rows=5)
    assert len(test) == 5 and set(test["full_text"]) <= set(ODD_TEXTS)


def test_where_the_sample_has_an_order_of_its_own_the_hidden_one_has_too(competition) -> None:
    ids = [f"id{n}" for n in range(10, 20)]
    data = competition({"id": ids, "text": ["some text"] * 10}, order=[*range(5, 10), *range(5)])
    test, sample = make_hidden(data)
    assert set(test["id"]) == set(sample["id"]) and test["id"].tolist() != sample["id"].tolist()


def test_without_training_data_the_test_itself_is_drawn_from(competition) -> None:
    data = competition({"id": ["a1", "a2"], "text": [essay(1), essay(2)]})
    test, _ = make_hidden(data)
    assert set(test["text"]) == {*ODD_TEXTS, essay(1), essay(2)}


@pytest.mark.parametrize("train", [{"id": [], "text": []}, {"id": ["x"], "essay": ["lacks text"]}])
def test_training_data_that_are_empty_or_lack_a_column_are_not_drawn_from(
    competition, train: dict
) -> None:
    data = competition({"id": ["a1", "a2"], "text": [essay(1), essay(2)]}, train)
    test, _ = make_hidden(data)
    assert {essay(1), essay(2)} <= set(test["text"])


def test_a_byte_order_mark_is_no_part_of_the_first_name(competition) -> None:
    data = competition({"id": ["a", "b"], "text": [essay(1), essay(2)]})
    for name in ("test.csv", "sample_submission.csv"):
        (data / name).write_bytes(b"\xef\xbb\xbf" + (data / name).read_bytes())
    test, sample = make_hidden(data)
    assert list(test) == ["id", "text"] and list(sample) == ["id", "score", "other"]


# which columns are texts


def test_texts_are_the_long_columns_of_letters_that_differ() -> None:
    n = range(60)
    frame = pd.DataFrame(
        {
            "id": [f"essay number {i} of the whole lot" for i in n],
            "essay": [essay(i) for i in n],
            "note": [f"a remark on {i}, of some length" for i in n],
            "prompt": ["What do you think of school? Write about it." for _ in n],
            "grade": ["eighth grade, second term" if i % 2 else "ninth" for i in n],
            "length": [str(i * 1000) for i in n],
            "when": [f"2026-11-{i % 28 + 1:02d} 12:00:00.{i:06d}" for i in n],
            "empty": ["" for _ in n],
        }
    )
    assert text_columns(frame, "id") == ["essay", "note"]


def test_where_no_column_is_long_the_longest_is_the_text() -> None:
    frame = pd.DataFrame({"id": list("abc"), "word": ["one", "three", "four"], "n": list("123")})
    assert text_columns(frame, "id") == ["word"]
    chinese = pd.DataFrame({"id": list("ab"), "text": ["我今天去学校", "他明天不来"]})
    assert text_columns(chinese, "id") == ["text"]


def test_short_chinese_texts_are_texts_beside_a_long_column() -> None:
    frame = pd.DataFrame(
        {
            "id": [f"{n}" for n in range(60)],
            "source": [f"我今天第{n}次去了学校" for n in range(60)],
            "page": [f"a page of the book with the title {n}" for n in range(60)],
            "domain": ["school", "news"] * 30,
        }
    )
    assert text_columns(frame, "id") == ["source", "page"]


def test_answers_that_stand_in_the_test_are_not_in_the_hidden_one(competition) -> None:
    columns = {"source": [essay(n) for n in range(9)], "score": [f"answer {n}" for n in range(9)]}
    data = competition({"id": list("abcdefghi"), **columns}, {"id": ["x"], "source": ["a text"]})
    test, _ = make_hidden(data)
    assert list(test) == ["id", "source"] and set(test["source"]) == {*ODD_TEXTS, "a text"}


@pytest.mark.parametrize("columns", [{}, {"size": ["1.5", "2", ""]}, {"kind": ["a", "a", "a"]}])
def test_a_test_without_texts_gets_none(competition, columns: dict) -> None:
    data = competition({"id": ["i1", "i2", "i3"], **columns})
    test, _ = make_hidden(data)
    for name, values in columns.items():
        assert set(test[name]) <= set(values)


# ids


def new_ids(*old: str, count: int = HIDDEN_ROWS) -> list[str]:
    made = _new_ids(list(old), count, np.random.default_rng(0))
    assert len(made) == len(set(made)) == count and not set(made) & set(old)
    return made


@pytest.mark.parametrize(
    ("old", "look"),
    [
        (["0", "1", "2"], "[1-9][0-9]?"),
        (["1001", "1002", "1003"], "[1-9][0-9]{3}"),
        (["007", "012"], "0[0-9]{2}"),
        (["deadbeef", "0badf00d"], "[0-9a-f]{8}"),
        (["1f3b-22aa", "9e00-0c1d"], "[0-9a-f]{4}-[0-9a-f]{4}"),
        (["train_0001", "train_0002"], "[a-z]{5}_[0-9]{4}"),
        (["A-5", "B-7"], "[A-Z]-[0-9]{1,2}"),
        (["essay 1.txt", "essay 2.txt"], r"[a-z]{5} [0-9]\.[a-z]{3}"),
        (["kkq", "zzx"], "[a-z]{3}"),
    ],
)
def test_new_ids_look_like_the_old(old: list[str], look: str) -> None:
    assert [name for name in new_ids(*old) if not re.fullmatch(look, name)] == []


@pytest.mark.parametrize("old", [["x"], ["7"], ["#", "##"], ["中"], [""], ["-1"], ["a", "b", "c"]])
def test_few_and_short_ids_do_not_run_out(old: list[str]) -> None:
    new_ids(*old, count=500)


def test_many_ids_are_soon_made() -> None:
    new_ids("0000C359D63E", "000BAD50D026", count=5_000)


# what makes no test


def test_a_folder_without_the_files_is_named(tmp_path: Path) -> None:
    for make in (write_public, write_hidden):
        with pytest.raises(DataError, match=r"test\.csv cannot be read as CSV .*give DATA="):
            make(tmp_path, tmp_path / "out")


def test_a_file_of_another_encoding_is_named(competition) -> None:
    data = competition({"id": ["a"], "text": ["b"]})
    (data / "test.csv").write_bytes("id,text\na,naïf\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"test\.csv cannot be read as CSV"):
        write_public(data, data.parent / "out")


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ("id,score\nz,1\n", "do not have the same ids in a column 'id'"),
        ("name,score\na,1\n", "do not have the same ids in a column 'name'"),
    ],
)
def test_files_of_two_competitions_are_refused(competition, sample: str, message: str) -> None:
    data = competition({"id": ["a"], "text": ["b"]})
    (data / "sample_submission.csv").write_text(sample)
    with pytest.raises(DataError, match=message):
        write_public(data, data.parent / "out")


def test_a_test_without_rows_is_refused(competition) -> None:
    data = competition({"id": [], "text": []})
    for make in (write_public, write_hidden):
        with pytest.raises(DataError, match="has no rows"):
            make(data, data.parent / "out")
