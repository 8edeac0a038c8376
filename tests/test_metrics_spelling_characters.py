"""Texts side by side: what lines up, what the particles' options change, what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.metrics.spelling_characters import Characters, align


def predicted(characters: Characters) -> str:
    return "".join(map(chr, characters.prediction))


def test_characters_keep_their_sentence_and_empty_sentences_count() -> None:
    characters = align(["", "ab", "", "c", ""], ["", "xb", "", "c", ""], ["", "xb", "", "d", ""])
    assert characters.sentences == 5
    assert characters.sentence.tolist() == [1, 1, 3]
    assert characters.wrong.tolist() == [True, False, False]
    assert characters.changed.tolist() == [True, False, True]
    assert characters.right.tolist() == [True, True, False]
    assert characters.sentences_with(characters.changed).tolist() == [0, 1, 0, 1, 0]


def test_the_same_character_in_two_sentences_is_two_things() -> None:
    # The last character of Unicode, and one that stands 65,536 places behind "a".
    texts = ["ab\U0010ffff", "\U00010061\0", "a"]
    characters = align(texts, texts, texts)
    assert len(np.unique(characters.in_sentence(characters.source))) == 6


def test_a_character_is_one_code_point_even_half_a_surrogate() -> None:
    # The halves end one text and begin the next: put together they would make one character.
    texts = ["\U00020000a\ud83d", "\ude00é", "e\u0301"]
    characters = align(texts, texts, texts)
    assert characters.sentence.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert characters.right.all()
    assert characters.source[0] == 0x20000 and characters.source[2] == 0xD83D


@pytest.mark.parametrize(
    ("particles", "expected"),
    [
        ("as they are", "地得的地了坐"),
        # A change into 地 or 得 is taken back, one into 的 and any other stays.
        ("drop_predicted", "的的的好了坐"),
        # Where 的, 地 or 得 is right it is given, whatever was predicted; else nothing happens.
        ("give_gold", "的地得地得坐"),
    ],
)
def test_what_each_option_does_about_the_particles(particles, expected) -> None:
    source, target, prediction = "的的地好地作", "的地得好得坐", "地得的地了坐"
    assert predicted(align([source], [target], [prediction], particles=particles)) == expected


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        SettingsError, match=r"'drop'.*'as they are', 'drop_predicted', 'give_gold'"
    ):
        align(["a"], ["a"], ["a"], particles="drop")


def test_sentences_of_unequal_length_are_named_not_dropped() -> None:
    sources = ["ab"] * 9
    targets = ["ab", "abc", *["ab"] * 7]
    predictions = ["ab", "ab", "a", *["abcd"] * 5, "ab"]
    with pytest.raises(DataError) as caught:
        align(sources, targets, predictions)
    message = str(caught.value)
    assert message.startswith("7 of 9 sentences")
    assert "index 1: source 2, target 3, prediction 2; index 2: source 2, target 2" in message
    assert re.findall(r"index (\d)", message) == ["1", "2", "3", "4", "5"]
    assert "; 2 more)" in message


@pytest.mark.parametrize("short", [0, 1, 2])
def test_lists_of_unequal_length_are_refused(short) -> None:
    lists = [["a", "b"], ["a", "b"], ["a", "b"]]
    lists[short] = ["a"]
    with pytest.raises(DataError, match=r"[12] sources, [12] targets, [12] predictions"):
        align(*lists)


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="no sentence"):
        align([], [], [])


def test_what_is_no_list_of_strings_is_refused() -> None:
    with pytest.raises(DataError, match="target 1 is nan"):
        align(["a", "b"], ["a", float("nan")], ["a", "b"])
    with pytest.raises(DataError, match="predictions are one string"):
        align(["a", "b"], ["a", "b"], "ab")
