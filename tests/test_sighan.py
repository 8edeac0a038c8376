"""The official files of SIGHAN: test inputs with their truth, and training SGML."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from kernel_lib.errors import DataError
from kernel_lib.text.sentences import read_sentences
from kernel_lib.text.sighan import (
    Sentence,
    apply_truth,
    find_truth,
    looks_like_essays,
    looks_like_input,
    read_essays,
    read_input,
    read_truth,
)
from tests.conftest import SHARED

PATH = Path("somewhere/file.txt")
TRADITIONAL = SHARED / "data/csc/traditional"
ESSAY = """<ESSAY title="寫信">
<TEXT>
<PASSAGE id="B1-1-1">我門去圖書管，明天在說。 </PASSAGE>
<PASSAGE id="B1-1-2">天氣很好。</PASSAGE>
</TEXT>
<MISTAKE id="B1-1-1" location="2">
<WRONG>我門</WRONG>
<CORRECTION>我們</CORRECTION>
</MISTAKE>
<MISTAKE id="B1-1-1" location="6"><WRONG>圖書管</WRONG><CORRECTION>圖書館</CORRECTION></MISTAKE>
<MISTAKE id="B1-1-1" location="10">
<WRONG>在說</WRONG>
<CORRECTION>再說</CORRECTION>
</MISTAKE>
</ESSAY>
"""
DOCS = """<DOC Nid="00001">
<P>大家都很煩腦，忘塵莫即！</P>
<TEXT>
<MISTAKE wrong_position=6>
<WRONG>煩腦</WRONG>
<CORRECT>煩惱</CORRECT>
</MISTAKE>
<MISTAKE wrong_position=11>
<WRONG>忘塵莫即</WRONG>
<CORRECT>望塵莫及</CORRECT>
</MISTAKE>
</TEXT>
</DOC>

