"""`make demo` from its own material to its last line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import KernelLibError
from kernel_lib.offline import demo


def test_the_demo_ends_with_table_submission_and_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo.run_demo(tmp_path / "demo", train_rows=120)
    out = capsys.readouterr().out
    table = out[out.index("\nfold  rows  mcrmse") :]
    assert "predicting the mean: " in table and "done in " in table
    for name in ("submission.csv", "run/report.html"):
        path = tmp_path / "demo/working" / name
        assert str(path) in table and path.is_file()


def test_a_model_that_learned_nothing_fails_the_demo(make_case, tmp_path: Path) -> None:
    case = make_case(learning_rate=1e-9, head_learning_rate=1e-9, fgm_epsilon=0)
    case.cross_validate()
    with pytest.raises(KernelLibError, match="does not beat the mean"):
        demo._print_outcome(tmp_path, 1.0)


def test_the_stand_in_of_kaggle_has_data_and_backbone_among_its_inputs(tmp_path: Path) -> None:
    demo.make_kaggle_tree(tmp_path, train_rows=60, test_rows=3)
    found = {path.name for path in (tmp_path / "input").rglob("*") if path.is_file()}
    assert {"train.csv", "test.csv", "sample_submission.csv", "spm.model", "config.json"} <= found
