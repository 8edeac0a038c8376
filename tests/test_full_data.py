"""The model of all rows: one more fold for inference, and none for the score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kernel_lib.artifacts import MANIFEST, open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.results import plots, report, report_regression
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.results.report import write_report
from kernel_lib.runs.half import write_half_copy
from kernel_lib.runs.merge import merge_runs
from kernel_lib.runtime.clock import Clock
from kernel_lib.text.batches import collate_to
from kernel_lib.training import fold_work, shares
from kernel_lib.training.record import score_line, score_table
from kernel_lib.training.state import RESUME
from tests.test_crossval import SlowFolds
from tests.test_ensemble import predict_one_by_one
from tests.test_origins import equal, weights


def test_it_learns_from_all_rows_and_changes_no_fold_and_no_score(
    make_case, trained, own_run, monkeypatch: pytest.MonkeyPatch, tmp_path, capsys
) -> None:
    learned: list[str] = []

    def noting(examples, pad_id, device):
        learned.extend(example.id for example in examples)
        return collate_to(examples, pad_id, device)

    folder = own_run()
    monkeypatch.setattr(shares, "collate_to", noting)
    case = make_case(full_data=True)
    full = case.cross_validate()  # the folds are there already: it is a setting of inference only
    assert full.id == open_run(trained()).id
    assert (full.finished_folds(), full.finished_models()) == ([0, 1], [0, 1, 2])
    assert sorted(learned) == sorted(example.id for example in case.examples)
    for fold in (0, 1):
        assert equal(weights(folder, fold), weights(trained(), fold))
        assert not equal(weights(folder, 2), weights(folder, fold))
    before, after = open_run(trained()).record, full.record
    assert after["pooled"] == before["pooled"] and after["folds"] == before["folds"]
    assert [entry["fold"] for entry in after["full_data"]] == [2]
    assert (folder / "oof.csv").read_bytes() == (trained() / "oof.csv").read_bytes()
    assert list(score_table(full).index) == [0, 1, "all"]
    assert "2 folds" in score_line(full) and score_line(full).endswith("all rows, not scored")
    said = capsys.readouterr().out
    state = {path: path.stat().st_mtime_ns for path in folder.rglob("fold*/*")}
    again = make_case(full_data=True).cross_validate(clock=Clock(0.0))  # nothing is left to train
    assert again.finished_models() == [0, 1, 2]
    assert state == {path: path.stat().st_mtime_ns for path in folder.rglob("fold*/*")}
    assert "fold 2: finished before, on all rows" in capsys.readouterr().out
    assert "fold 2" in said


def test_inference_takes_the_mean_with_it(trained, material, tmp_path) -> None:
    folder = trained(full_data=True)
    settings = InferenceSettings(
        runs=(str(folder),),
        data_dir=str(material.competition),
        submission=str(tmp_path / "submission.csv"),
        precision="float32",
    )
    found = pd.read_csv(predict_submission(settings), dtype={"text_id": str}).set_index("text_id")
    for folds, same in (((0, 1, 2), True), ((0, 1), False)):
        plain = predict_one_by_one(folder, material.competition, folds).set_index("text_id")
        expected = plain.loc[found.index, found.columns]
        assert np.allclose(found, expected, atol=1e-5) is same


def test_stopped_by_the_clock_it_goes_on_bit_for_bit(make_case, tmp_path, capsys) -> None:
    alone = {"folds": (2,), "full_data": True, "batch_size": 2, "evals_per_epoch": 2}
    unbroken = make_case(output_dir=str(tmp_path / "unbroken"), **alone).cross_validate()
    assert unbroken.finished_models() == [2]
    case = make_case(**alone)
    slow, sessions = SlowFolds(case), 0
    while not case.cross_validate(clock=slow.clock(9)).finished_models():
        assert (tmp_path / "run/fold2" / RESUME).is_file()
        sessions += 1
        assert sessions < 10
    assert sessions > 1
    assert equal(weights(tmp_path / "run", 2), weights(tmp_path / "unbroken", 2))
    assert not (tmp_path / "run/fold2" / RESUME).exists()
    assert "no fold is finished yet" in score_line(unbroken)


def test_it_keeps_its_last_weights_or_their_average(make_case, tmp_path) -> None:
    found = []
    for name, more in (
        ("plain", {}),
        ("best", {"keep": "best"}),
        ("mean", {"averaging": "ema", "ema_decay": 0.5}),
    ):
        alone = {"folds": (2,), "full_data": True, "batch_size": 20, "fgm_epsilon": 0.0}
        make_case(output_dir=str(tmp_path / name), **alone, **more).cross_validate()
        found.append(weights(tmp_path / name, 2))
    assert equal(found[0], found[1]) and not equal(found[0], found[2])


def test_sessions_are_joined_with_it(make_case, trained, tmp_path, monkeypatch) -> None:
    for name in (name for name in dir(plots) if name.startswith("plot_")):  # these take long
        monkeypatch.setattr(plots, name, lambda *_: None)
    for module in (report, report_regression):
        monkeypatch.setattr(module, "figure", lambda *_: "")
    other = make_case(output_dir=str(tmp_path / "b"), folds=(2,), full_data=True).cross_validate()
    joined = merge_runs([trained(), other.folder], tmp_path / "joined")
    assert joined.finished_models() == [0, 1, 2]
    assert joined.record["settings"]["full_data"] is True
    assert joined.record["settings"]["folds"] == ()
    assert equal(weights(joined.folder, 2), weights(other.folder, 2))
    page = (tmp_path / "joined/report.html").read_text(encoding="utf-8")
    assert "2 of 2" in page and "Not finished" not in page
    with pytest.raises(ArtifactError, match="no finished fold"):
        write_report(other)


def test_the_half_copy_has_it_too(trained, material, tmp_path) -> None:
    changes = write_half_copy(trained(full_data=True), tmp_path / "half", str(material.competition))
    assert [change.fold for change in changes] == [0, 1]
    whole, half = weights(trained(full_data=True), 2), weights(tmp_path / "half", 2)
    assert all(np.array_equal(whole[name].astype(np.float16), half[name]) for name in whole)


def test_lost_on_the_way_it_is_missed(own_run, material, tmp_path) -> None:
    folder = own_run("lost", full_data=True)
    (folder / "fold2" / MANIFEST).unlink()
    settings = InferenceSettings(
        runs=(str(folder),),
        data_dir=str(material.competition),
        submission=str(tmp_path / "submission.csv"),
    )
    with pytest.raises(ArtifactError, match=r"fold2/manifest\.json is missing"):
        predict_submission(settings)


def test_its_number_is_no_fold_without_it(make_case) -> None:
    with pytest.raises(SettingsError, match="2 is the model of all rows, with full_data=True"):
        make_case(folds=(2,))
    assert make_case(folds=(1,), full_data=True).task.settings.wanted_models == (1, 2)


@pytest.mark.parametrize("kind", ["make_spelling_case", "make_entity_case"])
def test_other_tasks_have_it_too(request, kind: str, tmp_path) -> None:
    case = request.getfixturevalue(kind)(full_data=True, batch_size=16)
    full = case.cross_validate()
    assert full.finished_models() == [0, 1, 2]
    oof = pd.read_csv(full.folder / "oof.csv", dtype=str, keep_default_na=False)
    texts = [example.id for example in case.examples if not example.start]
    assert sorted(oof.iloc[:, 0]) == sorted(texts)


def test_a_second_stage_has_one_that_begins_with_the_first_ones(
    make_case, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, first = {}, trained(full_data=True)
    train = fold_work.FoldTrainer.train

    def noting(trainer):
        state = trainer.model.state_dict()
        began[trainer.fold] = {name: value.numpy().copy() for name, value in state.items()}
        return train(trainer)

    monkeypatch.setattr(fold_work.FoldTrainer, "train", noting)
    make_case(init_from=str(first), full_data=True, folds=(2,)).cross_validate()
    assert list(began) == [2] and equal(began[2], weights(first, 2))
