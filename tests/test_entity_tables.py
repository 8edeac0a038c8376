"""Scores by domain, and the errors by kind with the most frequent ones."""

from __future__ import annotations

import pytest

from kernel_lib.errors import DataError
from kernel_lib.metrics.entities import entity_scores
from kernel_lib.results.entity_tables import domain_table, error_table
from tests.tagged import SENTENCES, tagged_frame


def test_domains_and_all() -> None:
    table = domain_table(tagged_frame())
    assert table.index.tolist() == ["news", "notes", "zh", "all"]
    assert table.loc["notes"].tolist() == [2, 10, 2, 1, 1, 1.0, 0.5, 2 / 3, 0.5]
    assert table.loc["news", ["texts", "gold", "predicted", "correct", "F1"]].tolist() == [
        4,
        5,
        5,
        0,
        0,
    ]
    assert table.loc["zh", ["P", "R", "F1", "macro F1"]].tolist() == [1, 1, 1, 1]
    frame = tagged_frame()
    strict = entity_scores(frame["tags"].tolist(), frame["predicted"].tolist()).strict
    whole = table.loc["all"]
    assert (whole["F1"], whole["macro F1"]) == (strict.micro.f1, strict.macro_f1)
    assert whole[["gold", "predicted", "correct"]].tolist() == [9, 8, 3]


def test_without_domains_there_is_one_row_and_without_texts_none() -> None:
    assert domain_table(tagged_frame(without=("domain",))).index.tolist() == ["all"]
    assert domain_table(tagged_frame([])).empty
    with pytest.raises(DataError, match="no column 'tags'"):
        domain_table(tagged_frame(without=("tags",)))


def test_errors_by_kind_with_examples() -> None:
    frame = tagged_frame([*SENTENCES, *SENTENCES[1:4], SENTENCES[1]])
    table = error_table(frame, count=2)
    assert table["errors"].to_dict() == {
        "missed": 4,
        "spurious": 2,
        "boundary": 3,
        "type": 2,
        "boundary and type": 1,
    }
    assert table["examples"].tolist() == [
        ["“Norbury” (LOC) 3 ×", "“New Harbor” (LOC) 1 ×"],
        ["“Rain” (LOC) 2 ×"],
        [
            "“Monday Club” → “the Monday Club” (ORG) 2 ×",
            "“Port Ellis New Harbor” → “Port Ellis” (LOC) 1 ×",
        ],
        ["“Ashford Bank” (LOC → ORG) 2 ×"],
        ["“Ellis today” → “Port Ellis” (ORG → LOC) 1 ×"],
    ]
    assert [len(examples) for examples in error_table(frame, count=1)["examples"]] == [1] * 5
    assert error_table(tagged_frame([]))["errors"].tolist() == [0] * 5
