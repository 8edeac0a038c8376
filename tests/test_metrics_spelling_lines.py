"""The table a person reads: every figure at its place, all columns aligned."""

from __future__ import annotations

import dataclasses

import pytest

from kernel_lib.metrics.spelling import spelling_scores
from kernel_lib.metrics.spelling_definitions import Score
from kernel_lib.metrics.spelling_lines import BLOCKS, format_lines

SOURCES = ["春天到了", "很有趣", "图书管", "健糠", "交我画化"]
TARGETS = ["春天到了", "很有趣", "图书馆", "健康", "教我画画"]
PREDICTIONS = ["春天到了", "狠有趣", "图书馆", "健慷", "教我画化"]
SCORES = spelling_scores(SOURCES, TARGETS, PREDICTIONS)


def test_the_logs_four_lines_come_first_and_the_strict_ones_under_them() -> None:
    lines = format_lines(SCORES).splitlines()
    assert lines[0].split()[-5:] == ["Acc", "P", "R", "F1", "FPR"]
    found = [" ".join(line.split()) for line in lines[1:8]]
    assert found == [
        "Character-level Detect (C-log) 0.8750 0.7500 0.7500 0.7500 0.5000",
        "Character-level Correct (C-log) 0.8125 0.6667 0.5000 0.5714 0.5000",
        "Sentence-level Detect (S-official) 0.6000 0.6667 0.6667 0.6667 0.5000",
        "Sentence-level Correct (S-official) 0.4000 0.5000 0.3333 0.4000 0.5000",
        "Strict, as papers print them",
        "Sentence-level Detect (S-strict) 0.6000 0.5000 0.6667 0.5714 0.5000",
        "Sentence-level Correct (S-strict) 0.4000 0.2500 0.3333 0.2857 0.5000",
    ]


def test_every_definition_has_its_line() -> None:
    shown = [field for _, block in BLOCKS for _, field in block]
    fields = [field.name for field in dataclasses.fields(SCORES)]
    assert sorted(shown) == sorted(f for f in fields if isinstance(getattr(SCORES, f), Score))


def test_columns_are_aligned_also_under_a_dash() -> None:
    lines = format_lines(SCORES).splitlines()
    table = [line for line in lines if line.endswith(" 0.5000")]
    assert len(table) == 14
    assert len({len(line) for line in [lines[0], *table]}) == 1
    assert sum(line.split()[-5] == "-" for line in table) == 3
    assert max(map(len, lines)) <= 100


def test_the_counts_stand_below() -> None:
    *_, counts, rate, particles = format_lines(SCORES).splitlines()
    assert counts == "5 sentences, 3 with errors; 16 characters, 4 wrong."
    assert rate == "FPR: 1 of 2 clean sentences were changed."
    assert particles == "Particles 的, 地, 得: as they are."


@pytest.mark.parametrize(
    ("particles", "words"),
    [("drop_predicted", "taken back"), ("give_gold", "set right before counting")],
)
def test_what_was_done_about_the_particles_is_said(particles, words) -> None:
    scores = spelling_scores(SOURCES, TARGETS, PREDICTIONS, particles=particles)
    assert words in format_lines(scores).splitlines()[-1]


def test_without_a_clean_sentence_no_rate_is_shown() -> None:
    scores = spelling_scores(SOURCES[2:], TARGETS[2:], PREDICTIONS[2:])
    lines = format_lines(scores).splitlines()
    assert lines[1].split()[-1] == "-"
    assert lines[-2] == "FPR: 0 of 0 clean sentences were changed."