<DOC Nid="10001">
<P>大自然多麼奇妙。</P>
<TEXT>
<MISTAKE wrong_position=0>
</MISTAKE>
</TEXT>
</DOC>
"""


def essay(*, passage: str, location: int, wrong: str, right: str) -> str:
    return (
        f'<ESSAY><TEXT><PASSAGE id="x">{passage}</PASSAGE></TEXT><MISTAKE id="x" '
        f'location="{location}"><WRONG>{wrong}</WRONG><CORRECTION>{right}</CORRECTION></MISTAKE>'
        "</ESSAY>"
    )


@pytest.mark.parametrize(
    ("line", "name", "source"),
    [
        ("(pid=A2-0011-1)\t你好！ 我是張愛文。", "A2-0011-1", "你好！ 我是張愛文。"),
        ("(NID=00401) 遇到逆竟時。 ", "00401", "遇到逆竟時。 "),
        ("(sid=00001)  我", "00001", "我"),
        ("(PID=x)我\u2028們", "x", "我\u2028們"),
        ("(pid=x)\t", "x", ""),
        ("(pid=x)\t(pid=y)\t我", "x", "(pid=y)\t我"),
        ("(pid=x)\t　我", "x", "　我"),
    ],
)
def test_a_line_of_input(line: str, name: str, source: str) -> None:
    assert looks_like_input(line)
    assert read_input(PATH, f"{line}\r\n\n") == [Sentence(1, name, source, None)]


def test_lines_of_input_that_are_none_are_named() -> None:
    with pytest.raises(DataError, match=r"line 2, 4 does not begin with \(pid="):
        read_input(PATH, "(pid=a) 我\n我\n(pid=b) 我\npid=c 我\n")


def test_the_forms_of_a_truth() -> None:
    text = "A2-1, 0\r\nA2-2, 10, 友\nA2-3,4,境 , 7,\t待\n\nA2-4, 3, 1"
    assert read_truth(PATH, text) == {
        "A2-1": [],
        "A2-2": [(10, "友")],
        "A2-3": [(4, "境"), (7, "待")],
        "A2-4": [(3, "1")],
    }


def test_a_truth_without_any_error_is_one() -> None:
    assert read_truth(PATH, "a, 0\nb, 0\n") == {"a": [], "b": []}


def test_a_truth_of_positions_only_is_none() -> None:
    assert read_truth(PATH, "0001, 0\n0004, 11, 64\n0009, 22\n0660, 50, \n") is None


@pytest.mark.parametrize(
    "line", ["x", "x,", "x, 友", "x, 0, 友", "x, -1, 友", "x, 3, 朋友", "x, 3, 友, 4", ", 3, 友"]
)
def test_a_line_of_truth_of_another_form_is_named(line: str) -> None:
    with pytest.raises(DataError, match=r"file\.txt: line 2 is not 'id, 0' or 'id, position"):
        read_truth(PATH, f"a, 1, 友\n{line}\n")


def test_a_truth_with_an_id_twice_is_named() -> None:
    with pytest.raises(DataError, match="ids that come more than once: a"):
        read_truth(PATH, "a, 1, 友\nb, 0\na, 0\n")


def test_positions_count_from_one_and_code_points() -> None:
    sentences = [Sentence(1, "a", "😀我𠀀門", None), Sentence(2, "b", "", None)]
    labelled = apply_truth(sentences, {"a": [(2, "你"), (4, "們")], "b": []}, PATH)
    assert [one.target for one in labelled] == ["😀你𠀀們", ""]
    assert [one.source for one in labelled] == ["😀我𠀀門", ""]


@pytest.mark.parametrize(
    ("truth", "says"),
    [
        ({"b": []}, "no line for a; ids that the input does not have: b"),
        ({"a": [], "c": []}, "ids that the input does not have: c"),
        (
            {"a": [(1, "你"), (3, "們")]},
            r"behind the end of the text: a \(position 3, 2 characters",
        ),
    ],
)
def test_a_truth_of_another_input_is_refused(truth, says) -> None:
    with pytest.raises(DataError, match=says):
        apply_truth([Sentence(1, "a", "我門", None)], truth, PATH)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("X.txt", "X.truth.txt"),
        ("FinalTest_SubTask2.txt", "FinalTest_SubTask2_Truth.txt"),
        ("CLP14_CSC_TestInput.txt", "CLP14_CSC_TestTruth.txt"),
        ("CLP14_CSC_DryRun_Input.txt", "CLP14_CSC_DryRun_Truth.txt"),
        ("SIGHAN15_CSC_TestInput.txt", "SIGHAN15_CSC_TestTruth.txt"),
    ],
)
def test_the_truth_beside_an_input(tmp_path, name: str, truth: str) -> None:
    for other in (name, truth, "Other_Truth.txt", "FinalTest_SubTask1_Truth.txt", "notes.txt"):
        (tmp_path / other).touch()
    assert find_truth(tmp_path / name) == tmp_path / truth


def test_no_truth_and_two_truths(tmp_path) -> None:
    (tmp_path / "Y.truth.txt").touch()
    assert find_truth(tmp_path / "X.txt") is None
    (tmp_path / "X.truth.txt").touch()
    (tmp_path / "X_Truth.txt").touch()
    with pytest.raises(DataError, match=r"more than one truth.*X\.truth\.txt, X_Truth\.txt"):
        find_truth(tmp_path / "X.txt")


@pytest.mark.parametrize("text", [ESSAY, DOCS, "\r\n<essay>", ' <DOC Nid="1">'])
def test_training_files_are_known_by_their_begin(text: str) -> None:
    assert looks_like_essays(text) and not looks_like_input(text)


def test_passages_with_their_mistakes_put_right() -> None:
    assert read_essays(PATH, ESSAY) == [
        Sentence(3, "B1-1-1", "我門去圖書管，明天在說。 ", "我們去圖書館，明天再說。 "),
        Sentence(4, "B1-1-2", "天氣很好。", "天氣很好。"),
    ]


def test_the_documents_of_2013() -> None:
    assert read_essays(PATH, DOCS.replace("\n", "\r\n")) == [
        Sentence(1, "00001", "大家都很煩腦，忘塵莫即！", "大家都很煩惱，望塵莫及！"),
        Sentence(15, "10001", "大自然多麼奇妙。", "大自然多麼奇妙。"),
    ]


def test_the_location_says_which_of_equal_words_is_wrong() -> None:
    text = essay(passage="去那裡，在那裡，從那裡", location=6, wrong="那裡", right="哪裡")
    assert read_essays(PATH, text)[0].target == "去那裡，在哪裡，從那裡"


def test_the_location_is_that_of_the_character_not_of_the_word() -> None:
    text = essay(passage="人人人", location=2, wrong="人人", right="仁人")
    assert read_essays(PATH, text)[0].target == "人仁人"


def test_one_mistake_named_once_for_each_of_its_characters() -> None:
    text = essay(passage="我計話去", location=2, wrong="計話", right="繼畫")
    extra = text[text.index("<MISTAKE") : text.index("</ESSAY>")].replace('"2"', '"3"')
    assert read_essays(PATH, text.replace("</ESSAY>", extra + "</ESSAY>"))[0].target == "我繼畫去"


def test_a_wrong_location_does_not_matter_where_the_word_occurs_once() -> None:
    text = essay(passage="明天我門去", location=1, wrong="我門", right="我們")
    assert read_essays(PATH, text)[0].target == "明天我們去"


@pytest.mark.parametrize(
    "mistake",
    [
        {"location": 1, "wrong": "他門", "right": "他們"},
        {"location": 9, "wrong": "我門", "right": "我們"},
        {"location": 2, "wrong": "我門", "right": "我"},
        {"location": 2, "wrong": "", "right": ""},
    ],
    ids=["not there", "there twice", "another length", "empty"],
)
def test_a_mistake_that_fits_nowhere_leaves_its_passage_out_and_says_so(mistake) -> None:
    text = essay(passage="我門看我門", **mistake) + '<ESSAY><PASSAGE id="y">好</PASSAGE></ESSAY>'
    with pytest.warns(UserWarning, match=r"1 of 2 passages are taken.*: x \("):
        assert [one.id for one in read_essays(PATH, text)] == ["y"]


def test_a_mistake_of_an_unknown_passage_is_said() -> None:
    with pytest.warns(UserWarning, match=r"2 of 2 passages are taken.*B1-9 \(no such passage\)"):
        read_essays(PATH, ESSAY.replace('MISTAKE id="B1-1-1"', 'MISTAKE id="B1-9"', 1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ESSAY[: ESSAY.index("</PASSAGE>")], "1 <PASSAGE> begin, 0 end"),
        (ESSAY[: ESSAY.rindex("</MISTAKE>")], "3 <MISTAKE> begin, 2 end"),
        (ESSAY.replace("</MISTAKE>", "", 1), "3 <MISTAKE> begin, 2 end"),
        (DOCS[: DOCS.rindex("</TEXT>")], "2 <DOC> begin, 1 end"),
        ("<ESSAY></ESSAY>", "holds no passage"),
    ],
    ids=["passage", "last mistake", "first mistake", "document", "empty"],
)
def test_a_cut_or_damaged_training_file_is_refused(text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_essays(PATH, text)


@pytest.mark.pretrained
@pytest.mark.parametrize("year", ["13", "14", "15"])
def test_the_official_truths_give_the_targets(tmp_path, year: str) -> None:
    jsonl = TRADITIONAL / f"sighan{year}_test.jsonl"
    if not jsonl.is_file():
        pytest.skip(f"the official test sets are not at {TRADITIONAL}")
    rows = [json.loads(line) for line in jsonl.read_text(encoding="utf-8").splitlines()]
    begin = "(NID={}) {}\n" if year == "13" else "(pid={})\t{}\n"
    content = "".join(begin.format(row["id"], row["source"]) for row in rows)
    (tmp_path / "TestInput.txt").write_text(content, encoding="utf-8")
    truth = (TRADITIONAL / f"sighan{year}_test.truth.txt").read_bytes()
    (tmp_path / "TestTruth.txt").write_bytes(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = read_sentences(tmp_path / "TestInput.txt", needs_target=True)
    assert frame.to_dict("records") == rows
