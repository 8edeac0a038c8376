"""What is handed in: tags, spans or words, exactly, whatever ids and words hold."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import SubmissionError
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.entity_output import write_entities
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings
from tests.test_tasks_spelling_output import HOSTILE

LABELS = ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
IDS = ["007", "b", "c"]
TOKENS = [["Anna", "Weber", "in", "Port", "Ellis"], [], ["\n", "Novak", "Norbury"]]
TAGS = [["B-PER", "I-PER", "O", "B-LOC", "I-LOC"], [], ["O", "B-PER", "B-LOC"]]


def write(
    folder: Path,
    form: str = "tags",
    *,
    tags: list[list[str]] = TAGS,
    ids: list[str] = IDS,
    tokens: list[list[str]] = TOKENS,
    sample: tuple[str, list] | None = None,
    labels: list[str] = LABELS,
    **names: Any,
) -> tuple[list[list[str]], list[dict]]:
    """The rows of the submission, and those of ``entities.jsonl``."""
    path = None
    if sample is not None:
        path = folder / "sample_submission.csv"
        path.write_text(sample[0] + "\n" + "".join(f"{row}\n" for row in sample[1]))
    unseen = Unseen(pd.DataFrame({"id": ids, "tokens": tokens}), path)
    shares = []
    for each in tags:
        share = np.full((len(each), len(labels)), 0.05)
        for word, tag in enumerate(each):
            share[word, labels.index(tag)] = 0.5 + word / 10
        shares.append(share)
    inference = EntityInferenceSettings(
        form=form, submission=str(folder / "s.csv"), entities=str(folder / "e.jsonl")
    )
    write_entities(unseen, tags, shares, labels, inference, EntitySettings(**names))
    lines = (folder / "e.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines[-1] == ""
    return read(folder / "s.csv"), [json.loads(line) for line in lines[:-1]]


def read(path: Path) -> list[list[str]]:
    """As a reader with nothing of ours or of pandas in it sees the file."""
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8"), newline="")))


def test_a_row_a_text(tmp_path: Path) -> None:
    rows, _ = write(tmp_path, id_column="nr", tags_column="labels")
    assert rows == [
        ["nr", "labels"],
        ["007", "B-PER I-PER O B-LOC I-LOC"],
        ["b", ""],
        ["c", "O B-PER B-LOC"],
    ]


def test_a_row_a_text_in_the_samples_order_under_its_names(tmp_path: Path) -> None:
    rows, lines = write(tmp_path, sample=("key,answer", ["c,O", "007,O", "b,O"]))
    assert rows[0] == ["key", "answer"] and [row[0] for row in rows[1:]] == ["c", "007", "b"]
    assert rows[1][1] == "O B-PER B-LOC"
    assert [line["id"] for line in lines] == IDS


def test_a_row_an_entity_where_ids_repeat(tmp_path: Path) -> None:
    rows, _ = write(tmp_path, "spans", id_column="nr")
    assert rows == [
        ["nr", "class", "predictionstring"],
        ["007", "PER", "0 1"],
        ["007", "LOC", "3 4"],
        ["c", "PER", "1"],
        ["c", "LOC", "2"],
    ]


def test_a_row_a_word_of_an_entity(tmp_path: Path) -> None:
    rows, _ = write(tmp_path, "words")
    assert rows == [
        ["row_id", "document", "token", "label"],
        ["0", "007", "0", "B-PER"],
        ["1", "007", "1", "I-PER"],
        ["2", "007", "3", "B-LOC"],
        ["3", "007", "4", "I-LOC"],
        ["4", "c", "1", "B-PER"],
        ["5", "c", "2", "B-LOC"],
    ]


def test_the_sample_of_spans_and_words_gives_names_and_order(tmp_path: Path) -> None:
    rows, _ = write(tmp_path, "spans", sample=("predictionstring,id,class", ["1 2,x,Claim"]))
    assert rows[0] == ["predictionstring", "id", "class"] and rows[1] == ["0 1", "007", "PER"]
    rows, _ = write(tmp_path, "spans", sample=("text,kind,words", []))
    assert rows[0] == ["text", "kind", "words"] and rows[1] == ["007", "PER", "0 1"]
    rows, _ = write(tmp_path, "words", sample=("row_id,document,token,label", ["0,7,1,B-X"]))
    assert rows[1] == ["0", "007", "0", "B-PER"] and len(rows) == 7


@pytest.mark.parametrize(
    ("form", "sample", "message"),
    [
        ("tags", ("id,tags", ["007,O", "b,O"]), r"1 not asked for \(c\)"),
        ("tags", ("id,tags", ["007,O", "b,O", "c,O", "d,O"]), r"1 missing \(d\)"),
        ("tags", ("row_id,document,token,label", ["0,7,1,O"]), "a text a row needs two"),
        ("spans", ("id,tags", ["007,O"]), r"has the columns id, tags; this form .* Set form"),
        ("words", ("id,class,predictionstring", ["007,X,1"]), "this form of submission has row_id"),
    ],
)
def test_a_sample_of_something_else_is_refused(tmp_path, form: str, sample, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        write(tmp_path, form, sample=sample)
    assert [path.name for path in tmp_path.iterdir()] == ["sample_submission.csv"]


@pytest.mark.parametrize("form", ["spans", "words"])
def test_no_entity_at_all_is_a_header_alone(tmp_path: Path, form: str) -> None:
    rows, lines = write(tmp_path, form, tags=[["O"] * len(each) for each in TAGS])
    assert len(rows) == 1 and len(rows[0]) > 2
    assert [line["entities"] for line in lines] == [[], [], []]


def test_every_entity_is_told_with_the_mean_probability_of_its_words_tags(tmp_path) -> None:
    _, lines = write(tmp_path)
    assert [line["id"] for line in lines] == IDS
    assert [line["tokens"] for line in lines] == TOKENS
    assert not any("tags" in line for line in lines)  # the entities tell them all
    assert lines[0]["entities"] == [
        {"type": "PER", "start": 0, "end": 2, "words": ["Anna", "Weber"], "probability": 0.55},
        {"type": "LOC", "start": 3, "end": 5, "words": ["Port", "Ellis"], "probability": 0.85},
    ]
    assert lines[1]["entities"] == []
    assert [(e["start"], e["end"], e["probability"]) for e in lines[2]["entities"]] == [
        (1, 2, 0.6),
        (2, 3, 0.7),
    ]


@pytest.mark.parametrize("form", ["tags", "spans", "words"])
def test_hostile_ids_and_words_come_back_exactly(tmp_path: Path, form: str) -> None:
    ids = [f"{n}{text}" for n, text in enumerate(HOSTILE)]
    tokens = [[text, "Anna", text] for text in HOSTILE]
    rows, lines = write(
        tmp_path, form, ids=ids, tokens=tokens, tags=[["B-PER", "O", "B-LOC"]] * len(ids)
    )
    column = {"tags": 0, "spans": 0, "words": 1}[form]
    repeated = 1 if form == "tags" else 2
    assert [row[column] for row in rows[1:]] == [name for name in ids for _ in range(repeated)]
    assert [line["tokens"] for line in lines] == tokens
    assert [line["entities"][1]["words"] for line in lines] == [[text] for text in HOSTILE]


def test_tags_that_hold_blanks_cannot_be_a_row_but_spans_and_words_can(tmp_path: Path) -> None:
    labels = ["O", "B-Concluding Statement", "I-Concluding Statement"]
    made = {"ids": ["a"], "tokens": [["x", "y"]], "labels": labels}
    nothing = [["O", "O"]]  # said before anything is named, with the first guess
    with pytest.raises(SubmissionError, match=r"'B-Concluding Statement' holds a blank.*spans"):
        write(tmp_path, tags=nothing, **made)
    rows, _ = write(tmp_path, "spans", tags=[labels[1:]], **made)
    assert rows[1] == ["a", "Concluding Statement", "0 1"]
    rows, _ = write(tmp_path, "words", tags=[labels[1:]], **made)
    assert rows[2] == ["1", "a", "1", "I-Concluding Statement"]


def test_illegal_tags_are_handed_in_as_they_are_but_are_no_entities(tmp_path: Path) -> None:
    """The decoder ``argmax`` gives them."""
    made = {"ids": ["a"], "tokens": [["x", "y"]], "tags": [["I-PER", "B-LOC"]]}
    rows, lines = write(tmp_path, **made)
    assert rows[1] == ["a", "I-PER B-LOC"]
    assert [entity["type"] for entity in lines[0]["entities"]] == ["LOC"]
    assert lines[0]["tags"] == ["I-PER", "B-LOC"]  # which the entities do not tell
    assert len(write(tmp_path, "words", **made)[0]) == 3
    assert len(write(tmp_path, "spans", **made)[0]) == 2
