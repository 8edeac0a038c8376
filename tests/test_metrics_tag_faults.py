"""Tags that cannot stand: found, named with their place."""

from __future__ import annotations

import random

import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.tag_faults import check_tags, illegal_tags, is_legal
from kernel_lib.metrics.tags import Scheme, convert_tags, read_spans
from tests.test_metrics_tags import SCHEMES, random_tags

FAULTS = [
    ("I-P I-P O I-L", "BIO", [0, 3]),
    ("B-P I-L I-L I-P", "BIO", [1, 3]),
    ("B-P I-P O B-L B-L", "BIO", []),
    ("I-P B-P I-L B-P O", "IOB1", [3]),
    ("B-P", "IOB1", [0]),
    ("I-P I-L B-L B-L", "IOB1", []),
    ("B-P I-P E-P S-L O", "BIOES", []),
    ("B-P O B-P B-P E-P I-P", "BIOES", [0, 2, 5]),
    ("E-P B-P I-L", "BIOES", [0, 2]),
    ("S-P I-P", "BIOES", [1]),
    ("", "BIOES", []),
    ("B-P I-P L-P U-L O", "BILOU", []),
    ("B-P O B-P B-P L-P I-P", "BILOU", [0, 2, 5]),
    ("S-P O E-P", "BILOU", [0, 2]),
]


@pytest.mark.parametrize(("tags", "scheme", "positions"), FAULTS)
def test_faults_by_hand(tags: str, scheme: Scheme, positions: list[int]) -> None:
    found = illegal_tags(tags.split(), scheme=scheme)
    assert [each.position for each in found] == positions
    assert all(each.tag == tags.split()[each.position] and each.why for each in found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_tags_without_a_fault_read_alike_and_survive_being_written(scheme: Scheme) -> None:
    generator, legal = random.Random(4), 0
    for _ in range(2000):
        tags = random_tags(generator, scheme, types="PL")[:6]
        kept = convert_tags(tags, from_scheme=scheme, to_scheme=scheme) == tags
        assert kept == (not illegal_tags(tags, scheme=scheme)), tags
        if kept:
            legal += 1
            spans = [read_spans(tags, scheme=scheme, strict=strict) for strict in (True, False)]
            assert spans[0] == spans[1]
    assert legal > 100


def test_a_tag_of_no_scheme_is_a_fault_and_what_follows_is_as_behind_o() -> None:
    found = illegal_tags(["B-P", "X-P", "I-P", 7], scheme="BIO")
    assert [(each.position, each.why) for each in found] == [
        (1, "no tag of BIO"),
        (2, "behind O, where it continues nothing"),
        (3, "no tag of BIO"),
    ]


def test_the_error_names_sentence_position_tag_and_cure() -> None:
    check_tags([["O", "B-P"], []])
    with pytest.raises(DataError) as caught:
        check_tags([["O"], ["O", "I-P"]], ids=["a7", "b9"])
    assert str(caught.value) == (
        "1 tag cannot stand in BIO: sentence b9, word 2, tag 'I-P': behind O, where it "
        "continues nothing. All of them can in IOB1: read them as such."
    )
    with pytest.raises(DataError, match="sentence 0, word 1, tag 'I-P': at the beginning"):
        check_tags([["I-P", "O", "B-P"]])
    with pytest.raises(DataError, match=r"tag 'B-P': no I-P or E-P follows\. All .* can in BIO"):
        check_tags([["B-P"]], scheme="BIOES")
    with pytest.raises(DataError, match=r"no I-P or L-P follows\. All .* can in BIO"):
        check_tags([["B-P"]], scheme="BILOU")
    with pytest.raises(DataError, match=r"no tag of BIO\. All of them can in BILOU"):
        check_tags([["B-P", "L-P"]])
    with pytest.raises(DataError, match=r"9 tags .*word 5, .*; 4 more\. Write O, or one of B-"):
        check_tags([["I-P", "O"] * 8 + ["Q"]])
    with pytest.raises(
        DataError, match=r"Mend the file: kernel_lib\.metrics\.tags\.convert_tags\("
    ):
        check_tags([["I-P", "O", "B-P"]])


def test_types_that_there_are_not_are_refused() -> None:
    check_tags([["B-P", "I-P", "O"]], types=["P", "L"])
    with pytest.raises(DataError, match=r"word 3, tag 'B-Q': its type is none of L, P\. Mend"):
        check_tags([["B-P", "I-P", "B-Q"]], types=["P", "L"])


def test_one_tag_behind_another() -> None:
    assert is_legal(None, "B-P") and is_legal("B-P", None) and not is_legal(None, "I-P")
    assert not is_legal("B-P", None, scheme="BIOES") and is_legal("E-P", None, scheme="BIOES")
    assert not is_legal("B-creative-work", "I-creative")
    assert is_legal("B-P", "I-L", scheme="IOB1") and not is_legal("I-L", "B-P", scheme="IOB1")
    with pytest.raises(DataError, match="no tag of BIO"):
        is_legal("O", "E-P")
    with pytest.raises(SettingsError, match="scheme"):
        is_legal("O", "O", scheme="IO")
