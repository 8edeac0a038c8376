"""The list of texts that notebooks show: which ones, and nothing that a text can do to a page."""

from __future__ import annotations

import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.results.html import STYLE, Shown, choose, listing, visible

EVIL = "<script>alert('x')</script>&amp;"


def test_a_list_has_lines_ids_and_texts() -> None:
    rows = [Shown("a", "home", "<b>x</b>", "x", 'class="csc"'), Shown("b\n", "", "y", "y")]
    view = listing(["two texts", EVIL], rows, ".csc {}")
    assert str(view).splitlines() == ["two texts", EVIL, "a  x", r"b\n  y"]
    assert '<td>a<br><span>home</span></td><td class="csc"><b>x</b></td>' in view.page
    assert r"<tr><td>b\n</td><td>y</td></tr>" in view.page
    assert "two texts<br>&lt;script&gt;" in view.page and "<script" not in view.page
    assert view._repr_html_() == f"<style>{STYLE}.csc {{}}</style>\n{view.page}"


def test_ids_and_domains_are_escaped_and_made_visible() -> None:
    page = listing([], [Shown(EVIL + "\0", EVIL + "\u202e", "", "")], "").page
    assert "<script" not in page and not set("\0\u202e") & set(page)
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;amp;") == 2


def test_which_are_chosen() -> None:
    rows = list(range(100))
    assert choose(rows, 3, None) == [0, 1, 2]
    assert choose(rows, 3, 1) == choose(rows, 3, 1) != choose(rows, 3, 2)
    assert (
        list(choose(rows, 50, 1)) == sorted(set(choose(rows, 50, 1))) and choose(rows, 0, 1) == []
    )
    assert choose(rows, 100, 1) == choose(rows, 500, None) == rows
    with pytest.raises(SettingsError, match="count=-1 must be at least 0"):
        choose(rows, -1, None)


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible(" ") == visible("\u3000") == "␣"
    assert visible("a b\t\u200b\ud800") == r"a b\t\u200b\ud800"
