"""The corrections a notebook shows: which ones, in which order, safe in a page."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.results.html import Html
from kernel_lib.results.spelling_view import show_corrections
from tests.corrected import SENTENCES, changes_between, corrected_frame

EVIL = "<script>alert('x')</script>&amp;"


def shown(view: Html) -> list[str]:
    return re.findall(r"<tr><td>(s\d+)", view.page)


@pytest.mark.parametrize(
    ("only", "ids"),
    [
        ("changed", ["s1", "s2", "s3", "s4", "s5"]),
        ("wrong", ["s1", "s3", "s4", "s5", "s6"]),
        ("over-corrected", ["s1", "s5"]),
        ("missed", ["s4", "s6"]),
        ("all", [f"s{number}" for number in range(7)]),
    ],
)
def test_which_texts_are_shown(only: str, ids: list[str]) -> None:
    view = show_corrections(corrected_frame(), only=only)  # type: ignore[arg-type]
    assert shown(view) == ids
    assert [line.split()[0] for line in str(view).splitlines()[2:]] == ids
    words = "texts" if only == "all" else f"{only} texts"
    assert f"{len(ids)} of {len(ids)} {words}, 7 texts in all" in view.page


def test_the_worked_example_is_judged_change_by_change() -> None:
    text = str(show_corrections(corrected_frame(), only="all"))
    assert text.splitlines() == [
        "7 of 7 texts, 7 texts in all",
        "✓ right 3 · ✗ wrong character 1 · ▲ over-correction 2 · ○ missed 2",
        "s0  春天到了。",
        "s1  这本书[很→狠 0.87 ▲]有趣。",
        "s2  我去图书[管→馆 0.86 ✓]。",
        "s3  她身体健[糠→慷 0.86 ✗ 康]。",
        "s4  老师[交→教 0.88 ✓]我们画[化 ○ 画]。",
        "s5  请把[门→们 0.88 ▲][观→关 0.87 ✓]上。",
        "s6  他没来上[克 ○ 课]。",
    ]


def test_a_notebook_shows_html_and_a_terminal_text() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    view = show_corrections(corrected_frame(), count=1)
    data, _ = formatters.DisplayFormatter().format(view)
    assert set(data) == {"text/plain", "text/html"}
    assert data["text/plain"] == str(view)
    assert data["text/html"].startswith("<style>") and view.page in data["text/html"]
    assert not re.search(r"<script|https?:|url\(|@import|\son\w+=", data["text/html"])


def test_count_takes_the_first_and_a_seed_draws() -> None:
    frame = corrected_frame(SENTENCES * 20).assign(id=[f"s{number}" for number in range(140)])
    first = show_corrections(frame, count=3)
    assert shown(first) == ["s1", "s2", "s3"]
    assert "3 of 100 changed texts, 140 texts in all" in first.page
    drawn = show_corrections(frame, count=3, seed=1)
    assert drawn == show_corrections(frame, count=3, seed=1)
    assert shown(drawn) != shown(show_corrections(frame, count=3, seed=2)) != shown(first)
    numbers = [int(name[1:]) for name in shown(drawn)]
    assert numbers == sorted(set(numbers)) and len(numbers) == 3
    assert len(shown(show_corrections(frame, count=500, seed=1))) == 100


def test_texts_ids_and_domains_are_escaped() -> None:
    frame = corrected_frame([(EVIL + "管\x00", EVIL + "馆\x00", EVIL + "馆\x00", EVIL)], id=[EVIL])
    page = show_corrections(frame)._repr_html_()
    assert "<script" not in page and "\x00" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;amp;") == 3


def test_a_half_surrogate_can_be_shown() -> None:
    texts = np.array(["a\ud800管"], dtype=object)
    frame = pd.DataFrame({"id": ["x"]}).assign(
        source=pd.Series(texts, dtype=object),
        corrected=pd.Series(np.array(["a\ud800馆"], dtype=object), dtype=object),
        changes=pd.Series([changes_between("a\ud800管", "a\ud800馆")], dtype=object),
    )
    view = show_corrections(frame)
    view._repr_html_().encode("utf-8")
    assert "a\\ud800[管→馆 0.88]" in str(view)


def test_without_targets_nothing_is_judged() -> None:
    view = show_corrections(corrected_frame(without=("target", "domain")))
    assert shown(view) == ["s1", "s2", "s3", "s4", "s5"]
    assert not set("✓✗▲○") & set(view.page)
    with pytest.raises(DataError, match="no column 'target'"):
        show_corrections(corrected_frame(without=("target",)), only="wrong")


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
def test_a_target_that_is_missing_in_a_row_is_not_judged_there(nothing: object) -> None:
    targets = pd.Series([target for _, target, _, _ in SENTENCES], dtype=object)
    targets[1] = nothing
    frame = corrected_frame(target=targets, domain=nothing)
    text = str(show_corrections(frame, only="all"))
    assert "s1  这本书[很→狠 0.87]有趣。" in text and "▲ over-correction 1" in text
    with pytest.raises(DataError, match="'s1' has no target"):
        show_corrections(frame, only="missed")


def test_an_empty_frame_shows_that_it_is() -> None:
    view = show_corrections(corrected_frame([]))
    assert shown(view) == []
    assert str(view) == "0 of 0 changed texts, 0 texts in all"


def test_bad_input_is_named() -> None:
    with pytest.raises(DataError, match="no column 'corrected', 'changes'; they have id, source"):
        show_corrections(corrected_frame(without=("corrected", "changes")))
    with pytest.raises(DataError, match=r"row 's0' differ in length \(5, 5, 6\)"):
        show_corrections(corrected_frame(target=["春天到了。。"] * 7), only="all")
    with pytest.raises(DataError, match=r"row 's0' are text.*changes_from_json"):
        show_corrections(corrected_frame(changes="[]"))
    with pytest.raises(SettingsError, match="only='good' is not known"):
        show_corrections(corrected_frame(), only="good")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="count=-1"):
        show_corrections(corrected_frame(), count=-1)


def test_colours_stand_with_their_background() -> None:
    """A notebook's theme is not known: what has a colour of its own has its background too."""
    style = show_corrections(corrected_frame()).style
    rules = re.findall(r"\{([^{}]*)\}", style)
    coloured = [rule for rule in rules if re.search(r"(?<!-)\bcolor: (?!inherit)", rule)]
    assert len(coloured) == 3
    assert all("background: " in rule for rule in coloured)
