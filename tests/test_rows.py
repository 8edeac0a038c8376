"""Rows of text files: lines end where the file ends them, cells stay as they stand there."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.rows import read_json_lines, read_tab_separated, read_utf8

PATH = Path("somewhere/file")
HEADLESS = (("id", "source", "target"), ("source", "target"), ("source",))


def from_json(text: str, text_columns=("id",)):
    return read_json_lines(PATH, text, text_columns=text_columns)


def from_tabs(text: str, known: str = "source"):
    return read_tab_separated(PATH, text, known=known, headless=HEADLESS, id_column="id")


def test_a_byte_order_mark_is_skipped_and_line_ends_stay(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n\x00")
    assert read_utf8(path) == "a\r\nb\rc\n\x00"


@pytest.mark.parametrize("encoding", ["gbk", "utf-16", "big5"])
def test_another_encoding_is_named_with_its_line(tmp_path, encoding) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("在\n".encode(encoding))
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8: byte 0x.. in line 1.*GBK"):
        read_utf8(path)


def test_what_is_no_file_is_named(tmp_path) -> None:
    with pytest.raises(DataError, match="none does not exist"):
        read_utf8(tmp_path / "none")
    with pytest.raises(DataError, match="cannot be read"):
        read_utf8(tmp_path)


def test_json_lines_end_at_line_feeds_only() -> None:
    table = from_json('{"id": "a\u2028b\u0085c"}\r\n\n{"id": "\\r\\n"}')
    assert [row["id"] for row in table.rows] == ["a\u2028b\u0085c", "\r\n"]
    assert table.places == ["line 1", "line 3"]


def test_other_values_of_json_are_kept_as_text() -> None:
    line = '{"id": "a", "n": 7, "list": [1, "é"], "none": null, "yes": true, "text": " x "}'
    assert from_json(line).rows == [
        {"id": "a", "n": "7", "list": '[1, "é"]', "none": "", "yes": "true", "text": " x "}
    ]


@pytest.mark.parametrize("line", ["", "{", "[1]", '"text"', "7", "{'id': 1}", "id,source"])
def test_lines_that_are_no_json_object_are_named(line) -> None:
    content = '{"id": "a"}\n' + (line or "null") + "\n" + '{"id": "b"}\n' + "{\n" * 6
    with pytest.raises(DataError, match="file: line 2, 4, 5, 6, 7 and 2 more is not a JSON object"):
        from_json(content)


def test_a_json_array_gets_its_cure() -> None:
    with pytest.raises(DataError, match="one JSON array: write its objects one a line"):
        from_json('[{"id": "a"},\n{"id": "b"}]')


@pytest.mark.parametrize("value", ["7", "null", "[]", "true", "1.5", '{"a": 1}'])
def test_a_value_that_must_be_text_and_is_not_is_named(value) -> None:
    with pytest.raises(DataError, match=r"line 2: id is .*must be text, in quotes"):
        from_json(f'{{"id": "a"}}\n{{"id": {value}}}')


def test_tabs_with_a_header_keep_cells_exactly() -> None:
    table = from_tabs('\ufeff id\tsource\r\na"b\t "x, y \r\n\r\nc\t\u2028\n')
    assert table.rows == [
        {"\ufeff id": 'a"b', "source": ' "x, y '},
        {"\ufeff id": "c", "source": "\u2028"},
    ]
    assert table.places == ["line 2", "line 4"] and table.note == ""


def test_tabs_without_a_header_are_known_by_their_number() -> None:
    assert from_tabs("a\tx\ty\n").rows == [{"id": "a", "source": "x", "target": "y"}]
    assert from_tabs("x\ty\n\nz\tw").rows == [
        {"id": "1", "source": "x", "target": "y"},
        {"id": "3", "source": "z", "target": "w"},
    ]
    assert from_tabs("x\n\ny\n").rows == [
        {"id": "1", "source": "x"},
        {"id": "2", "source": ""},
        {"id": "3", "source": "y"},
    ]
    assert "Line 1 was read as a row" in from_tabs("x\n").note


def test_tabs_of_another_number_are_named() -> None:
    with pytest.raises(DataError, match=r"2 columns are expected, line 3 \(3\), line 4 \(1\) has"):
        from_tabs("id\tsource\na\tx\nb\tx\ty\nc\n")
    with pytest.raises(DataError, match="line 1 has 4 columns, none of them called 'source'"):
        from_tabs("a\tb\tc\td\n")
    with pytest.raises(DataError, match="comes twice in the header"):
        from_tabs("source\tid\tid\n")
