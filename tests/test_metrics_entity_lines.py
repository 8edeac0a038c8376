"""What a person reads: every definition named, every figure in its column."""

from __future__ import annotations

from kernel_lib.metrics.entities import entity_scores
from kernel_lib.metrics.entity_errors import type_confusion
from kernel_lib.metrics.entity_lines import format_confusion, format_lines
from kernel_lib.metrics.tags import Span
from tests.test_metrics_entity_definitions import CASES, score


def test_the_table_of_the_eight_cases() -> None:
    lines = format_lines(score(CASES)).splitlines()
    assert lines[0].split() == ["Strict", "P", "R", "F1", "correct", "predicted", "gold"]
    rows = {line.rsplit(maxsplit=6)[0].strip(): line.rsplit(maxsplit=6)[1:] for line in lines[1:]}
    assert rows["LOCATION"] == ["0.2000", "0.2000", "0.2000", "1", "5", "5"]
    assert rows["TIME"] == ["1.0000", "1.0000", "1.0000", "1", "1", "1"]
    assert rows["partial: boundaries, an overlap half"][-3:] == ["7.5", "13", "11"]
    micro = [line for line in lines if line.startswith("  micro")]
    macro = [line for line in lines if line.startswith("  macro")]
    assert [line.split()[5] for line in micro] == ["0.2105", "0.4167", "0.4706"]
    assert [line.split()[6] for line in macro] == ["0.3000", "0.5000", "0.4000"]
    assert lines[-1] == "Tags that cannot stand in BIO: 3 predicted, 2 gold."
    assert {len(line) for line in [*lines[1:5], *micro]} == {len(lines[0])}


def test_without_texts_the_course_is_left_out() -> None:
    found = entity_scores([["B-P", "O"]], [["B-P", "B-P"]])
    text = format_lines(found)
    assert "reference log" not in text
    assert "1 sentences; 1 of 2 tags are right (0.5000)." in text


def test_the_confusion_names_rows_and_columns() -> None:
    gold = [[Span("PER", 0, 2), Span("LOC", 3, 4)], [Span("PER", 5, 6)]]
    predicted = [[Span("PER", 0, 1), Span("PER", 3, 4)], [Span("LOC", 7, 8)]]
    lines = format_confusion(type_confusion(gold, predicted)).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["gold", "\\", "predicted", "LOC", "PER", "(missed)", "boundary"],
        ["LOC", "0", "1", "0", "0"],
        ["PER", "0", "1", "1", "1"],
        ["(spurious)", "1", "0"],
    ]
