"""The entities a notebook shows: which texts, in which order, safe in a page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.results.entity_view import show_entities
from kernel_lib.results.html import Html
from tests.tagged import EVIL, SENTENCES, tagged_frame


def shown(view: Html) -> list[str]:
    return re.findall(r"<tr><td>(t\d+)", view.page)


@pytest.mark.parametrize(
    ("only", "ids", "words"),
    [
        ("all", [f"t{number}" for number in range(7)], "texts"),
        ("wrong", ["t1", "t2", "t3", "t4", "t5"], "texts with errors"),
        ("missed", ["t1", "t5"], "texts with missed entities"),
        ("spurious", ["t2"], "texts with spurious entities"),
        ("boundary", ["t2", "t4", "t5"], "texts with wrong boundaries"),
        ("type", ["t3", "t4"], "texts with wrong types"),
    ],
)
def test_which_texts_are_shown(only: Any, ids: list[str], words: str) -> None:
    view = show_entities(tagged_frame(), only=only)
    assert shown(view) == ids
    assert [line.split()[0] for line in str(view).splitlines()[3:]] == ids
    assert f"{len(ids)} of {len(ids)} {words}, 7 texts in all" in view.page


def test_the_worked_example() -> None:
    lines = str(show_entities(tagged_frame())).splitlines()
    assert lines[1:5] == [
        "✓ right 3 · ○ missed 2 · ▲ spurious 1 · ↔ boundary 2 · ✗ type 1 · ✗↔ boundary and type 1",
        "box: predicted; underline: gold",
        "t0  It rained all day .",
        "t1  [Anna Weber|PER ✓] left [Norbury|○ missed LOC] .",
    ]


def test_a_notebook_shows_html_and_a_terminal_text() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    view = show_entities(tagged_frame())
    data, _ = formatters.DisplayFormatter().format(view)
    assert set(data) == {"text/plain", "text/html"} and data["text/plain"] == str(view)
    assert data["text/html"].startswith("<style>") and view.page in data["text/html"]
    assert not re.search(r"<script|https?:|url\(|@import|\son\w+=", data["text/html"])
    assert '<td class="ner" lang="zh">' in view.page and view.page.count('<td class="ner">') == 6


def test_count_takes_the_first_and_a_seed_draws() -> None:
    frame = tagged_frame(SENTENCES * 20)
    assert shown(show_entities(frame, count=3, only="wrong")) == ["t1", "t2", "t3"]
    drawn = show_entities(frame, count=3, only="wrong", seed=1)
    assert drawn == show_entities(frame, count=3, only="wrong", seed=1)
    assert shown(drawn) != shown(show_entities(frame, count=3, only="wrong", seed=2))
    assert "3 of 100 texts with errors, 140 texts in all" in drawn.page


def test_a_type_has_one_colour_whatever_is_shown() -> None:
    label = '<b class="ner-2">PER ✓</b>'
    assert show_entities(tagged_frame()).page.count(label) == 2
    first = show_entities(tagged_frame(), only="missed", count=1)
    assert shown(first) == ["t1"] and label in first.page


def test_a_long_text_is_about_the_errors_asked_for() -> None:
    words = [f"w{number}" for number in range(1000)]
    gold = (("A", 100, 101), ("A", 300, 301), ("B", 700, 701))
    frame = tagged_frame([(words, gold, (("A", 100, 101), ("B", 300, 301)), "")])
    seen = {only: set(str(show_entities(frame, only=only)).split()) for only in ("wrong", "type")}
    assert {"[w300|B", "[w700|○"} < seen["wrong"] and "w95" not in seen["wrong"]
    assert "[w300|B" in seen["type"] and "[w700|○" not in seen["type"]
    assert "[w100|A" in str(show_entities(frame)).split()


def test_texts_ids_and_domains_are_escaped() -> None:
    frame = tagged_frame([([EVIL, "\0"], ((EVIL, 0, 1),), ((EVIL, 0, 2),), EVIL)], id=[EVIL])
    page = show_entities(frame)._repr_html_()
    assert "<script" not in page and "\0" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;amp;") >= 4


def test_without_tags_nothing_is_judged() -> None:
    view = show_entities(tagged_frame(without=("tags", "domain")))
    assert len(shown(view)) == 7 and not set("✓✗▲○↔") & set(view.page)
    assert "underline" not in view.page
    with pytest.raises(DataError, match="no column 'tags'"):
        show_entities(tagged_frame(without=("tags",)), only="wrong")


def test_an_empty_frame_shows_that_it_is() -> None:
    assert str(show_entities(tagged_frame([]))) == "0 of 0 texts, 0 texts in all"


def test_bad_input_is_named() -> None:
    with pytest.raises(SettingsError, match="only='good' is not known: it can be all, wrong"):
        show_entities(tagged_frame(), only="good")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="count=-1"):
        show_entities(tagged_frame(), count=-1)
    with pytest.raises(DataError, match="are text"):
        show_entities(tagged_frame(tokens="[]"))
