"""Which files a run reads: the one usual name that is there, labels that tell files apart."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.tasks.input_files import find_test, join_files, labels_of

USUAL = ("test.csv", "test.jsonl")


def find(folder: Path, *given: str) -> tuple[Path, tuple[str, ...], Path | None]:
    return find_test(given, USUAL, data_dir=str(folder), dataset="data", what="texts")


def test_the_one_usual_file_is_taken_with_the_sample_beside_it(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").touch()
    assert find(tmp_path) == (tmp_path, ("test.jsonl",), None)
    (tmp_path / "sample_submission.csv").touch()
    assert find(tmp_path)[2] == tmp_path / "sample_submission.csv"


def test_none_or_several_usual_files_are_an_error_that_names_the_cure(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no test file: one of test\.csv, test\.jsonl.*test_files"):
        find(tmp_path)
    for name in USUAL:
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"holds test\.csv and test\.jsonl"):
        find(tmp_path)
    assert find(tmp_path, "test.csv")[1] == ("test.csv",)


def test_files_are_called_by_their_stem_unless_another_has_it() -> None:
    assert labels_of(["a.csv", "b/a.tsv", "c.csv"]) == ["a.csv", "b/a.tsv", "c"]


def test_ids_of_several_files_stay_apart_and_half_a_truth_is_none() -> None:
    one, two = pd.DataFrame({"id": ["1"], "target": ["x"]}), pd.DataFrame({"id": ["1"]})
    joined = join_files([one, two], ["a.csv", "b.csv"], "target")
    assert joined["id"].tolist() == ["a/1", "b/1"] and "target" not in joined
    assert join_files([one], ["a.csv"], "target").equals(one)
