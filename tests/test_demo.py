"""`make demo` from its own material to its last line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import KernelLibError
from kernel_lib.offline import demo


def test_the_outcome_names_table_submission_and_report(
    make_case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case(epochs=6, learning_rate=2e-2, head_learning_rate=2e-2, max_length=128)
    case.cross_validate()
    try:
        demo._print_outcome(tmp_path, 61.0)
    except KernelLibError as error:
        assert "does not beat the mean" in str(error)
    out = capsys.readouterr().out
    assert f"{tmp_path}/submission.csv" in out and "done in 1 min 01 s" in out
    assert "predicting the mean: " in out


def test_a_model_that_learned_nothing_fails_the_demo(make_case, tmp_path: Path) -> None:
    case = make_case(learning_rate=1e-9, head_learning_rate=1e-9, fgm_epsilon=0)
    case.cross_validate()
    with pytest.raises(KernelLibError, match="does not beat the mean"):
        demo._print_outcome(tmp_path, 1.0)


def test_the_stand_in_of_kaggle_has_data_and_backbone_among_its_inputs(tmp_path: Path) -> None:
    demo.make_kaggle_tree(tmp_path, train_rows=60, test_rows=3)
    found = {path.name for path in (tmp_path / "input").rglob("*") if path.is_file()}
    assert {"train.csv", "test.csv", "sample_submission.csv", "spm.model", "config.json"} <= found
