"""`make demo` from its own material to its last line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel_lib.errors import KernelLibError
from kernel_lib.offline import demo
from kernel_lib.offline.home_tasks import TASKS
from kernel_lib.runtime.files import write_json


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
    with pytest.raises(KernelLibError, match="does not beat predicting the mean"):
        demo._print_outcome(tmp_path, TASKS["fb3"], 1.0)


def test_the_stand_in_of_kaggle_has_data_and_backbone_among_its_inputs(tmp_path: Path) -> None:
    demo.make_kaggle_tree(tmp_path, TASKS["fb3"], train_rows=60, test_rows=3)
    found = {path.name for path in (tmp_path / "input").rglob("*") if path.is_file()}
    assert {"train.csv", "test.csv", "sample_submission.csv", "spm.model", "config.json"} <= found


@pytest.mark.parametrize("score", [0.25, 0.0])
def test_the_outcome_of_csc_is_told_by_its_own_score_beside_changing_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], score: float
) -> None:
    parts = {"rows": 300, "scores": {"fpr": 0.5, "correction_f1": score}}
    record = {"score_name": "correction_f1", "folds": [{"fold": 0, **parts}], "pooled": parts}
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run/run.json", record)
    if score:
        demo._print_outcome(tmp_path, TASKS["csc"], 1.0)
    else:
        with pytest.raises(
            KernelLibError, match=r"correction_f1 \(0\.0000\) does not beat changing"
        ):
            demo._print_outcome(tmp_path, TASKS["csc"], 1.0)
    assert capsys.readouterr().out.splitlines()[1:4] == [
        "fold  rows  correction_f1",
        f"   0   300{score:>15.4f}",
        f" all   300{score:>15.4f}   changing nothing: 0.0000",
    ]


def test_an_unknown_task_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "keep").touch()
    monkeypatch.setattr("sys.argv", ["demo", str(tmp_path), "--task", "csv"])
    assert demo.main() == 1 and (tmp_path / "keep").exists()
    assert "there is no task 'csv'" in capsys.readouterr().err
