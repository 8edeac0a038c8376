"""All folds of a run: complete, resumable, repeatable, and never mixed with another run."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from kernel_lib.artifacts import open_run
from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.clock import Clock
from kernel_lib.text.batches import collate_to
from kernel_lib.training import shares
from kernel_lib.training.record import score_table
from kernel_lib.training.state import RESUME


def read_oof(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "oof.csv", dtype={"text_id": str})


def test_a_run_leaves_what_inference_and_people_need(make_case, tmp_path: Path) -> None:
    case = make_case()
    run = case.cross_validate()
    folder = tmp_path / "run"
    assert run.finished_folds() == [0, 1]
    for fold in (0, 1):
        names = {path.name for path in (folder / f"fold{fold}").iterdir()}
        assert names == {
            "model.safetensors",
            "config.json",
            "manifest.json",
            "oof.csv",
            "log.jsonl",
        }
    assert not list(folder.rglob("*.tmp"))

    oof = read_oof(folder)
    assert sorted(oof["text_id"]) == sorted(example.id for example in case.examples)
    folds = pd.read_csv(folder / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    assert (oof["fold"] == folds.loc[oof["text_id"]].to_numpy()).all()
    by_id = {example.id: example.target for example in case.examples}
    targets = case.task.settings.target_columns
    for _, row in oof.iterrows():
        true = row[[f"true_{name}" for name in targets]].to_numpy(float)
        assert np.allclose(true, by_id[row["text_id"]])

    record = json.loads((folder / "run.json").read_text())
    assert record["pooled"]["scores"] == pytest.approx(case.task.scores(oof))
    assert record["pooled"]["standard_error"] > 0
    assert record["settings"] == json.loads(json.dumps(case.task.settings.to_dict()))
    assert list(score_table(run).index) == [0, 1, "all"]


def test_nothing_is_pickled(trained) -> None:
    suffixes = {path.suffix for path in trained().rglob("*") if path.is_file()}
    assert suffixes == {".json", ".jsonl", ".csv", ".safetensors"}


def test_run_again_trains_nothing_and_changes_nothing(make_case, tmp_path: Path) -> None:
    make_case().cross_validate()
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    make_case().cross_validate(clock=Clock(0.0))  # no time to train a single step
    assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}


def test_folds_trained_in_two_sessions_equal_those_of_one(
    make_case, trained, own_run, tmp_path: Path
) -> None:
    own_run(folds=(1,))
    make_case(folds=(0,)).cross_validate()
    for fold in (0, 1):
        once = load_file(trained() / f"fold{fold}/model.safetensors")
        twice = load_file(tmp_path / f"run/fold{fold}/model.safetensors")
        assert all(np.array_equal(once[name], twice[name]) for name in once)
    assert read_oof(trained()).equals(read_oof(tmp_path / "run"))


def test_a_run_stopped_by_the_clock_goes_on(make_case, trained, tmp_path: Path) -> None:
    run = make_case().cross_validate(clock=Clock(0.0))
    assert run.finished_folds() == []
    assert (tmp_path / "run/fold0" / RESUME).is_file()
    run = make_case().cross_validate()
    assert run.finished_folds() == [0, 1]
    assert not (tmp_path / "run/fold0" / RESUME).exists()
    assert read_oof(tmp_path / "run").equals(read_oof(trained()))


def test_resume_from_an_attached_run_folder(make_case, own_run, tmp_path: Path) -> None:
    own_run("attached", folds=(0,))
    run = make_case(resume_from=str(tmp_path / "attached")).cross_validate()
    assert run.folder == tmp_path / "run"
    assert run.finished_folds() == [0, 1]
    assert open_run(tmp_path / "attached").finished_folds() == [0]


def test_other_settings_in_the_same_folder_are_refused_by_name(make_case, own_run) -> None:
    own_run(folds=(0,))
    with pytest.raises(ArtifactError, match=r"dropout was 0\.0, is 0\.1"):
        make_case(dropout=0.1).cross_validate()


def test_other_data_in_the_same_folder_is_refused(make_case, own_run) -> None:
    own_run(folds=(0,))
    case = make_case()
    case.examples[3].target[0] += 0.5
    with pytest.raises(ArtifactError, match="other data"):
        case.cross_validate()


def test_a_fold_of_another_run_is_refused(make_case, own_run, tmp_path: Path) -> None:
    own_run()
    own_run("other", seed=7, folds=(1,))
    (tmp_path / "run/fold1").rename(tmp_path / "gone")
    (tmp_path / "other/fold1").rename(tmp_path / "run/fold1")
    with pytest.raises(ArtifactError, match="belongs to run"):
        make_case().cross_validate()


def test_a_full_disk_ends_in_one_message_with_nothing_half_written(
    make_case, tmp_path: Path
) -> None:
    case = make_case()
    folder = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    case.cross_validate(clock=Clock(0.0))
    (folder / "fold0" / RESUME).unlink()
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # smaller than a fold's weights
    try:
        with pytest.raises(ArtifactError, match=r"could not write .*model\.safetensors"):
            case.cross_validate()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((folder / "fold0").iterdir()) == []
    assert open_run(folder).finished_folds() == []
    assert case.cross_validate().finished_folds() == [0, 1]  # once there is space


def test_debug_is_small(make_case) -> None:
    case = make_case(debug=True, n_folds=4, epochs=5)
    run = case.cross_validate()
    assert run.finished_folds() == [0, 1]
    assert run.record["settings"]["epochs"] == 1
    assert run.folder.name == "run-debug"  # never taken for the real one


def test_no_fold_is_begun_when_the_time_is_up(make_case, own_run, tmp_path: Path) -> None:
    own_run(folds=(0,))
    make_case().cross_validate(clock=Clock(0.0))
    assert not (tmp_path / "run/fold1").exists()


def test_each_fold_learns_from_each_row_of_the_others_once_an_epoch(
    make_case, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[str] = []

    def noting(examples, pad_id, device):
        learned.extend(example.id for example in examples)
        return collate_to(examples, pad_id, device)

    monkeypatch.setattr(shares, "collate_to", noting)  # prediction has another
    case = make_case(epochs=2, folds=(1,), batch_size=3, gradient_accumulation_steps=2)
    case.cross_validate()
    others = [e.id for e, at in zip(case.examples, case.folds, strict=True) if at != 1]
    first, second = learned[: len(others)], learned[len(others) :]
    assert sorted(first) == sorted(second) == sorted(others)
    assert first != second


class SlowFolds:
    """A time that only forward passes move on, a second each: 9 s for a fold of three with FGM."""

    def __init__(self, case) -> None:
        self.moment, self.pass_seconds = 0.0, 1.0
        self.build_model = case.task.build_model
        case.task.build_model = self._build

    def clock(self, budget_seconds: float) -> Clock:
        return Clock(budget_seconds, now=lambda: self.moment)

    def _build(self, *args):
        model = self.build_model(*args)
        model.register_forward_pre_hook(self._work)
        return model

    def _work(self, model, inputs) -> None:
        self.moment += self.pass_seconds


def test_a_fold_that_would_not_fit_is_not_begun(make_case, tmp_path: Path, capsys) -> None:
    case = make_case(n_folds=3, fgm_epsilon=0.2)
    folds = SlowFolds(case)
    assert case.cross_validate(clock=folds.clock(25)).finished_folds() == [0, 1]
    assert folds.moment == 18
    assert not (tmp_path / "run/fold2").exists()
    line = (
        "fold 2: not begun, a fold takes about 9 s and 7 s are left; attach this output and set "
        "resume_from to go on"
    )
    assert line in capsys.readouterr().out
    late = folds.clock(25)
    folds.moment += 18
    assert case.cross_validate(clock=late).finished_folds() == [0, 1]  # known from the manifests
    assert line in capsys.readouterr().out
    assert case.cross_validate(clock=folds.clock(25)).finished_folds() == [0, 1, 2]


def test_what_this_session_took_counts_more_than_what_an_earlier_one_did(make_case) -> None:
    case = make_case(n_folds=3, fgm_epsilon=0.2)
    folds = SlowFolds(case)
    folds.pass_seconds = 3.0
    assert case.cross_validate(clock=folds.clock(35)).finished_folds() == [0]
    folds.pass_seconds = 1.0  # a faster GPU
    clock = folds.clock(100)
    folds.moment += 70
    assert case.cross_validate(clock=clock).finished_folds() == [0, 1, 2]


def test_each_session_says_once_what_all_its_folds_take(make_case, capsys) -> None:
    case = make_case(n_folds=3, batch_size=2, fgm_epsilon=0)
    folds = SlowFolds(case)
    case.cross_validate(clock=folds.clock(25))
    case.cross_validate(clock=folds.clock(1000))
    lines = [line for line in capsys.readouterr().out.splitlines() if " s more" in line]
    assert [line.split("all ")[1].split()[0] for line in lines] == ["3", "2"]
    assert lines[0].startswith("THE TIME BUDGET IS TOO SHORT: fold 0 takes about 6 s more")
    assert "1 of 3 folds will be finished; then attach this output" in lines[0]


def test_a_fold_too_long_for_any_session_is_begun_all_the_same(make_case, tmp_path) -> None:
    case = make_case(n_folds=3, fgm_epsilon=0.2)
    folds = SlowFolds(case)
    assert case.cross_validate(clock=folds.clock(13)).finished_folds() == [0]
    sessions = 0
    while len(case.cross_validate(clock=folds.clock(7)).finished_folds()) < 3:
        sessions += 1
        assert sessions < 10


def test_of_a_fold_that_was_stopped_only_the_rest_must_fit(make_case, capsys) -> None:
    case = make_case(n_folds=3, fgm_epsilon=0.2)
    folds = SlowFolds(case)
    case.cross_validate(clock=folds.clock(14))  # the first fold
    case.cross_validate(clock=folds.clock(5))  # two of the second one's four batches
    capsys.readouterr()
    for left, begun in ((3, False), (5, True)):
        clock = folds.clock(100)
        folds.moment += 100 - left
        run = case.cross_validate(clock=clock)
        assert run.finished_folds() == ([0, 1] if begun else [0])
        said = "fold 1: not begun, the rest of it takes about 4 s and 3 s are left; attach"
        assert (said in capsys.readouterr().out) is not begun


def test_a_fold_that_was_stopped_says_itself_how_long_it_takes(make_case, capsys) -> None:
    case = make_case(n_folds=3, fgm_epsilon=0.2)
    folds = SlowFolds(case)
    case.cross_validate(clock=folds.clock(5))
    clock = folds.clock(100)
    folds.moment += 97
    assert case.cross_validate(clock=clock).finished_folds() == []
    assert "fold 0: not begun, the rest of it takes about 4 s" in capsys.readouterr().out


def test_a_clock_that_is_over_begins_nothing_where_something_was_begun_before(
    make_case, tmp_path: Path, capsys
) -> None:
    case = make_case()
    assert case.cross_validate(clock=Clock(0.0)).finished_folds() == []
    state = tmp_path / "run/fold0" / RESUME
    before = state.read_bytes(), state.stat().st_mtime_ns
    case.cross_validate(clock=Clock(0.0))
    assert (state.read_bytes(), state.stat().st_mtime_ns) == before
    assert "fold 0: not begun, the time budget is used up; attach" in capsys.readouterr().out
