"""What is counted in a text without a model."""

from __future__ import annotations

import numpy as np
import pytest

from kernel_lib.text.hand_features import FEATURES, hand_features

TEXT = "i dont know , why.  He He said: “Go!” It's 7 Elephants\n\nbad,worse"


def counted(text: str) -> dict[str, float]:
    return dict(zip(FEATURES, hand_features([text])[0], strict=True))


def test_what_is_counted_can_be_counted_by_hand() -> None:
    found = counted(TEXT)
    # i dont know why He He said Go It's Elephants bad worse
    expected = {
        "words": 12,
        "log_words": np.log(13),
        "log_sentences": np.log(3),  # ".  " alone ends one: the quote stands behind "!"
        "log_paragraphs": np.log(3),
        "sentence_mean": (5 + 8) / 2,
        "sentence_spread": 1.5,
        "sentence_longest": 8,
        "word_mean": (1 + 4 + 4 + 3 + 2 + 2 + 4 + 2 + 4 + 9 + 3 + 5) / 12,
        "long_words": 1 / 12,
        "short_words": 6 / 12,
        "different_words": 11 / 12,
        "guiraud": 11 / 12**0.5,
        "commas": 2 / 12,
        "full_stops": 1 / 12,
        "loud_marks": 1 / 12,
        "fine_marks": 1 / 12,
        "apostrophes": 1 / 12,
        "quotes": 2 / 12,
        "digits": 1 / len(TEXT),
        "capitals": 5 / len(TEXT),
        "capital_words": 5 / 12,
        "small_i": 1 / 12,
        "small_starts": 1 / 2,
        "space_before_mark": 1 / 12,
        "no_space_after_mark": 1 / 12,
        "double_spaces": 1 / 12,
        "no_apostrophe": 1 / 12,
        "repeated_words": 1 / 12,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(FEATURES) - set(expected) == {"word_spread"}


def test_an_empty_text_has_numbers_too_and_rows_stay_in_order() -> None:
    found = hand_features(["", TEXT, " \n", "!!!"])
    assert found.shape == (4, len(FEATURES)) and np.isfinite(found).all()
    assert (found[1] == hand_features([TEXT])[0]).all() and not found[0].any()
    assert hand_features([]).shape == (0, len(FEATURES))
