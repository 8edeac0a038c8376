"""A command ends with one line and a status, or with the traceback of a real bug."""

from __future__ import annotations

import pytest

from kernel_lib.errors import DataError
from kernel_lib.runtime.command import exit_status


def test_work_that_ends_well_is_0_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_an_error_that_can_be_cured_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> None:
        raise DataError("train.csv does not exist.")

    assert exit_status(fails) == 1
    assert capsys.readouterr() == ("", "DataError: train.csv does not exist.\n")


def test_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: print(1 / 0))
