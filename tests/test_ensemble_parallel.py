"""Inference on several devices: the same bytes as on one, written by one process alone.

The workers are forked from a server that has imported everything, as in
``test_crossval_parallel``.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import WEIGHTS
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import TrainingError
from kernel_lib.results import ensemble
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runtime import seat
from kernel_lib.tasks import regression
from kernel_lib.tasks.submission import check_submission


@pytest.fixture
def runs(own_run) -> tuple[str, str]:
    """A run of two folds and one of one, a test's own."""
    return str(own_run("a")), str(own_run("b", seed=3, folds=(0,)))


@pytest.fixture(autouse=True)
def quick_workers(runs, monkeypatch: pytest.MonkeyPatch) -> Any:
    import tests.killing  # noqa: F401  it tells the server what to import

    monkeypatch.setattr(seat, "START_METHOD", "forkserver")
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # one for each of two workers
    yield
    torch.set_num_threads(before)


def infer(runs: tuple[str, ...], material, path: Path, **changes: Any) -> Path:
    settings = InferenceSettings(
        runs=runs,
        data_dir=str(material.competition),
        submission=str(path),
        precision="float32",
        **{"devices": 2, **changes},
    )
    return predict_submission(settings)


def test_two_workers_give_the_bytes_of_one_process_and_a_better_file_each_time(
    runs, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    written: list[pd.DataFrame] = []
    write = regression.write_submission

    def noting(frame: pd.DataFrame, *args: Any, **options: Any) -> None:
        written.append(frame)
        write(frame, *args, **options)

    monkeypatch.setattr(regression, "write_submission", noting)
    torch.set_num_threads(1)
    one = infer(runs, material, tmp_path / "one.csv", devices=1)
    torch.set_num_threads(2)
    written.clear()
    capsys.readouterr()
    two = infer(runs, material, tmp_path / "two.csv")
    assert one.read_bytes() == two.read_bytes()
    assert len(written) == 1 + 3  # the means, then after each fold
    out, err = capsys.readouterr()
    for name in ("a fold 0", "a fold 1", "b fold 0"):
        assert f"{name}: on cpu\n" in out and f"{name}: 100% 7/7 " in err
    assert "folds used: a: 0 1; b: 0\n" in out


def test_a_fold_that_fails_leaves_the_others_in_the_file_and_is_raised_at_the_end(
    runs, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(ensemble, "read_manifest", lambda *_, **__: None)  # it breaks afterwards
    Path(runs[0], "fold0", WEIGHTS).write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"^a fold 0: ArtifactError: .*fold0.* is damaged"):
        infer(runs, material, tmp_path / "found.csv")
    out = capsys.readouterr().out
    assert "NOT ALL FOLDS: 1 of 3 failed; the submission holds the folds that were done" in out
    assert "folds used: a: 1 (0 FAILED); b: 0\n" in out
    check_submission(tmp_path / "found.csv", material.competition / "sample_submission.csv")
    shutil.rmtree(Path(runs[0], "fold0"))
    without = infer(runs, material, tmp_path / "without.csv", devices=1)
    found, expected = (pd.read_csv(p, index_col=0) for p in (tmp_path / "found.csv", without))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6)
