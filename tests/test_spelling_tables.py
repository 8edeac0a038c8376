"""The tables by domain and of over-corrections, on the worked example and without one."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.results.spelling_tables import (
    domain_table,
    frequent_over_corrections,
    worst_over_corrections,
)
from kernel_lib.text.corrections import Change
from tests.corrected import SENTENCES, changes_between, corrected_frame


def test_the_worked_example_has_its_figures_and_so_has_each_domain() -> None:
    table = domain_table(corrected_frame())
    assert table.index.tolist() == ["home", "school", "all"]
    assert table.loc["all"].tolist() == pytest.approx(
        [7, 5, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 2 / 7, 0.5, 2]
    )
    assert table["sentences"].tolist() == [4, 3, 7]
    assert table["with errors"].tolist() == [2, 3, 5]
    assert table["over-corrections"].tolist() == [2, 0, 2]
    # Home: 3 changed, one of them located (健糠), none fixed, 1 of 2 clean ones changed.
    assert table.loc["home", "strict detection P"] == pytest.approx(1 / 3)
    assert table.loc["home", "strict correction F1"] == 0
    assert table.loc["home", "false positive rate"] == 0.5
    assert math.isnan(table.loc["school", "false positive rate"])  # no clean sentence there


def test_without_domains_there_is_one_row() -> None:
    for frame in (corrected_frame(without=("domain",)), corrected_frame(domain="")):
        assert domain_table(frame).index.tolist() == ["all"]
    some = domain_table(corrected_frame(domain=["", "", "", "law", "law", "law", "law"]))
    assert some.index.tolist() == ["", "law", "all"]


def test_particles_are_passed_on() -> None:
    frame = corrected_frame([("他跑的快", "他跑得快", "他跑得快", "a"), ("好", "好", "好", "a")])
    assert domain_table(frame).loc["all", "strict correction F1"] == 1
    dropped = domain_table(frame, particles="drop_predicted")
    assert dropped.loc["all", "strict correction F1"] == 0


def test_the_surest_over_corrections_come_first() -> None:
    frame = corrected_frame(
        changes=[
            [Change(3, "很", "狠", 0.5)] if at == 1 else changes_between(row[0], row[2])
            for at, row in enumerate(SENTENCES)
        ]
    )
    table = worst_over_corrections(frame)
    assert table.to_dict("records") == [
        {
            "id": "s5",
            "domain": "home",
            "position": 2,
            "wrong": "门",
            "right": "们",
            "probability": pytest.approx(0.88),
            "context": "请把门观上。",
        },
        {
            "id": "s1",
            "domain": "home",
            "position": 3,
            "wrong": "很",
            "right": "狠",
            "probability": 0.5,
            "context": "这本书很有趣。",
        },
    ]
    assert worst_over_corrections(frame, count=1)["id"].tolist() == ["s5"]


def test_context_is_an_excerpt_and_shows_what_cannot_be_seen() -> None:
    source = "a" * 20 + "\x00很\u202e" + "b" * 20
    frame = corrected_frame([(source, source, source.replace("很", "狠"), "")])
    (context,) = worst_over_corrections(frame)["context"]
    assert context == "…aaaaaaa\\x00很\\u202ebbbbbbb…"


def test_unknown_probabilities_come_last() -> None:
    changes = [changes_between(row[0], row[2]) for row in SENTENCES]
    changes[5] = []
    table = worst_over_corrections(corrected_frame(changes=changes))
    assert table["id"].tolist() == ["s1", "s5"]
    assert table["probability"].isna().tolist() == [False, True]


def test_frequent_pairs_are_counted() -> None:
    rows = [
        ("很很门", "很很门", "狠狠们", ""),
        ("很管", "很馆", "狠馆", ""),
        ("门", "门", "们", ""),
    ]
    table = frequent_over_corrections(corrected_frame(rows))
    assert table.to_dict("list") == {"wrong": ["很", "门"], "right": ["狠", "们"], "times": [3, 2]}
    assert len(frequent_over_corrections(corrected_frame(rows), count=1)) == 1


@pytest.mark.parametrize("table", [domain_table, worst_over_corrections, frequent_over_corrections])
def test_empty_frames_and_missing_targets(table: object) -> None:
    make: object = table
    assert callable(make)
    empty = make(corrected_frame([]))
    assert isinstance(empty, pd.DataFrame) and empty.empty
    assert list(empty.columns) == list(make(corrected_frame()).columns)
    with pytest.raises(DataError, match="no column 'target'"):
        make(corrected_frame(without=("target",)))


def test_no_over_correction_gives_no_row() -> None:
    frame = corrected_frame([row for row in SENTENCES if row[0] == "我去图书管。"])
    assert worst_over_corrections(frame).empty and frequent_over_corrections(frame).empty
