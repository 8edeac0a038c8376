"""Spans of characters become tags of words, in the texts of the folder beside the table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.annotations import read_annotations, read_plain_texts

HEADER = "id,discourse_start,discourse_end,discourse_type"
TEXT = "Phones help.\n\n They  are\tgood because I say so."
#       0      7      15    21  25   30      38 40  44


@pytest.fixture
def make(tmp_path: Path):
    """Writes a table of spans and its texts; returns the table's path."""

    def write(*rows: str, header: str = HEADER, **texts: str) -> Path:
        (tmp_path / "train").mkdir(exist_ok=True)
        for name, text in (texts or {"a": TEXT}).items():
            (tmp_path / "train" / f"{name}.txt").write_bytes(text.encode())
        path = tmp_path / "train.csv"
        path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
        return path

    return write


def tags(path: Path) -> dict[str, str]:
    return {one.id: " ".join(one.tags or []) for one in read_annotations(path)}


def test_words_of_which_a_span_holds_a_character_are_its_words(make) -> None:
    path = make("a,0,12,Lead", "a,15.0,29.0,Claim", "a,30,47,Why")
    (one,) = read_annotations(path)
    assert one.tokens == TEXT.split() and one.others == {"text": TEXT}
    assert " ".join(one.tags) == "B-Lead I-Lead B-Claim I-Claim I-Claim B-Why I-Why I-Why I-Why"
    assert (one.place, one.id) == ("train/a.txt", "a")


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [(0, 1, [0]), (5, 8, [0, 1]), (6, 7, None), (12, 16, [2]), (11, 12, [1]), (30, 31, [5])],
)
def test_a_span_holds_a_word_as_soon_as_one_character_of_it(make, start, end, words) -> None:
    path = make(f"a,{start},{end},X")
    if words is None:
        with pytest.raises(DataError, match=rf"data row 1 \(a: 'X', {start} to {end}\)"):
            read_annotations(path)
        return
    found = [place for place, tag in enumerate(tags(path)["a"].split()) if tag != "O"]
    assert found == words


def test_the_tables_word_numbers_count_where_it_has_them(make) -> None:
    path = make("a,0,1,X,3 4", "a,0,1,Y,", header=HEADER + ",predictionstring")
    assert tags(path)["a"] == "B-Y O O B-X I-X O O O O"


def test_a_text_without_spans_has_only_o_and_line_ends_are_one_character(make) -> None:
    path = make("b,4,5,X", a="no spans here", b="a\r\nb c")
    assert tags(path) == {"a": "O O O", "b": "O O B-X"}


def test_words_of_two_spans_go_to_the_first_with_a_warning(make) -> None:
    path = make("a,7,29,Y", "a,0,12,X", "a,16,20,Z", b="one", a=TEXT)
    with pytest.warns(UserWarning, match="share words in 1 texts: a"):
        assert tags(path)["a"] == "B-X I-X B-Y I-Y I-Y O O O O"


def test_of_two_spans_that_begin_together_the_longer_has_the_words(make) -> None:
    with pytest.warns(UserWarning, match="share words in 1 texts: a"):
        assert tags(make("a,0,6,Y", "a,0,12,X"))["a"] == "B-X I-X O O O O O O O"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("a,100,120,X,", "'X', 100 to 120"),
        ("a,9,3,X,", "'X', 9 to 3"),
        ("a,x,3,X,", "'X', x to 3"),
        ("a,0,3,,", "'', 0 to 3"),
        ("a,0,3,X,8 9", "'X', 8 9"),
        ("a,0,3,X,1 3", "'X', 1 3"),
        ("a,0,3,X,-1 0", "'X', -1 0"),
    ],
)
def test_spans_that_fit_nowhere_are_named(make, row: str, what: str) -> None:
    path = make("a,0,3,X,", row, header=HEADER + ",predictionstring")
    with pytest.raises(DataError, match=rf"data row 2 \(a: {what}\)"):
        read_annotations(path)


def test_missing_texts_are_named(make, tmp_path) -> None:
    with pytest.raises(DataError, match=r"has no text of b, which train\.csv names"):
        read_annotations(make("b,0,3,X"))
    path = make("a,0,3,X").rename(tmp_path / "other.csv")
    with pytest.raises(DataError, match=r"texts are missing.*into .*other"):
        read_annotations(path)


def test_a_folder_of_texts(make, tmp_path) -> None:
    make("a,0,3,X", b="x y", a="", c="\ufeffé\u200b z")
    found = read_plain_texts(tmp_path / "train")
    assert [(one.id, one.tokens, one.tags) for one in found] == [
        ("a", [], None),
        ("b", ["x", "y"], None),
        ("c", ["é\u200b", "z"], None),
    ]
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no \.txt files"):
        read_plain_texts(tmp_path / "none")
    (tmp_path / "train/d.txt").write_bytes("é".encode("cp1252"))
    with pytest.raises(DataError, match=r"d\.txt is not UTF-8"):
        read_plain_texts(tmp_path / "train")


def test_tables_of_pandas_are_read(make, tmp_path) -> None:
    path = make("a,0,3,X")
    frame = pd.DataFrame(
        {
            "id": ["a"],
            "discourse_start": [0.0],
            "discourse_end": [12.0],
            "discourse_type": ["Lead"],
            "predictionstring": ["0 1"],
        }
    )
    frame.to_csv(path, index=False)
    assert tags(path)["a"].startswith("B-Lead I-Lead O")
