"""Folds of several notebooks in one run folder, as if one had trained them all."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kernel_lib.artifacts import OOF, WEIGHTS
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runs import merge
from kernel_lib.runs.merge import main, merge_runs
from kernel_lib.runtime.files import sha256


@pytest.fixture
def session(trained: Callable[..., Path]) -> Callable[..., Path]:
    """Gives the run folder of a notebook that was asked for some folds, to be read only."""
    return lambda *folds, **changes: trained(n_folds=3, folds=folds, **changes)


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing it takes as long as all the rest."""
    monkeypatch.setattr(merge, "write_report", lambda run: run.folder)


def without_times(record: Any) -> Any:
    """A record but for what differs between any two runs."""
    if isinstance(record, dict):
        drop = ("seconds", "peak_memory_bytes", "output_dir")
        return {key: without_times(part) for key, part in record.items() if key not in drop}
    return [without_times(part) for part in record] if isinstance(record, list) else record


def submission(runs: tuple[Path, ...], material, path: Path) -> bytes:
    settings = InferenceSettings(
        runs=tuple(map(str, runs)),
        data_dir=str(material.competition),
        submission=str(path),
        precision="float32",
    )
    return predict_submission(settings).read_bytes()


def test_merged_folds_are_the_run_of_one_notebook(session, material, tmp_path: Path) -> None:
    parts, whole = (session(2), session(0), session(1)), session()
    merged = merge_runs(parts, tmp_path / "out/run")
    assert merged.finished_folds() == [0, 1, 2]
    for fold in range(3):
        one, two = (folder / f"fold{fold}" / WEIGHTS for folder in (whole, merged.folder))
        assert sha256(one) == sha256(two)
    assert (merged.folder / OOF).read_bytes() == (whole / OOF).read_bytes()
    one, two = (json.loads((folder / "run.json").read_text()) for folder in (whole, merged.folder))
    assert without_times(one) == without_times(two)  # all folds, as if they had been asked for
    page = (merged.folder / "report.html").read_text()
    assert "3 of 3" in page
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["run"]

    expected = submission((merged.folder,), material, tmp_path / "merged.csv")
    assert submission(parts, material, tmp_path / "parts.csv") == expected  # side by side, too


def test_training_goes_on_from_several_notebooks(session, make_case, tmp_path: Path) -> None:
    earlier = (str(session(2)), str(session(0)))
    run = make_case(
        n_folds=3, resume_from=earlier, output_dir=str(tmp_path / "run")
    ).cross_validate()
    assert run.finished_folds() == [0, 1, 2]
    assert (run.folder / OOF).read_bytes() == (session() / OOF).read_bytes()


def test_a_part_of_the_folds_is_a_run_that_was_asked_for_these(
    session, without_report, tmp_path: Path
) -> None:
    merged = merge_runs([session(2), session(0)], tmp_path / "run")
    assert merged.record["settings"]["folds"] == (0, 2)
    assert len(pd.read_csv(merged.folder / OOF)) == merged.record["pooled"]["rows"] < 40


def test_another_run_is_refused_by_what_differs(session, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"are not of one run: epochs was 1, is 2\."):
        merge_runs([session(0), session(1, epochs=2)], tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_fold_is_refused_and_nothing_is_left(session, tmp_path: Path) -> None:
    damaged = shutil.copytree(session(0), tmp_path / "damaged")
    weights = damaged / "fold0" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"fold0.*is not the file"):
        merge_runs([session(2), damaged], tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_what_is_there_is_not_written_over(session, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ArtifactError, match="is there already"):
        merge_runs([session(0), session(2)], tmp_path / "run")


def test_the_command_says_what_it_made(
    session, without_report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    command = ["merge", str(session(2)), str(session(0)), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", command)
    assert main() == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'run'}: folds 0, 2 of 3\nCV mcrmse " in out
    assert main() == 1
    assert "ArtifactError: " in capsys.readouterr().err
