"""Reading CSV: every cell as it stands there, and every fault named with its place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.tables import numeric_columns, read_table


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(content: bytes | str, columns=("full_text",)) -> pd.DataFrame:
        path = tmp_path / "train.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_table(path, columns=columns, id_column="text_id")

    return read_bytes


@pytest.mark.parametrize(
    "ids",
    [
        ["53E542321463", "12E3"],  # all floats to a careless reader
        ["000123", "000124"],
        ["1.50", "2.0"],
        ["True", "False"],
        ["NA", "null"],
        ["53E542321463", "000123", "NA", "+7", " padded", "0016926B079C"],
    ],
)
def test_ids_stay_the_text_they_are(read, ids: list[str]) -> None:
    frame = read("text_id,full_text\n" + "".join(f"{row_id},x\n" for row_id in ids))
    assert frame["text_id"].tolist() == ids


@pytest.mark.parametrize("text", ["NA", "null", "nan", "None", "N/A", "3.10", "True", "#N/A"])
def test_a_text_that_looks_like_something_else_stays_text(read, text: str) -> None:
    assert read(f"text_id,full_text\na,{text}\nb,y\n")["full_text"].tolist() == [text, "y"]


def test_line_ends_inside_quotes_are_kept_as_they_are(read) -> None:
    content = b'text_id,full_text\r\na,"one\r\ntwo\n\nthree\rfour"\r\nb,"say ""hi"", so"\r\n'
    assert read(content)["full_text"].tolist() == ["one\r\ntwo\n\nthree\rfour", 'say "hi", so']


def test_a_byte_order_mark_does_not_hide_the_first_column(read) -> None:
    frame = read(b"\xef\xbb\xbftext_id,full_text\na,x\n")
    assert list(frame.columns) == ["text_id", "full_text"]


def test_other_columns_and_an_empty_text_are_kept(read) -> None:
    frame = read("text_id,extra,full_text\na,007,\nb,,x\n")
    assert frame["extra"].tolist() == ["007", ""]
    assert frame["full_text"].tolist() == ["", "x"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv does not exist"):
        read_table(tmp_path / "nothing.csv", columns=(), id_column="text_id")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty: not even a header"),
        ("\n\n", "is empty: not even a header"),
        ("text_id,full_text\n", "has a header but no rows"),
        ("text_id,text\na,x\n", "has no column 'full_text'; it has 'text_id', 'text'"),
        ("id,full_text\na,x\n", "has no column 'text_id'"),
        ("text_id;full_text\na;x\n", "it has 'text_id;full_text'"),
        ("text_id,full_text\na,x\nb,y\na,z\n", "text_id comes more than once: a."),
        ("text_id,full_text\na,x\n,y\n", "empty text_id in data row 2"),
        ("text_id,full_text\na,x\n  ,y\n", "empty text_id in data row 2"),
        ('text_id,full_text\na,"never closed\nb,y\n', "is not a CSV file"),
        ("text_id,full_text\na,x\nb,y,z\n", "is not a CSV file"),
    ],
)
def test_a_faulty_file_is_an_error_that_says_what_is_wrong(read, content: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read(content)
    assert says in str(caught.value) and "train.csv" in str(caught.value)


@pytest.mark.parametrize(
    "rows", ["a,good,\nb,better,\n", "a,good,x\nb,better,y\n"], ids=["trailing comma", "more cells"]
)
def test_rows_with_a_cell_more_than_the_header_do_not_shift_the_columns(read, rows: str) -> None:
    """pandas takes the first column for an index then: the ids vanish, the texts become ids."""
    try:
        frame = read("text_id,full_text\n" + rows)
    except DataError:
        return
    assert frame["text_id"].tolist() == ["a", "b"]
    assert frame["full_text"].tolist() == ["good", "better"]


def test_many_offending_rows_are_not_all_listed(read) -> None:
    with pytest.raises(DataError, match="1, 2, 3, 4, 5 and 7 more"):
        read("text_id,full_text\n" + ",x\n" * 12)


@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [
        (b'text_id,full_text\na,"x\ny"\nb,caf\xe9\n', 4, "0xe9"),
        ("text_id,full_text\na,x\n".encode("utf-16"), 1, "0xff"),
        (b"text_id,full_text\n" + b"a,x\n" * 1 + b"b," + b"x" * 300_000 + b"\x92\n", 3, "0x92"),
    ],
    ids=["cp1252", "utf-16", "far into the file"],
)
def test_text_that_is_not_utf8_names_byte_line_and_cure(read, content, line, byte) -> None:
    with pytest.raises(DataError) as caught:
        read(content)
    message = str(caught.value)
    assert f"byte {byte} in line {line}." in message and "iconv" in message


def scores(values: list[str]) -> pd.DataFrame:
    ids = [f"0{number}" for number in range(len(values))]
    return pd.DataFrame({"text_id": ids, "syntax": values, "note": values})


def as_numbers(values: list[str]) -> pd.DataFrame:
    return numeric_columns(
        scores(values),
        ["syntax"],
        id_column="text_id",
        lowest=1.0,
        highest=5.0,
        source=Path("train.csv"),
    )


def test_targets_become_exact_floats_and_the_rest_stays_text() -> None:
    frame = scores(["1", "3.5", "5.0"])
    given = frame.copy()
    numbers = numeric_columns(
        frame, ["syntax"], id_column="text_id", lowest=1, highest=5, source=Path("train.csv")
    )
    assert numbers["syntax"].dtype == np.float64
    assert numbers["syntax"].tolist() == [1.0, 3.5, 5.0]
    assert numbers["note"].tolist() == ["1", "3.5", "5.0"]
    pd.testing.assert_frame_equal(frame, given)


@pytest.mark.parametrize("wrong", ["nan", "", "inf", "-inf", "abc", "0.5", "5.5", "3,5", "-3"])
def test_a_value_that_cannot_be_a_target_is_named_with_its_id(wrong: str) -> None:
    with pytest.raises(DataError) as caught:
        as_numbers(["3.0", wrong, "4.0"])
    message = str(caught.value)
    assert f"01: {wrong!r}" in message and "1 rows do not" in message
    assert "train.csv" in message and "'syntax'" in message and "1.0 to 5.0" in message


def test_of_many_wrong_targets_all_are_counted_and_some_shown() -> None:
    with pytest.raises(DataError, match="9 rows do not") as caught:
        as_numbers(["x"] * 9 + ["3"])
    assert "04: 'x'" in str(caught.value) and "05: 'x'" not in str(caught.value)
