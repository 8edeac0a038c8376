"""Sentences as they stand in their file, and every fault named with ids and places."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.sentences import SIMPLIFIED, TRADITIONAL, read_sentences, warn_if_traditional
from tests.conftest import SHARED

FOLDER = SHARED / "data/csc"
NASTY = [
    "",
    " 我  ",
    "\u3000我\u3000",
    "“‘…—’”",
    "a\u2028b\u2029c\u0085d\x0be\x0c",
    "我\r\n們\r\n",
    "\x00\x1f\x7f",
    "👩‍👩‍👧 e\u0301 \u200b\ufeff",
    "ＡＢ１２，NA null 007",
    "𠀀[SEP]",
    '引"号, \\n \\',
    "A" * 10_000,
]


@pytest.fixture
def read(tmp_path: Path):
    def read_content(content: str | bytes, suffix: str = ".jsonl", **options) -> pd.DataFrame:
        path = tmp_path / f"train{suffix}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_sentences(path, **{"needs_target": True, **options})

    return read_content


def line(**values) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def pair(name: str = "a", source: str = "我門", target: str = "我們") -> str:
    return line(id=name, source=source, target=target)


@pytest.mark.parametrize("escaped", [False, True])
def test_json_lines_keep_every_text_exactly(read, escaped: bool) -> None:
    rows = [{"id": f" {i} ", "source": text, "target": text} for i, text in enumerate(NASTY)]
    content = "".join(json.dumps(row, ensure_ascii=escaped) + "\r\n" for row in rows)
    frame = read(b"\xef\xbb\xbf" + content.encode())
    assert list(frame.columns) == ["id", "source", "target"]
    assert frame.to_dict("records") == rows


def test_csv_keeps_every_text_exactly(read, tmp_path) -> None:
    rows = [{"id": str(i), "source": text, "target": text} for i, text in enumerate(NASTY)]
    pd.DataFrame(rows).to_csv(tmp_path / "made.csv", index=False, lineterminator="\r\n", quoting=1)
    frame = read((tmp_path / "made.csv").read_bytes(), ".csv")
    assert frame.to_dict("records") == rows


@pytest.mark.parametrize("header", ["id\tsource\ttarget\r\n", ""])
def test_tsv_keeps_every_text_exactly(read, header: str) -> None:
    rows = [
        {"id": f"n{i}", "source": text, "target": text}
        for i, text in enumerate(NASTY)
        if not {"\n", "\t"} & set(text)
    ]
    content = header + "".join(f"{row['id']}\t{row['source']}\t{row['target']}\r\n" for row in rows)
    assert read(b"\xef\xbb\xbf" + content.encode(), ".tsv").to_dict("records") == rows


def test_tsv_of_two_columns_is_numbered_by_its_lines(read) -> None:
    frame = read("我門\t我們\n好\t好\n", ".tsv")
    assert frame.to_dict("list") == {
        "id": ["1", "2"],
        "source": ["我門", "好"],
        "target": ["我們", "好"],
    }


def test_a_test_input_with_its_truth(read, tmp_path) -> None:
    (tmp_path / "train.truth.txt").write_text("x, 2, 們\ny, 0\n", encoding="utf-8")
    frame = read("(pid=x)\t我門\n(pid=y)\t\n", ".txt")
    assert frame["target"].tolist() == ["我們", ""]
    assert frame["source"].tolist() == ["我門", ""]


def test_a_test_input_without_its_truth(read, tmp_path) -> None:
    assert list(read("(pid=x)\t我門\n", ".txt", needs_target=False).columns) == ["id", "source"]
    with pytest.raises(DataError, match=r"no truth file beside it.*train\.truth\.txt"):
        read("(pid=x)\t我門\n", ".txt")
    (tmp_path / "train.truth.txt").write_text("x, 2\n", encoding="utf-8")
    assert list(read("(pid=x)\t我門\n", ".txt", needs_target=False).columns) == ["id", "source"]
    with pytest.raises(DataError, match=r"positions only.*sub-task 2"):
        read("(pid=x)\t我門\n", ".txt")


def test_training_sgml(read) -> None:
    content = (
        '<ESSAY title="t">\n<TEXT>\n<PASSAGE id="p">我門</PASSAGE>\n</TEXT>\n<MISTAKE id="p" '
        'location="2">\n<WRONG>我門</WRONG>\n<CORRECTION>我們</CORRECTION>\n</MISTAKE>\n</ESSAY>\n'
    )
    assert read(content, ".sgml").to_dict("records") == [
        {"id": "p", "source": "我門", "target": "我們"}
    ]


def test_other_columns_follow_as_text_and_lie_empty_where_a_line_has_none(read) -> None:
    content = line(domain="law", n=7, target="我", source="我", id="a") + pair("b")
    frame = read(content)
    assert list(frame.columns) == ["id", "source", "target", "domain", "n"]
    assert frame["domain"].tolist() == ["law", ""] and frame["n"].tolist() == ["7", ""]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_columns_under_other_names(read, suffix: str) -> None:
    content = {
        ".jsonl": line(right="我們", key="a", wrong="我門"),
        ".csv": "right,key,wrong\n我們,a,我門\n",
        ".tsv": "right\tkey\twrong\n我們\ta\t我門\n",
    }[suffix]
    frame = read(content, suffix, id_column="key", source_column="wrong", target_column="right")
    assert list(frame.columns) == ["key", "wrong", "right"]
    assert frame.iloc[0].tolist() == ["a", "我門", "我們"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv"])
def test_a_target_may_be_missing_where_it_is_not_needed(read, suffix: str) -> None:
    content = {
        ".jsonl": line(id="a", source="我"),
        ".csv": "id,source\na,我\n",
        ".tsv": "id\tsource\na\t我\n",
    }[suffix]
    assert list(read(content, suffix, needs_target=False).columns) == ["id", "source"]
    with pytest.raises(DataError, match=r"has no column 'target'.*it has 'id', 'source'"):
        read(content, suffix)


def test_a_column_that_some_lines_lack_is_named_with_them(read) -> None:
    content = pair("a") + line(id="b", source="我") + line(source="我", target="我")
    with pytest.raises(DataError, match="no column 'id' in line 3;"):
        read(content)
    with pytest.raises(DataError, match="no column 'target' in line 2;"):
        read(content.rsplit("\n", 2)[0], needs_target=False)


@pytest.mark.parametrize(
    ("suffix", "places"), [(".jsonl", "line"), (".csv", "data row"), (".tsv", "line")]
)
def test_unequal_lengths_are_named_with_ids_places_and_both_lengths(read, suffix, places) -> None:
    rows = [("good", "我", "我"), *((f"bad{i}", "我" * i, "我") for i in range(2, 9))]
    content = {
        ".jsonl": "".join(pair(*row) for row in rows),
        ".csv": "id,source,target\n" + "".join(",".join(row) + "\n" for row in rows),
        ".tsv": "".join("\t".join(row) + "\n" for row in rows),
    }[suffix]
    for needs_target in (True, False):
        with pytest.raises(DataError) as caught:
            read(content, suffix, needs_target=needs_target)
        message = str(caught.value)
        assert f"in 7 rows: bad2 ({places} 2: 2 and 1 characters); bad3 ({places} 3: 3" in message
        assert "bad6" in message and "bad7" not in message and "good" not in message


def test_lengths_are_those_of_code_points(read) -> None:
    assert len(read(pair("a", "𠀀😀", "我我"))) == 1
    with pytest.raises(DataError, match="2 and 1 characters"):
        read(pair("a", "e\u0301", "é"))


def test_a_header_taken_for_a_row_is_guessed_in_the_message(read) -> None:
    with pytest.raises(DataError, match=r"line 1: 4 and 7 characters.*if it is a header, say"):
        read("key\ttext\tcorrect\na\t我\t我\n", ".tsv")


def test_ids_that_come_twice_are_named_with_their_lines(read) -> None:
    with pytest.raises(DataError, match=r"id comes more than once: a \(line 1, line 3\)\."):
        read(pair("a") + pair("b") + pair("a"))
    with pytest.raises(DataError, match="id comes more than once: a"):
        read("id,source,target\na,我,我\na,我,我\n", ".csv")


@pytest.mark.parametrize("name", ["", " ", "\u3000"])
def test_an_empty_id_is_named_with_its_line(read, name: str) -> None:
    with pytest.raises(DataError, match="empty id in line 2"):
        read(pair("a") + pair(name))


@pytest.mark.parametrize("column", ["id", "source", "target", "other"])
def test_half_a_surrogate_is_named_with_its_place(read, column: str) -> None:
    row = {"id": "b", "source": "我們", "target": "我們", "other": "", column: "我\ud83d"}
    with pytest.raises(DataError, match=rf"line 2, {column}, character 2 \(U\+D83D\)"):
        read(pair("a") + json.dumps(row) + "\n")


def test_a_whole_surrogate_pair_is_a_character(read) -> None:
    frame = read('{"id": "a", "source": "\\ud83d\\ude00", "target": "我"}')
    assert frame["source"].tolist() == ["😀"]


@pytest.mark.parametrize("value", [7, None, ["我"], True])
@pytest.mark.parametrize("column", ["id", "source", "target"])
def test_a_value_that_is_no_text_is_named(read, column: str, value) -> None:
    row = {"id": "b", "source": "我", "target": "我", column: value}
    with pytest.raises(DataError, match=f"line 2: {column} is .*must be text"):
        read(pair("a") + line(**row))


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".txt", ".sgml"])
def test_an_empty_file_another_encoding_and_a_missing_file(read, tmp_path, suffix) -> None:
    with pytest.raises(DataError, match="is empty"):
        read("", suffix)
    with pytest.raises(DataError, match="is empty"):
        read("\n \r\n", suffix) if suffix != ".csv" else read("\n\n", suffix)
    with pytest.raises(DataError, match=r"is not UTF-8: byte 0x.. in line 2.*GBK"):
        read("id,source,target\n一,我,我\n".encode("gbk"), suffix)
    with pytest.raises(DataError, match="does not exist"):
        read_sentences(tmp_path / f"none{suffix}", needs_target=True)


def test_a_line_that_is_no_json_is_named(read) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl: line 2 is not a JSON object"):
        read(pair("a") + "id\tsource\n")


def test_headers_without_rows(read) -> None:
    with pytest.raises(DataError, match="no rows"):
        read("id,source,target\n", ".csv")
    with pytest.raises(DataError, match="holds no sentences"):
        read("id\tsource\ttarget\n", ".tsv")


def test_files_of_another_kind(read) -> None:
    with pytest.raises(DataError, match=r"not from \.xlsx"):
        read("x", ".xlsx")
    with pytest.raises(DataError, match="begins neither with"):
        read("我門\n", ".txt")


@pytest.mark.pretrained
def test_every_shared_file_is_read_exactly() -> None:
    paths = sorted(FOLDER.rglob("*.jsonl"))
    if not paths:
        pytest.skip(f"no sentences at {FOLDER}")
    for path in paths:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [json.loads(text) for text in lines if text]
        assert read_sentences(path, needs_target=True).to_dict("records") == rows


def test_the_two_lists_of_characters_fit_each_other() -> None:
    assert len(TRADITIONAL) == len(SIMPLIFIED) == len(set(TRADITIONAL)) == len(set(SIMPLIFIED))
    assert not set(TRADITIONAL) & set(SIMPLIFIED)


@pytest.mark.parametrize(
    "texts",
    [
        ["這個國家"],
        ["我們說過了"],
        ["这是一个说法。", "這個們", "abc"],
        ["这个们来" * 3 + "這個們"],
    ],
)
def test_traditional_text_is_warned_of(texts) -> None:
    with pytest.warns(UserWarning, match="the test sentences looks like traditional Chinese"):
        warn_if_traditional(texts, where="the test sentences")


@pytest.mark.parametrize(
    "texts",
    [
        [],
        [""],
        ["这个国家的人们"],
        ["abc 我你他"],
        ["這個"],
        ["这个们来说时" * 3 + "這個們"],
        ["著名的后面只有几里"],
    ],
)
def test_simplified_text_and_single_quotations_are_not(texts) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_traditional(texts, where="these")


@pytest.mark.pretrained
def test_the_rule_on_the_shared_files() -> None:
    paths = sorted(FOLDER.rglob("*.jsonl"))
    if not paths:
        pytest.skip(f"no sentences at {FOLDER}")
    for path in paths:
        texts = read_sentences(path, needs_target=True)["source"]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_if_traditional(texts, where=path.name)
        assert len(caught) == (path.parent.name == "traditional"), path
