"""The texts of ``oof.csv`` stay what they are."""

from __future__ import annotations

import pytest

from kernel_lib.results.report_oof import read_texts


def test_texts_that_look_like_missing_values_or_numbers_stay_texts() -> None:
    frame = read_texts('id,text\n007,NA\nnan,"a\r\nb"\n1.0,\n', ["id", "text"])
    assert frame["id"].tolist() == ["007", "nan", "1.0"]
    assert frame["text"].tolist() == ["NA", "a\r\nb", ""]
    assert read_texts('id,text\n1,"a\0b"\n', ["id"])["text"].tolist() == ["a\0b"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="no column text, other"):
        read_texts("id\n1\n", ["id", "text", "other"])
    with pytest.raises(ValueError):
        read_texts("", ["id"])
