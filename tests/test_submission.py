"""The submission has the sample's ids, columns and order, or an error says what differs."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import ArtifactError, SubmissionError
from kernel_lib.tasks import submission
from kernel_lib.tasks.submission import (
    check_submission,
    make_submission,
    read_back,
    remove_leftovers,
    texts_by_sample,
    write_submission,
    write_texts,
)

IDS = ["000123", "53E542321463", "B"]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    path = tmp_path / "sample_submission.csv"
    pd.DataFrame({"text_id": IDS, "x": 3.0, "y": 3.0}).to_csv(path, index=False)
    return path


def test_rows_are_joined_by_id_and_columns_by_name(sample: Path) -> None:
    frame = make_submission(
        sample,
        ids=["B", "000123", "53E542321463"],
        columns=["y", "x"],
        predictions=np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 1.5]]),
    )
    assert frame.to_dict("list") == {
        "text_id": IDS,
        "x": [4.0, 1.5, 2.0],
        "y": [3.0, 5.0, 1.0],
    }


def test_ids_survive_the_way_to_the_file_and_back(sample: Path, tmp_path: Path) -> None:
    frame = make_submission(sample, ids=IDS, columns=["x", "y"], predictions=np.full((3, 2), 2.0))
    write_submission(frame, tmp_path / "submission.csv", sample, lowest=1, highest=5)
    assert check_submission(tmp_path / "submission.csv", sample)["text_id"].tolist() == IDS
    assert {path.name for path in tmp_path.iterdir()} == {sample.name, "submission.csv"}


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["000123", "B"], "1 missing .53E542321463."),
        ([*IDS, "C"], "1 not asked for .C."),
        (["123", "53E542321463", "B"], "1 missing .000123., 1 not asked for .123."),
    ],
)
def test_other_ids_are_named(sample: Path, ids: list[str], message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        make_submission(
            sample, ids=ids, columns=["x", "y"], predictions=np.full((len(ids), 2), 2.0)
        )


def test_other_columns_are_named(sample: Path) -> None:
    with pytest.raises(SubmissionError, match="asks for the columns x, y; predicted were x, z"):
        make_submission(sample, ids=IDS, columns=["x", "z"], predictions=np.ones((3, 2)))


def test_a_missing_sample_is_said(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="missing or empty"):
        make_submission(tmp_path / "none.csv", ids=IDS, columns=["x"], predictions=np.ones((3, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.iloc[::-1], "another order"),
        (lambda f: f[["text_id", "y", "x"]], "has the columns"),
        (lambda f: f.assign(x=[1.0, np.nan, 2.0]), "x of 53E542321463: ''"),
        (lambda f: f.assign(y=[1.0, 2.0, 5.01]), "y of B: '5.01'"),
        (lambda f: f.assign(y=[1.0, 2.0, np.inf]), "1 values are no numbers"),
        (lambda f: f.iloc[:2], "1 missing"),
    ],
)
def test_a_wrong_submission_is_refused_and_the_old_file_stays(
    sample: Path, tmp_path: Path, change, message: str
) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("the old one")
    frame = pd.DataFrame({"text_id": IDS, "x": 2.0, "y": 2.0})
    with pytest.raises(SubmissionError, match=message):
        write_submission(change(frame), path, sample, lowest=1, highest=5)
    assert path.read_text() == "the old one"
    assert {p.name for p in tmp_path.iterdir()} == {sample.name, "submission.csv"}


def test_a_full_disk_leaves_the_old_file_and_no_other(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("the old one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    frame = pd.DataFrame({"text_id": IDS, "x": 2.0, "y": 2.0})
    with pytest.raises(ArtifactError, match=r"submission\.csv: No space left on device"):
        write_submission(frame, path, sample, lowest=1, highest=5)
    assert path.read_text() == "the old one"
    assert {p.name for p in tmp_path.iterdir()} == {sample.name, "submission.csv"}


def test_only_temporary_files_of_this_submission_are_removed(tmp_path: Path) -> None:
    stay = {"submission.csv", ".submission.json", ".other.csv.1.tmp", "sub[1].csv", ".sub1.csv.tmp"}
    leftovers = {".submission.csv.0a1b2c3d.tmp", ".submission.csv.trial", ".sub[1].csv.ab.tmp"}
    for name in stay | leftovers:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "submission.csv")
    remove_leftovers(tmp_path / "sub[1].csv")
    assert {path.name for path in tmp_path.iterdir()} == stay
    remove_leftovers(tmp_path / "not there" / "submission.csv")


def test_texts_take_the_samples_names_and_order_or_ours(sample: Path, tmp_path: Path) -> None:
    pd.DataFrame({"key": IDS, "answer": "?"}).to_csv(sample, index=False)
    ids, texts = IDS[::-1], ["of B", "of 53", "of 000"]
    frame = texts_by_sample(texts, ids, sample, ("id", "text"))
    assert frame.to_dict("list") == {"key": IDS, "answer": texts[::-1]}
    frame = texts_by_sample(texts, ids, None, ("id", "text"))
    assert frame.to_dict("list") == {"id": ids, "text": texts}


@pytest.mark.parametrize(
    ("columns", "ids", "message"),
    [
        (
            {"key": IDS, "x": "?", "y": "?"},
            IDS,
            "has the columns key, x, y; a text a row needs two",
        ),
        ({"key": IDS}, IDS, "a text a row needs two"),
        ({"key": IDS, "x": "?"}, IDS[1:], "1 missing .000123."),
        ({"key": IDS, "x": "?"}, [*IDS, "C"], "1 not asked for .C."),
    ],
)
def test_a_sample_that_is_not_of_these_texts_is_refused(
    sample: Path, columns: dict, ids: list[str], message: str
) -> None:
    pd.DataFrame(columns).to_csv(sample, index=False)
    with pytest.raises(SubmissionError, match=message):
        texts_by_sample([""] * len(ids), ids, sample, ("id", "text"))


def test_texts_are_written_as_they_can_be_read_back(tmp_path: Path) -> None:
    rows = [["a", "NA", ""], ["a", '"\r\n,', "\x00"], ["", " ", "1.0"]]
    path = tmp_path / "texts.csv"
    write_texts(pd.DataFrame(rows, columns=["id", "x", "y"]), path)
    assert read_back(path) == rows  # ids may repeat, or be empty
    assert path.read_bytes().startswith(b'"id","x","y"\n"a","NA",""\n')
    write_texts(pd.DataFrame(columns=["id", "x"]), path)
    assert path.read_bytes() == b'"id","x"\n'
    assert [p.name for p in tmp_path.iterdir()] == ["texts.csv"]


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows[:-1], ["b", "?"]],
        lambda rows: rows[:-1],
        lambda rows: [*rows, ["c", ""]],
    ],
)
def test_texts_that_are_read_back_as_others_never_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change
) -> None:
    path = tmp_path / "texts.csv"
    path.write_text("the old one")
    monkeypatch.setattr(submission, "read_back", lambda path: change(read_back(path)))
    frame = pd.DataFrame([["a", "x"], ["b", "y"]], columns=["id", "text"])
    with pytest.raises(SubmissionError, match=r"the text of '[bc]' cannot be kept.*1 such rows"):
        write_texts(frame, path)
    assert path.read_text() == "the old one"
    assert [p.name for p in tmp_path.iterdir()] == ["texts.csv"]
