"""What is handed in can be read back exactly, in the sample's order, whatever the texts hold."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.errors import SubmissionError
from kernel_lib.tasks import submission
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.spelling_output import write_corrections
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.text.corrections import Change
from kernel_lib.text.tables import read_cells

HOSTILE = (
    "我再家",
    "",
    " ",
    " a ",
    "\t",
    "\r",
    "a\rb",
    "\n",
    "a\nb\r\nc",
    '"',
    '""',
    'a"b',
    "'",
    ",",
    "，",
    "NA",
    "nan",
    "null",
    "None",
    "1.0",
    "1e5",
    "True",
    "-",
    "=1+1",
    "#",
    "\\",
    "a\\",
    "\u2028",
    "a\u2029",
    "\x85",
    "\x0b\x0c",
    "\x1c\x1e",
    "\ufeff",
    "\ufeffa",
    "\x00",
    "a\x00b",
    "\x1a",
    "\x7f",
    "😀👍🏽",
    "𠮷",
)


def settings_in(folder: Path) -> SpellingInferenceSettings:
    return SpellingInferenceSettings(
        submission=str(folder / "submission.csv"), corrections=str(folder / "corrections.jsonl")
    )


def unseen_of(texts, sample: Path | None = None) -> Unseen:
    frame = pd.DataFrame({"id": [f"{n:03d}" for n in range(len(texts))], "source": list(texts)})
    return Unseen(frame, sample)


def write(folder: Path, unseen: Unseen, changes=None, **names) -> None:
    made = changes or [[] for _ in range(len(unseen.frame))]
    write_corrections(unseen, made, settings_in(folder), SpellingSettings(**names))


def read(path: Path) -> list[list[str]]:
    """As a reader with nothing of ours or of pandas in it sees the file."""
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def test_hostile_texts_come_back_exactly(tmp_path: Path) -> None:
    write(tmp_path, unseen_of(HOSTILE))
    header, *rows = read(tmp_path / "submission.csv")
    assert header == ["id", "target"]
    assert rows == [[f"{n:03d}", text] for n, text in enumerate(HOSTILE)]
    # pandas 2.2 itself cuts a text at a NUL character, and with it whoever reads so.
    found = read_cells(tmp_path / "submission.csv", columns=("id", "target"))
    assert found["target"].tolist() == list(HOSTILE)
    lines = (tmp_path / "corrections.jsonl").read_bytes().decode("utf-8").split("\n")[:-1]
    parsed = [json.loads(line) for line in lines]
    assert [row["source"] for row in parsed] == [row["corrected"] for row in parsed] == [*HOSTILE]


def test_changes_are_made_and_told_with_their_probabilities(tmp_path: Path) -> None:
    unseen = unseen_of(["我再家", "好"])
    change = Change(1, "再", "在", 0.123456)
    write(tmp_path, unseen, [[change], []], id_column="nr", target_column="right")
    assert read(tmp_path / "submission.csv") == [["nr", "right"], ["000", "我在家"], ["001", "好"]]
    first = json.loads((tmp_path / "corrections.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert first == {
        "id": "000",
        "source": "我再家",
        "corrected": "我在家",
        "changes": [{"position": 1, "wrong": "再", "right": "在", "probability": 0.1235}],
    }


def make_sample(folder: Path, ids, columns=("key", "answer")) -> Path:
    path = folder / "sample_submission.csv"
    pd.DataFrame({columns[0]: ids, **dict.fromkeys(columns[1:], "?")}).to_csv(path, index=False)
    return path


def test_the_sample_gives_columns_and_order(tmp_path: Path) -> None:
    sample = make_sample(tmp_path, ["002", "000", "001"])
    write(tmp_path, unseen_of(["a", "b", "c"], sample))
    rows = read(tmp_path / "submission.csv")
    assert rows == [["key", "answer"], ["002", "c"], ["000", "a"], ["001", "b"]]
    lines = (tmp_path / "corrections.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["000", "001", "002"]


@pytest.mark.parametrize(
    ("ids", "columns", "message"),
    [
        (["000", "001"], ("id", "target"), r"0 missing \(\), 1 not asked for \(002\)"),
        (["000", "001", "002", "9"], ("id", "target"), r"1 missing \(9\)"),
        (["000", "001", "002"], ("id", "a", "b"), "the columns id, a, b; a text a row needs two"),
        (["000", "001", "002"], ("id",), "a text a row needs two"),
    ],
)
def test_a_sample_that_asks_for_something_else_is_refused(
    tmp_path: Path, ids, columns, message: str
) -> None:
    sample = make_sample(tmp_path, ids, columns)
    with pytest.raises(SubmissionError, match=message):
        write(tmp_path, unseen_of(["a", "b", "c"], sample))
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize("lost", ["a text", "a row"])
def test_a_file_that_is_read_back_as_another_never_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    (tmp_path / "submission.csv").write_text("what stood there")

    def other(path):
        rows = pd.read_csv(path, dtype=str, keep_default_na=False).to_numpy().tolist()
        return [[row_id, "?"] for row_id, _ in rows] if lost == "a text" else rows[:-1]

    monkeypatch.setattr(submission, "read_back", other)
    with pytest.raises(SubmissionError, match=r"the text of '00\d' cannot be kept in a CSV file"):
        write(tmp_path, unseen_of(["a", "b"]))
    assert [path.name for path in tmp_path.iterdir()] == ["submission.csv"]
    assert (tmp_path / "submission.csv").read_text() == "what stood there"
