"""One text with its entities: labels, boxes and underlines, and nothing it can do to a page."""

from __future__ import annotations

import html
import re

import pytest

from kernel_lib.metrics.tags import Span
from kernel_lib.results.entity_marks import (
    HUES,
    QUOTED,
    STYLE,
    hues_of,
    surface,
    text_html,
    text_plain,
)
from kernel_lib.results.entity_rows import ERRORS, Row, judge, tagged_rows
from tests.tagged import EVIL, tagged_frame

HUE = {"LOC": 0, "ORG": 1, "PER": 2}
HOSTILE = [EVIL, "\x00\x1b\x7f\x85\r\n", "\u202e\u200d\u2028", "\ud800\U000e0001", '" onload="x']


def row(number: int) -> Row:
    return list(tagged_rows(tagged_frame(), judged=True))[number]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "It rained all day ."),
        (1, "[Anna Weber|PER ✓] left [Norbury|○ missed LOC] ."),
        (
            2,
            "[Rain|LOC ▲ spurious] fell on "
            "[the Monday Club|ORG “Monday Club” ↔ boundary, gold “the Monday Club”]",
        ),
        (3, "[Ashford Bank|LOC ✗ type, gold ORG] opened"),
        (4, "in [Port Ellis today|ORG “Ellis today” ✗↔ type and boundary, gold LOC “Port Ellis”]"),
        (5, "[Port Ellis New Harbor|LOC ↔ boundary, gold “Port Ellis”; ○ missed LOC “New Harbor”]"),
        (6, "[王小明|PER ✓]在[北京|LOC ✓]"),
    ],
)
def test_every_kind_has_its_sign_and_words(number: int, text: str) -> None:
    assert text_plain(row(number), ERRORS) == text


def test_boxes_are_predicted_and_underlines_gold() -> None:
    page = text_html(row(2), ERRORS, HUE)
    assert (
        '<span><mark class="ner-0">Rain</mark><b class="ner-0 ner-error">LOC ▲ spurious</b></span>'
        in page
    )
    assert (
        '<span><u class="ner-1">the </u><mark class="ner-1"><u class="ner-1">Monday Club</u></mark>'
        '<b class="ner-1 ner-error">ORG “Monday Club” ↔ boundary, gold “the Monday Club”</b></span>'
    ) in page
    right = text_html(row(6), ERRORS, HUE)
    assert right.startswith(
        '<span><mark class="ner-2"><u class="ner-2">王小明</u></mark>'
        '<b class="ner-2">PER ✓</b></span>在'
    )
    missed = text_html(row(1), ERRORS, HUE)
    assert '<u class="ner-0">Norbury</u><b class="ner-0 ner-error">○ missed LOC</b>' in missed
    other = (
        '<mark class="ner-0"><u class="ner-1">Ashford Bank</u></mark><b class="ner-0 ner-error">'
    )
    assert other in text_html(row(3), ERRORS, HUE)


def test_without_gold_there_are_boxes_and_types_only() -> None:
    frame = tagged_frame(without=("tags",))
    for each in tagged_rows(frame, judged=False):
        page = text_html(each, ERRORS, HUE)
        assert "<u" not in page and "ner-error" not in page
        assert not set("✓✗▲○↔") & set(page + text_plain(each, ERRORS))


def test_no_character_of_a_text_reaches_the_page_unescaped() -> None:
    name = EVIL + "\0\u202e"
    spans = [Span(name, at, at + 1) for at in range(len(HOSTILE))]
    for gold, predicted in ((spans, []), ([], spans), (None, spans), (spans, spans)):
        hostile = Row("r", "", HOSTILE, gold, predicted, judge(gold, predicted))
        page = text_html(hostile, ERRORS, {name: 0})
        page.encode("utf-8")
        assert set(re.findall(r"<(\w+)", page)) <= {"span", "mark", "u", "b", "i"}
        assert not re.findall(r"<[^>]*\son", page)
        assert not [c for c in page + text_plain(hostile, ERRORS) if not c.isprintable()]
        assert EVIL in html.unescape(re.sub(r"<[^>]*>", "", page))


def test_long_entities_are_quoted_in_short() -> None:
    words = [f"word{number}" for number in range(50)]
    long = Row("r", "", words, None, [], [])
    quoted = surface(long, Span("A", 0, 50))
    assert (
        len(quoted) == QUOTED and quoted.startswith("word0 word1 ") and quoted.endswith(" word49")
    )
    assert surface(long, Span("A", 1, 3)) == "word1 word2"


def test_colours_repeat_when_they_are_used_up_and_stand_on_any_page() -> None:
    hues = hues_of(f"T{number:02}" for number in range(20))
    assert hues["T00"] == hues["T08"] == 0 and set(hues.values()) == set(range(len(HUES)))
    assert all(f".ner-{number} {{ --hue" in STYLE for number in range(len(HUES)))
    rules = re.findall(r"\{([^{}]*)\}", STYLE)
    coloured = [rule for rule in rules if re.search(r"(?<!-)\bcolor: (?!inherit)", rule)]
    assert len(coloured) == 1 and "background: " in coloured[0]
