"""Corrections read back as a table, and told in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kernel_lib.artifacts import Run
from kernel_lib.errors import ArtifactError
from kernel_lib.results.corrections import (
    decoding_text,
    read_corrections,
    read_predicted,
    scores_text,
)


def test_what_was_written_is_read_back_as_a_table(correct, spelling_runs) -> None:
    rows = correct()
    frame = read_predicted(correct.settings)
    assert frame["corrected"].tolist() == [row["corrected"] for row in rows]
    assert [[vars(change) for change in made] for made in frame["changes"]] == [
        row["changes"] for row in rows
    ]
    assert "target" not in frame
    oof = read_corrections(spelling_runs[1])
    assert set(oof["fold"]) == {0, 2} and "proposals" not in oof
    assert "strict" in scores_text(oof)


def test_a_decoding_is_told_in_words(spelling_runs) -> None:
    def told(**record: Any) -> str:
        return decoding_text(Run(Path("run"), record))

    whole = {"threshold": 0.5, "chinese_only": True, "confusion_only": True, "passes": 2}
    assert told() == told(decoding={}) != ""
    assert told(decoding=whole, decoding_f1=0.25) == (
        "changed with a probability of 0.5 or more, Chinese characters only, within the confusion "
        "set, 2 passes; strict correction F1 of folds left out of it: 0.2500"
    )
    other = {**whole, "chinese_only": False, "confusion_only": False, "passes": 1}
    assert told(decoding=other, decoding_f1=None) == (
        "changed with a probability of 0.5 or more, any character, 1 pass"
    )
    assert decoding_text(spelling_runs[0]).startswith("changed with a probability of ")
    with pytest.raises(ArtifactError, match="the decoding in it is damaged"):
        told(decoding={"threshold": "much"})


def test_a_run_without_a_finished_fold_has_no_corrections(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no finished fold yet"):
        read_corrections(Run(tmp_path, {"settings": {}}))
