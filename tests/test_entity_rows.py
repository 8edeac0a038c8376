"""Rows of tagged texts: paired and judged, and every fault of a frame named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.metrics.tags import Span
from kernel_lib.results.entity_rows import Entity, Row, judge, tagged_rows
from tests.tagged import SENTENCES, tagged_frame


def rows_of(**changes: Any) -> list[Row]:
    return list(tagged_rows(tagged_frame(**changes), judged=False))


def test_every_sentence_is_judged() -> None:
    assert [[entity.kind for entity in row.entities] for row in rows_of()] == [
        [],
        ["right", "missed"],
        ["spurious", "boundary"],
        ["type"],
        ["boundary and type"],
        ["boundary", "missed"],
        ["right", "right"],
    ]
    row = rows_of()[2]
    assert (row.id, row.domain, row.kinds) == ("t2", "news", {"spurious", "boundary"})
    assert row.entities[1] == Entity("boundary", Span("ORG", 3, 6), Span("ORG", 4, 6))
    assert (row.entities[1].start, row.entities[1].end) == (3, 6)


def test_without_tags_nothing_is_judged() -> None:
    assert {
        entity.kind for row in rows_of(without=("tags", "domain")) for entity in row.entities
    } == {"not judged"}
    assert judge(None, [Span("A", 0, 1)]) == [Entity("not judged", None, Span("A", 0, 1))]


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
def test_tags_and_domains_may_be_missing_in_a_row(nothing: object) -> None:
    tags = pd.Series(tagged_frame()["tags"].tolist(), dtype=object)
    tags[1] = nothing
    rows = rows_of(tags=tags, domain=nothing)
    assert rows[1].gold is None and rows[1].kinds == {"not judged"}
    assert rows[2].kinds == {"spurious", "boundary"} and rows[2].domain == ""
    with pytest.raises(DataError, match="'t1' has no tags to be judged by"):
        list(tagged_rows(tagged_frame(tags=tags), judged=True))


@pytest.mark.parametrize(
    ("words", "between"),
    [
        ("我 们 去 1 9 9 8 年", ""),
        ("我 用 i P h o n e 1 5", ""),
        ("我 用 iPhone 的 人", ""),
        ("他 说 : 。", ""),
        ("北京 大学 的 学生", " "),
        ("I saw 中 on a sign", " "),
        ("我 在 New York City", " "),
        ("A B C", " "),
        ("", " "),
    ],
)
def test_chinese_by_character_has_no_blanks(words: str, between: str) -> None:
    assert rows_of(sentences=[(words, (), (), "")])[0].between == between


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (
            {"without": ("tokens", "predicted")},
            "no column 'tokens', 'predicted'; they have id, fold",
        ),
        ({"tokens": "[]"}, "the tokens of row 't0' are text.*read_tagged_oof"),
        ({"predicted": "O O"}, "the predicted of row 't0' are text"),
        ({"tokens": None}, "the tokens of row 't0' are not a list of texts: None"),
        ({"tokens": [[1, 2]] * 7}, r"the tokens of row 't0' are not a list of texts: \[1, 2\]"),
        ({"predicted": [["O"]] * 7}, "row 't0' has 5 tokens and 1 predicted"),
        ({"tags": [["O"] * 6] * 7}, "row 't0' has 5 tokens and 6 tags"),
        (
            {"tags": [["O", "X-PER", "O", "O", "O"]] * 7},
            "row 't0', tags, tag 2: 'X-PER' is no",
        ),
    ],
)
def test_bad_frames_are_named(columns: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        rows_of(**columns)


def test_arrays_and_empty_sentences_will_do() -> None:
    frame = tagged_frame([(np.array(["a", "b"]), (), (("X", 0, 2),), ""), ([], (), (), "")])
    frame["predicted"] = [np.array(each, dtype=object) for each in frame["predicted"]]
    rows = list(tagged_rows(frame, judged=True))
    assert rows[0].kinds == {"spurious"} and rows[1].entities == []
    assert list(tagged_rows(tagged_frame([]), judged=True)) == []
    assert len(SENTENCES) == 7
