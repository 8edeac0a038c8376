"""Changes are made where they belong, and go to JSON and back."""

from __future__ import annotations

from kernel_lib.text.corrections import Change, apply_changes, changes_from_json, changes_to_json


def test_changes_are_made_in_place() -> None:
    text = "我再\r\n\x00𠮷家"
    made = [Change(1, "再", "在", 0.9), Change(5, "𠮷", "吉", 0.5)]
    assert apply_changes(text, made) == "我在\r\n\x00吉家"
    assert apply_changes(text, reversed(made)) == apply_changes(text, iter(made))
    assert apply_changes(text, []) == text and apply_changes("", []) == ""


def test_changes_go_to_json_and_back() -> None:
    made = [Change(0, '"', "“", 1.0), Change(7, "\u2028", "的", 0.12345), Change(9, "\n", "地", 0)]
    written = changes_to_json(made)
    assert "\n" not in written and "的" in written
    assert changes_from_json(written) == [
        Change(0, '"', "“", 1.0),
        Change(7, "\u2028", "的", 0.1235),
        Change(9, "\n", "地", 0),
    ]
    assert changes_from_json(changes_to_json([])) == []
