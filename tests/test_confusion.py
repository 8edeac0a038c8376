"""Confusion sets: both directions, both forms of file, and damaged lines named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.confusion import ConfusionSet
from tests.conftest import SHARED

FOLDER = SHARED / "data/csc/confusion"


@pytest.fixture
def read(tmp_path: Path):
    def read_texts(*contents: str | bytes) -> ConfusionSet:
        paths = []
        for number, content in enumerate(contents):
            paths.append(tmp_path / f"confusion{number}.txt")
            paths[-1].write_bytes(content.encode() if isinstance(content, str) else content)
        return ConfusionSet.read(paths)

    return read_texts


def test_groups_single_cells_and_one_run_are_all_read(read) -> None:
    confusion = read("#汉字\t同音同调\t同音异调\n乃\t奶奈\t耐\n", "黑\t墨\t默\n", "在\t再载\n")
    assert confusion.others("乃") == "奈奶耐"
    assert confusion.others("黑") == "墨默"
    assert confusion.others("在") == "再载"


def test_relations_hold_in_both_directions_but_not_among_the_others(read) -> None:
    confusion = read("在\t再载\n")
    assert confusion.others("再") == confusion.others("载") == "在"
    assert confusion.allows("在", "再") and confusion.allows("再", "在")
    assert not confusion.allows("再", "载")


def test_files_and_lines_are_joined_without_repetition(read) -> None:
    confusion = read("在\t再\n在\t再栽\n", "再\t在\n栽\t在载\n")
    assert confusion.to_dict() == {"再": "在", "在": "再栽", "栽": "在载", "载": "栽"}


def test_a_character_is_not_confused_with_itself_or_with_nothing(read) -> None:
    confusion = read("在\t在再\n")
    assert confusion.others("在") == "再"
    assert not confusion.allows("在", "在")
    assert not confusion.allows("在", "") and not confusion.allows("", "在")
    assert not confusion.allows("在", "再再")
    assert confusion.others("我") == "" and not confusion.allows("我", "在")


def test_length_and_truth(read) -> None:
    assert len(read("在\t再\n")) == 2 and read("在\t再\n")
    assert len(ConfusionSet()) == 0 and not ConfusionSet()
    assert not ConfusionSet.read([])


def test_through_json_and_back_in_a_stable_order(read) -> None:
    confusion = read("黑\t墨默\n在\t再\n")
    stored = json.dumps(confusion.to_dict())
    assert stored == json.dumps(read("在\t再\n黑\t默\n墨\t黑\n").to_dict())
    again = ConfusionSet.from_dict(json.loads(stored))
    assert again == confusion and again.others("墨") == "黑"


@pytest.mark.parametrize("table", [["在"], {"在再": "载"}, {"在": 3}, {3: "在"}, None])
def test_a_table_of_another_form_is_refused(table) -> None:
    with pytest.raises(DataError, match="single characters"):
        ConfusionSet.from_dict(table)


def test_blank_lines_comments_line_ends_and_a_byte_order_mark(read) -> None:
    confusion = read(b"\xef\xbb\xbf" + "# 注\r\n\r\n在\t再\r\n\n".encode())
    assert confusion.to_dict() == {"再": "在", "在": "再"}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("在\t再\n在再\n", r"confusion0\.txt, line 2: '在再' is not a character, a tab"),
        ("在\t\n", "line 1"),
        ("在再\t载\n", "line 1"),
        ("\t在\n", "line 1"),
        ("a\t在\n", "line 1"),
        ("在\t再 载\n", "line 1"),
        ("在\t再,载\n", "line 1"),
        ("# only a comment\n", "no confused characters"),
        ("", "no confused characters"),
        ("在\t再\n".encode("gbk"), "is not UTF-8: byte 0xd4 in line 1"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(read, content, says) -> None:
    with pytest.raises(DataError, match=says):
        read(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.txt does not exist"):
        ConfusionSet.read([tmp_path / "none.txt"])


@pytest.mark.pretrained
def test_the_shared_sets() -> None:
    paths = [FOLDER / "same_pinyin.txt", FOLDER / "same_stroke.txt"]
    if not all(path.is_file() for path in paths):
        pytest.skip(f"the confusion sets are not at {FOLDER}")
    confusion = ConfusionSet.read(paths)
    assert len(confusion) > 3_500
    assert confusion.allows("待", "侍") or confusion.allows("在", "再")
    for character in confusion.table:
        assert character not in confusion.others(character)
        assert all(character in confusion.others(other) for other in confusion.others(character))
