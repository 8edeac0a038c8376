"""Tagged texts as they stand in their file, in BIO, and every fault named with ids and places."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.text.tagged import read_tagged
from tests.conftest import SHARED

NER = SHARED / "data/ner"
NASTY = ["", " ", "\n", "\r\n", "\u200b", "\u2028", "\u3000", "\x00", '"', "[SEP]", "𠀀", "a b"]


@pytest.fixture
def read(tmp_path: Path):
    def read_content(content: str | bytes, suffix: str = ".jsonl", **options) -> pd.DataFrame:
        path = tmp_path / f"train{suffix}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_tagged(path, **{"needs_tags": True, **options})

    return read_content


def line(**values) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def text(name: object = "a", tokens: object = ("Anna",), tags: object = ("B-PER",)) -> str:
    return line(id=name, tokens=tokens, tags=tags)


def table(*rows: list[str], header=("id", "tokens", "tags")) -> str:
    return pd.DataFrame(rows, columns=list(header)).to_csv(index=False)


@pytest.mark.parametrize("escaped", [False, True])
def test_json_keeps_every_word_exactly(read, escaped: bool) -> None:
    rows = [{"id": f"n{i}", "tokens": NASTY[i:], "tags": ["O"] * len(NASTY[i:])} for i in range(13)]
    content = "".join(json.dumps(row, ensure_ascii=escaped) + "\r\n" for row in rows)
    assert read(b"\xef\xbb\xbf" + content.encode()).to_dict("records") == rows
    assert read(json.dumps(rows, indent=1), ".json").to_dict("records") == rows


def test_kaggles_pii_file(read) -> None:
    first = {
        "document": 7,
        "full_text": "Hi Ann\n\nbye",
        "tokens": ["Hi", "Ann", "\n\n", "bye"],
        "trailing_whitespace": [True, False, False, False],
        "labels": ["O", "B-NAME_STUDENT", "O", "O"],
    }
    names = {"id_column": "document", "tags_column": "labels"}
    frame = read(json.dumps([first, {**first, "document": 10}]), ".json", **names)
    assert list(frame) == ["id", "tokens", "tags", "full_text", "trailing_whitespace"]
    assert frame["id"].tolist() == ["7", "10"] and frame["tags"][1] == first["labels"]
    assert frame["tokens"][0][2] == "\n\n"
    assert frame["trailing_whitespace"][0] == [True, False, False, False]
    del first["labels"]
    frame = read(json.dumps([first]), ".json", needs_tags=False, **names)
    assert "tags" not in frame and frame["tokens"][0] == first["tokens"]
    with pytest.raises(DataError, match="has no column 'labels'; it has 'document', 'full_text'"):
        read(json.dumps([first]), ".json", **names)


def test_csv_with_lists_in_json_keeps_every_word(read) -> None:
    content = table(["x", json.dumps(NASTY), json.dumps(["O"] * 12)], ["y", "[]", ""])
    frame = read(content, ".csv")
    assert frame["tokens"].tolist() == [NASTY, []] and frame["tags"].tolist() == [["O"] * 12, []]


def test_csv_with_blanks_between_words(read) -> None:
    content = table(["x", "Anna  lives\n[here]", "B-PER O O"], ["007", "", ""], ["z", "[]", "O"])
    frame = read(content, ".csv")
    assert frame.to_dict("list") == {
        "id": ["x", "007", "z"],
        "tokens": [["Anna", "lives", "[here]"], [], ["[]"]],
        "tags": [["B-PER", "O", "O"], [], ["O"]],
    }


def test_csv_lists_that_are_not_json_are_named_with_the_cure(read) -> None:
    frame = pd.DataFrame({"id": ["a"], "tokens": [["Anna", "b"]], "tags": [["O", "O"]]})
    with pytest.raises(DataError, match=r"data row 1: tokens is \['Anna', 'b'\].*json.dumps"):
        read(frame.to_csv(index=False), ".csv")
    rows = ['["a"]', '["b"]', "c d", "[1]"]
    content = table(*([str(n), cell, '["O"]'] for n, cell in enumerate(rows)))
    with pytest.raises(DataError, match=r"data row 3: tokens is c d.*data row 4: tokens 1 is 1,"):
        read(content, ".csv")


def test_csv_tags_that_are_all_empty_are_none_where_none_are_needed(read) -> None:
    content = table(["x", "Anna lives", ""], ["y", "b", " "])
    assert list(read(content, ".csv", needs_tags=False)) == ["id", "tokens"]
    with pytest.raises(DataError, match=r"x \(data row 1\) has 2 words and 0 tags \(no tag for wo"):
        read(content, ".csv")


@pytest.mark.parametrize("suffix", [".conll", ".txt", ".bio", ".iob"])
def test_columns_with_lone_tabs_between_sentences(read, suffix: str) -> None:
    frame = read("Anna\tB-PER\nlives\tO\n\t\nYes\tO\n", suffix)
    assert frame.to_dict("list") == {
        "id": ["1", "2"],
        "tokens": [["Anna", "lives"], ["Yes"]],
        "tags": [["B-PER", "O"], ["O"]],
    }


def test_columns_without_tags(read) -> None:
    assert list(read("Anna\nlives\n", ".txt", needs_tags=False)) == ["id", "tokens"]
    with pytest.raises(DataError, match=r"has no tags\. To learn"):
        read("Anna\nlives\n", ".txt")


def test_character_spans_and_a_folder_of_texts(read, tmp_path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train/A1.txt").write_text("Phones are good.", encoding="utf-8")
    content = (
        "discourse_id,id,discourse_start,discourse_end,discourse_text,discourse_type\n"
        '1,A1,0,6,"Phones, yes",Lead\n1,A1,11,16,good.,Claim\n'
    )
    frame = read(content, ".csv")
    assert frame["tags"].tolist() == [["B-Lead", "O", "B-Claim"]] and list(frame)[-1] == "text"
    frame = read_tagged(tmp_path / "train", needs_tags=False)
    assert frame.to_dict("list") == {
        "id": ["A1"],
        "tokens": [["Phones", "are", "good."]],
        "text": ["Phones are good."],
    }


@pytest.mark.parametrize(
    ("scheme", "tags", "bio"),
    [
        ("IOB1", "I-A I-A O I-A B-A I-B", "B-A I-A O B-A B-A B-B"),
        ("BIOES", "B-A E-A O S-A S-A S-B", "B-A I-A O B-A B-A B-B"),
        ("BILOU", "B-A L-A O U-A U-A U-B", "B-A I-A O B-A B-A B-B"),
        ("BIO", "B-A I-A O B-A B-A B-B", "B-A I-A O B-A B-A B-B"),
    ],
)
def test_schemes_become_bio(read, scheme: str, tags: str, bio: str) -> None:
    content = text(tokens=list("abcdef"), tags=tags.split()) + text("b", [], [])
    assert read(content, scheme=scheme)["tags"].tolist() == [bio.split(), []]


@pytest.mark.parametrize("needs_tags", [True, False])
@pytest.mark.parametrize(
    ("scheme", "tags", "word", "tag"),
    [
        ("BIO", "O I-A", 2, "I-A"),
        ("BIO", "B-A I-B", 2, "I-B"),
        ("BIO", "I-A O", 1, "I-A"),
        ("BIO", "O X-A", 2, "X-A"),
        ("BIO", "O E-A", 2, "E-A"),
        ("BIO", "O B-", 2, "B-"),
        ("BIO", "O o", 2, "o"),
        ("IOB1", "O B-A", 2, "B-A"),
        ("BIOES", "B-A O", 1, "B-A"),
        ("BILOU", "B-A O", 1, "B-A"),
        ("BILOU", "O S-A", 2, "S-A"),
    ],
)
def test_illegal_tags_are_named_with_text_place_and_word(
    read, scheme: str, tags: str, word: int, tag: str, needs_tags: bool
) -> None:
    content = text() if scheme == "BIO" else text(tags=["O"])
    content += text("bad", ["x", "y"], tags.split())
    with pytest.raises(DataError) as caught:
        read(content, scheme=scheme, needs_tags=needs_tags)
    assert "train.jsonl: 1 tag" in str(caught.value)
    assert f"sentence bad (line 2), word {word}, tag {tag!r}" in str(caught.value)


def test_iob1_read_as_bio_is_told_of_and_an_unknown_scheme_refused(read) -> None:
    with pytest.raises(DataError, match=r"All of them .* in IOB1"):
        read(text(tags=["I-PER"]))
    with pytest.raises(SettingsError, match="scheme is 'IOB'"):
        read(line(id="a", tokens=["x"]), scheme="IOB", needs_tags=False)


def test_words_without_tag_and_tags_without_word_are_named(read) -> None:
    content = text() + text("b", ["x", "y"], ["O"]) + text("c", ["x"], ["O", "B-PER"])
    with pytest.raises(DataError) as caught:
        read(content, needs_tags=False)
    assert "b (line 2) has 2 words and 1 tags (no tag for word 2, 'y')" in str(caught.value)
    assert "c (line 3) has 1 words and 2 tags (no word for tag 2, 'B-PER')" in str(caught.value)


def test_texts_of_which_some_have_tags_are_named(read) -> None:
    content = text() + line(id="b", tokens=["x"]) + line(id="c", tokens=["x"], tags=None)
    with pytest.raises(DataError, match=r"has no tags for b \(line 2\), c \(line 3\)"):
        read(content, needs_tags=False)
    with pytest.raises(DataError, match=r"no column 'tags' in line 2;"):
        read(content)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"id": None}, "id is null, not text or a whole number"),
        ({"id": 1.5}, "id is 1.5, not"),
        ({"id": True}, "id is true, not"),
        ({"tokens": "Anna lives"}, 'tokens is "Anna lives", not a list of texts'),
        ({"tokens": None}, "tokens is null, not a list"),
        ({"tokens": ["a", 7]}, "tokens 2 is 7, not text"),
        ({"tokens": [None]}, "tokens 1 is null, not text"),
        ({"tags": [0]}, "tags 1 is 0, not text"),
        ({"tags": "O"}, 'tags is "O", not a list'),
    ],
)
def test_values_of_the_wrong_kind_are_named(read, suffix: str, values, what: str) -> None:
    rows = [{"id": "a", "tokens": ["a"], "tags": ["O"]}]
    rows.append({"id": "b", "tokens": ["a"], "tags": ["O"], **values})
    content = json.dumps(rows) if suffix == ".json" else "".join(line(**row) for row in rows)
    place = "item 2" if suffix == ".json" else "line 2"
    with pytest.raises(DataError) as caught:
        read(content, suffix)
    assert f"{place}: {what}" in str(caught.value)


def test_ids_that_come_twice_or_are_empty_are_named(read) -> None:
    with pytest.raises(DataError, match=r"more than once: 7 \(line 1, line 3\)\."):
        read(text(7) + text("b") + text("7"))
    with pytest.raises(DataError, match="empty id in line 2"):
        read(text() + text(" "))
    with pytest.raises(DataError, match=r"more than once: x \(data row 1, data row 2\)"):
        read(table(["x", "a", "O"], ["x", "b", "O"]), ".csv")


@pytest.mark.parametrize("column", ["id", "tokens", "tags", "other", "list"])
def test_half_a_surrogate_is_named_with_its_place(read, column: str) -> None:
    row = {"id": "b", "tokens": ["a"], "tags": ["O"], "other": "", "list": ["x"]}
    row[column] = "a\ud83d" if isinstance(row[column], str) else [*row[column], "a\ud83d"]
    where = {"tokens": "word 2", "tags": "tag 2", "list": "list 2"}.get(column, column)
    with pytest.raises(DataError, match=rf"line 2, {where}, character 2 \(U\+D83D\)"):
        read(text() + json.dumps(row) + "\n")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".conll", ".txt", ".bio"])
def test_an_empty_file_another_encoding_and_a_missing_file(read, tmp_path, suffix) -> None:
    with pytest.raises(DataError, match="is empty"):
        read("\n\r\n", suffix)
    with pytest.raises(DataError, match=r"is not UTF-8: byte 0x.. in line 2.*GBK"):
        read("id,tokens,tags\n一,我,O\n".encode("gbk"), suffix)
    with pytest.raises(DataError, match="does not exist"):
        read_tagged(tmp_path / f"none{suffix}", needs_tags=True)


def test_files_that_are_none_of_these(read) -> None:
    with pytest.raises(DataError, match=r"not from \.xlsx"):
        read("x", ".xlsx")
    with pytest.raises(DataError, match=r"line 2 is not a JSON object"):
        read(text() + "Anna O\n")
    with pytest.raises(DataError, match=r"is not JSON: .* in line 2, column \d"):
        read('[{"id": 1,\n "tokens": [}]', ".json")
    with pytest.raises(DataError, match="item 2 of the list is not a JSON object"):
        read("[" + text().strip() + ", 7]", ".json")
    with pytest.raises(DataError, match="holds no texts"):
        read("[]", ".json")
    with pytest.raises(DataError, match="holds no texts"):
        read("-DOCSTART- O\n", ".conll")
    with pytest.raises(DataError, match="has no column 'tokens', 'tags'; it has 'id', 'text'"):
        read("id,text\na,b\n", ".csv")


def test_other_columns_follow_and_cannot_take_the_place_of_ours(read) -> None:
    content = line(id=1, key="k", words=["a"], tags="x", labels=["O"], n=3) + line(
        key="m", words=[], labels=[]
    )
    names = {"id_column": "key", "tokens_column": "words", "tags_column": "labels"}
    frame = read(content, **names)
    assert list(frame) == ["id", "tokens", "tags", "n"] and frame["id"].tolist() == ["k", "m"]
    assert frame["n"][0] == 3 and pd.isna(frame["n"][1])


def test_a_document_of_twenty_thousand_words(read) -> None:
    tokens = [f"w{i}" for i in range(20_000)]
    tags = ["B-A" if i % 3 == 0 else "I-A" if i % 3 == 1 else "O" for i in range(20_000)]
    frame = read(text(tokens=tokens, tags=tags))
    assert frame["tokens"][0] == tokens and frame["tags"][0] == tags


@pytest.mark.pretrained
def test_every_shared_file_is_read_exactly() -> None:
    paths = sorted(NER.rglob("*.jsonl"))
    if not paths:
        pytest.skip(f"no tagged sentences at {NER}")
    for path in paths:
        rows = [json.loads(row) for row in path.read_text(encoding="utf-8").split("\n") if row]
        wanted = [{**row, "id": str(row["id"])} for row in rows]
        assert read_tagged(path, needs_tags=True).to_dict("records") == wanted
