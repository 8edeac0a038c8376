"""Files in columns: what separates sentences, what is a comment, and lines that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.conll import read_conll
from kernel_lib.text.documents import Document

PATH = Path("train.conll")


def read(text: str) -> list[tuple[list[str], list[str] | None]]:
    return [(one.tokens, one.tags) for one in read_conll(PATH, text)]


TWO = [(["Anna", "lives"], ["B-PERSON", "O"]), (["Yes"], ["O"])]


@pytest.mark.parametrize("gap", ["", "\t", "  ", " \t ", "\n\n\t\n", "-DOCSTART- -X- O O"])
@pytest.mark.parametrize("blank", ["\t", " ", "   "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_nothing_or_blanks_or_a_lone_tab_end_a_sentence(gap, blank, end) -> None:
    text = f"Anna{blank}B-PERSON\nlives{blank}O\n{gap}\nYes{blank}O".replace("\n", end)
    assert read(text) == TWO
    assert read(end + text + end + end) == TWO


def test_first_and_last_of_many_columns_and_the_number_as_id() -> None:
    text = "-DOCSTART- -X- -X- O\n\nEU NNP B-NP I-ORG\nrejects VBZ B-VP O\n\nYes UH B-INTJ O\n"
    assert read_conll(PATH, text) == [
        Document("line 3", "1", ["EU", "rejects"], ["I-ORG", "O"]),
        Document("line 6", "2", ["Yes"], ["O"]),
    ]


def test_one_column_has_no_tags() -> None:
    assert read("Anna\nlives\n\n#yes\n") == [(["Anna", "lives"], None), (["#yes"], None)]


@pytest.mark.parametrize("word", ["\u200b", "\u3000", "\xa0", " ", "\ufeff", "\u2028", '"', "#"])
def test_words_of_blanks_and_signs_stay(word: str) -> None:
    assert read(f"a\tO\n{word}\tO\nb\tB-X\n") == [(["a", word, "b"], ["O", "O", "B-X"])]


def test_comments_are_left_out_and_hash_words_are_not() -> None:
    text = "# id 7 domain=en\nAnna _ _ B-PER\n# _ _ O\n#tag _ _ O\n\n# text = Yes\nYes _ _ O\n"
    assert read(text) == [(["Anna", "#", "#tag"], ["B-PER", "O", "O"]), (["Yes"], ["O"])]
    assert read("# a comment\n# another\n") == []
    assert read("# text a\n# text b\nYes O\n") == [(["Yes"], ["O"])]
    assert read("# 7\nAnna O\n# O\n") == [(["Anna", "#"], ["O", "O"])]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("b", "1 columns: 'b'"),
        (" O", "1 columns: ' O'"),
        ("#b", "1 columns: '#b'"),
        ("New York B-LOC", "3 columns: 'New York B-LOC'"),
    ],
)
def test_a_word_without_tag_and_a_tag_without_word_are_named(line: str, what: str) -> None:
    with pytest.raises(DataError, match=rf"train\.conll: most lines have 2.*line 4 \({what}\)"):
        read(f"a O\n\nc O\n{line}\nd O\n")


@pytest.mark.parametrize("line", ["\tO", "b\t", "b\t "])
def test_an_empty_cell_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"line 2 \(an empty cell"):
        read(f"a\tO\n{line}\nd\tO\n")
