"""A text in pieces: places, excerpts of long texts, words made visible."""

from __future__ import annotations

import pytest

from kernel_lib.metrics.tags import Span
from kernel_lib.results.entity_pieces import (
    CONTEXT,
    LONG_WORD,
    PLACES,
    WHOLE,
    WHOLE_CHARACTERS,
    Place,
    excerpts,
    left_out,
    pieces_of,
    places_of,
    shown_word,
)
from kernel_lib.results.entity_rows import ERRORS, Row, judge


def row_of(
    tokens: list[str], predicted: list[tuple[str, int, int]], gold: list[tuple[str, int, int]]
) -> Row:
    there, named = [Span(*each) for each in gold], [Span(*each) for each in predicted]
    return Row("r", "", tokens, there, named, judge(there, named))


def text_of(row: Row, kinds: tuple[str, ...] = ERRORS) -> str:
    return "".join(piece.text for piece in pieces_of(row, places_of(row.entities), kinds))


def test_entities_that_overlap_are_one_place() -> None:
    row = row_of(list("abcdefgh"), [("A", 0, 4), ("A", 4, 6)], [("A", 0, 2), ("A", 2, 5)])
    places = places_of(row.entities)
    assert [(place.start, place.end, len(place.entities)) for place in places] == [(0, 6, 2)]
    apart = row_of(list("abcd"), [("A", 0, 2), ("A", 2, 4)], [])
    assert [(place.start, place.end) for place in places_of(apart.entities)] == [(0, 2), (2, 4)]


def test_what_is_between_two_words_is_in_what_both_are_in() -> None:
    row = row_of(list("abc"), [("A", 0, 2)], [("A", 1, 3)])
    box, line = row.predicted[0], row.gold[0] if row.gold else None
    pieces = pieces_of(row, places_of(row.entities), ERRORS)
    assert [(p.text, p.place, p.predicted, p.gold) for p in pieces] == [
        ("a", 0, box, None),
        (" ", 0, box, None),
        ("b", 0, box, line),
        (" ", 0, None, line),
        ("c", 0, None, line),
    ]


def test_a_long_text_is_shown_about_what_is_asked_for() -> None:
    words = [f"w{number}" for number in range(1000)]
    row = row_of(words, [("A", 300, 301)], [("A", 300, 301), ("A", 500, 502)])
    wrong, missing = text_of(row), text_of(row, ("type",))
    assert wrong == f" … {' '.join(words[500 - CONTEXT : 502 + CONTEXT])} … "
    assert text_of(row, ("right",)).split()[1:-1] == words[300 - CONTEXT : 301 + CONTEXT]
    assert missing == f"{' '.join(words[: 4 * CONTEXT])} … "


def test_the_middle_of_a_long_entity_is_left_out_but_never_its_ends() -> None:
    words = [f"w{number}" for number in range(300)]
    row = row_of(words, [("A", 50, 250)], [("A", 50, 249)])
    shown = text_of(row).split()
    assert shown.count("…") == 3
    assert {"w50", "w59", "w239", "w249", "w259"} < set(shown) and "w100" not in shown
    inside = [p for p in pieces_of(row, places_of(row.entities), ERRORS) if p.text == " … "]
    assert [piece.place for piece in inside] == [None, 0, None]


def test_an_entity_at_the_edge_of_an_excerpt_has_both_ends() -> None:
    edge, other = (Place(*ends, ()) for ends in ((100, 180), (400, 401)))
    near = Place(
        185, 186, places_of(row_of(["x"] * 200, [("A", 185, 186)], []).entities)[0].entities
    )
    late = Place(190, 260, ())
    parts = excerpts(1000, [edge, near, late, other], [near], 10)
    assert parts == [(100, 101), (175, 196), (259, 260)]


def test_short_texts_are_whole_and_characters_are_less_than_words() -> None:
    for word, most in (("w", WHOLE), ("字", WHOLE_CHARACTERS)):
        assert "…" not in text_of(row_of([word] * most, [("A", 0, 1)], []))
        assert "…" in text_of(row_of([word] * (most + 1), [("A", 0, 1)], []))


def test_a_page_stays_a_page() -> None:
    spans = [("A", at, at + 1) for at in range(0, 20_000, 100)]
    row = row_of(["w"] * 20_000, spans, [])
    assert len(text_of(row)) < 2 * PLACES * 2 * (CONTEXT + 3)
    assert left_out(places_of(row.entities), row, ERRORS) == f" (and {200 - PLACES} more)"
    assert left_out(places_of(row.entities), row, ("missed",)) == ""


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("", "∅"),
        (" ", "␣"),
        ("\n\n", r"\n\n"),
        ("  ", "␣␣"),
        ("Anna\u200b", r"Anna\u200b"),
        ("x" * 500, "x" * LONG_WORD + "…"),
    ],
)
def test_words_are_made_visible(word: str, shown: str) -> None:
    assert shown_word(word) == shown
    row = row_of([word, "b"], [], [])
    assert next(iter(pieces_of(row, [], ERRORS))).quiet is (word.strip() == "")


def test_an_empty_text_has_no_pieces() -> None:
    assert text_of(row_of([], [], [])) == ""
