"""One corrected text: marks, excerpts, and nothing that a text can do to a page."""

from __future__ import annotations

import html
import re

import pytest

from kernel_lib.results.html import visible
from kernel_lib.results.spelling_diff import (
    CONTEXT,
    MARKS,
    MISSED,
    OVER,
    RIGHT,
    SIGNS,
    STYLE,
    UNKNOWN,
    WHOLE,
    WRONG,
    Mark,
    diff_html,
    diff_text,
    excerpts,
    marks_of,
)
from kernel_lib.text.corrections import Change

HOSTILE = "<script>alert('x')</script>&amp;\"\x00\x1b\x7f\x85\r\n\u202e\u200d\u2028\ud800\U000e0001"


def words_of(page: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize(
    ("wrong", "right", "target", "kind"),
    [
        ("管", "馆", "馆", RIGHT),
        ("糠", "慷", "康", WRONG),
        ("很", "狠", "很", OVER),
        ("克", "克", "课", MISSED),
        ("克", "课", None, UNKNOWN),
    ],
)
def test_the_truth_judges_a_mark(wrong: str, right: str, target: str | None, kind: str) -> None:
    (mark,) = marks_of(f"上{wrong}", f"上{right}", None if target is None else f"上{target}")
    assert (mark.position, mark.kind) == (1, kind)
    assert SIGNS[kind] in diff_html(f"上{wrong}", [mark])


def test_signs_differ_and_do_not_rest_on_colour() -> None:
    assert len(set(SIGNS.values())) == len(SIGNS)
    page = diff_html("请把门观上克", marks_of("请把门观上克", "请把们关上克", "请把门关上课"))
    assert "<del>门</del><ins>们</ins><b>▲</b>" in page
    assert "<del>观</del><ins>关</ins><b>✓</b>" in page
    assert "<u>克</u><b>○ 课</b>" in page
    assert "line-through" in STYLE and "underline" in STYLE


def test_a_wrong_character_is_followed_by_the_right_one() -> None:
    changes = [Change(1, "糠", "慷", 0.61)]
    marks = marks_of("健糠。", "健慷。", "健康。", changes)
    assert diff_text("健糠。", marks) == "健[糠→慷 0.61 ✗ 康]。"
    page = diff_html("健糠。", marks)
    assert "<small>0.61</small><b>✗ 康</b>" in page
    assert 'title="position 1: 糠 → 慷; probability 0.6100; wrong character, should be 康"' in page


def test_without_target_or_probability_neither_is_claimed() -> None:
    marks = marks_of("健糠。", "健慷。")
    assert diff_text("健糠。", marks) == "健[糠→慷]。"
    assert "small" not in diff_html("健糠。", marks)
    assert "✗" not in diff_html("健糠。", marks)
    assert marks[0].words == "position 1: 糠 → 慷"


def test_unchanged_texts_have_no_marks() -> None:
    assert marks_of("好", "好", "好") == marks_of("好", "好") == marks_of("", "", "") == []
    assert diff_html("", []) == diff_text("", []) == ""


def test_hostile_text_neither_runs_nor_hides() -> None:
    page = diff_html(HOSTILE, [])
    assert set(re.findall(r"<(/?\w+)", page)) == {"i", "/i"}
    assert "&lt;script&gt;" in page and "&amp;amp;" in page and "&quot;" in page
    seen = words_of(page)
    assert seen == diff_text(HOSTILE, [])
    assert seen.endswith("\\x00\\x1b\\x7f\\x85\\r\\n\\u202e\\u200d\\u2028\\ud800\\U000e0001")
    page.encode("utf-8")  # a half surrogate would not go


def test_hostile_characters_are_escaped_in_marks_and_tooltips() -> None:
    source, corrected, target = '<"&\u202e\ud800', "\"<'\n>", "&'<\x00\""
    page = diff_html(source, marks_of(source, corrected, target))
    assert set(re.findall(r"<(/?\w+)", page)) == {
        f"{end}{tag}" for tag in ("span", "del", "ins", "b") for end in ("", "/")
    }
    assert len(re.findall(r'<span title="[^"<>]*">', page)) == 5
    assert "\u202e" not in page and "\n" not in page and "\x00" not in page
    page.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (" ", "␣"),
        ("\u3000", "␣"),
        ("\xa0", "␣"),
        ("\n", "\\n"),
        ("a b", "a b"),
        ("😀", "😀"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, seen: str) -> None:
    assert visible(text) == seen


def test_short_texts_are_shown_whole_and_long_ones_about_the_changes() -> None:
    assert excerpts(WHOLE, [3]) == [(0, WHOLE)]
    assert excerpts(1000, [500]) == [(500 - CONTEXT, 501 + CONTEXT)]
    assert excerpts(1000, [2, 999]) == [(0, 3 + CONTEXT), (999 - CONTEXT, 1000)]
    near = [500, 500 + 2 * CONTEXT]
    assert excerpts(1000, near) == [(500 - CONTEXT, 501 + 3 * CONTEXT)]
    assert excerpts(1000, []) == [(0, CONTEXT + 1)]


def test_a_long_text_shows_its_changes_with_marks_where_it_was_cut() -> None:
    source = "很" * 5000 + "管" + "很" * 4998 + "观"
    corrected = source.replace("管", "馆").replace("观", "关")
    marks = marks_of(source, corrected)
    shown = "很" * CONTEXT
    assert diff_text(source, marks) == f"…{shown}[管→馆]{shown}…{shown}[观→关]"
    assert words_of(diff_html(source, marks)) == f"…{shown}管馆{shown}…{shown}观关"
    assert diff_text(source, []) == "很" * (CONTEXT + 1) + "…"


def test_a_text_with_everything_changed_stays_readable() -> None:
    source, corrected = "很" * 10_000, "狠" * 10_000
    marks = marks_of(source, corrected)
    page = diff_html(source, marks)
    assert page.count("<del>") == MARKS
    assert page.endswith("(and 9,960 more)")
    assert len(page) < 10_000


@pytest.mark.parametrize("length", [6, 121, 300])
def test_every_character_of_an_excerpt_is_shown_once_and_in_order(length: int) -> None:
    source = "".join(chr(0x4E00 + at) for at in range(length))
    positions = [0, 1, 4, length - 1]
    page = diff_html(source, [Mark(at, source[at], "a") for at in positions])
    seen = words_of(re.sub(r"<ins>.*?</ins>", "", page)).replace("…", "")
    assert seen == "".join(source[start:end] for start, end in excerpts(length, positions))
