"""Inference from run folders: valid from the first seconds, better with each fold, or a refusal."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import MANIFEST, TOKENIZER, WEIGHTS, load_weights, open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, DataError, SubmissionError
from kernel_lib.model.heads import PooledModel
from kernel_lib.results import ensemble
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.results.members import task_of
from kernel_lib.runtime.clock import Clock
from kernel_lib.tasks import regression
from kernel_lib.tasks.regression import RegressionTask
from kernel_lib.tasks.submission import check_submission
from kernel_lib.text.batches import collate
from kernel_lib.text.tokenizer import load_tokenizer
from kernel_lib.training.passes import predict_in_passes


@pytest.fixture
def run_folder(own_run) -> Path:
    return own_run()


def infer(
    run_folder: Path, data_dir: Path, tmp_path: Path, clock: Clock | None = None, **changes
) -> pd.DataFrame:
    settings = InferenceSettings(
        **{
            "runs": (str(run_folder),),
            "data_dir": str(data_dir),
            "submission": str(tmp_path / "submission.csv"),
            "precision": "float32",
            **changes,
        }
    )
    return pd.read_csv(predict_submission(settings, clock), dtype={"text_id": str})


def predict_one_by_one(
    run_folder: Path, data_dir: Path, folds: tuple[int, ...] = (0, 1)
) -> pd.DataFrame:
    """The same, the plain way: a text at a time, no padding, no sorting."""
    run = open_run(run_folder)
    task = task_of(run)
    tokenizer = load_tokenizer(run_folder / TOKENIZER)
    test = task.read_test(InferenceSettings(data_dir=str(data_dir))).frame
    total = 0.0
    for fold in folds:
        model = task.empty_model(run.fold_folder(fold)).eval()
        load_weights(model, run.fold_folder(fold) / WEIGHTS)
        with torch.no_grad():
            batches = [collate([e], tokenizer.pad_token_id) for e in task.encode(test, tokenizer)]
            values = [model(batch.input_ids, batch.attention_mask) for batch in batches]
        total = total + np.clip(torch.cat(values).numpy(), 1, 5) / len(folds)
    frame = pd.DataFrame(total, columns=list(task.settings.target_columns))
    return frame.assign(text_id=test["text_id"])


def rewrite(path: Path, **changes: Any) -> None:
    """Changes some keys of a JSON file; None removes one."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def set_score(run_folder: Path, score: float) -> None:
    rewrite(run_folder / "run.json", pooled={"rows": 40, "scores": {"mcrmse": score}})


def copy_run(run_folder: Path, target: Path, *, score: float) -> Path:
    """The same weights as a run of its own."""
    shutil.copytree(run_folder, target)
    for path in (target / "run.json", *target.glob(f"fold*/{MANIFEST}")):
        rewrite(path, run_id=target.name)
    set_score(target, score)
    return target


def assert_values(frame: pd.DataFrame, expected: pd.DataFrame, tolerance: float = 1e-5) -> None:
    expected = expected.set_index("text_id").loc[frame["text_id"]]
    assert np.allclose(frame[expected.columns], expected, atol=tolerance)


class SlowModels:
    """Every batch takes as long as a test says, on a clock that nothing else moves."""

    def __init__(self) -> None:
        self.moment = 0.0
        self.batch_seconds: dict[str, float] = {}  # by the name of the run folder
        self.begun: list[tuple[str, float]] = []
        self.before_batch: Callable[[], Any] = lambda: None

    def clock(self, budget_seconds: float) -> Clock:
        self.moment, self.begun = 0.0, []
        return Clock(budget_seconds, now=lambda: self.moment)

    def begin(self, fold_folder: Path) -> None:
        run = fold_folder.parent.name
        self.before_batch()
        self.begun.append((f"{run} {fold_folder.name}", self.moment))
        self.moment += self.batch_seconds[run]


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> SlowModels:
    models = SlowModels()
    make = RegressionTask.empty_model

    def empty_model(task: RegressionTask, fold_folder: Path, **options: Any):
        model = make(task, fold_folder, **options)
        model.register_forward_pre_hook(lambda *_: models.begin(fold_folder))
        return model

    monkeypatch.setattr(RegressionTask, "empty_model", empty_model)
    return models


@pytest.fixture
def big_and_small(run_folder: Path, slow: SlowModels, tmp_path: Path) -> dict[str, Any]:
    """Two runs of two folds, 7 batches each: the better one takes 70 s a fold, the other 7 s."""
    slow.batch_seconds = {"big": 10.0, "small": 1.0}
    runs = (
        copy_run(run_folder, tmp_path / "small", score=0.6),
        copy_run(run_folder, tmp_path / "big", score=0.5),
    )
    return {"runs": tuple(map(str, runs)), "eval_batch_tokens": 1}


@pytest.mark.parametrize("batch_tokens", [1, 400, 8192])
def test_the_submission_is_the_mean_of_the_folds_whatever_the_batches(
    run_folder: Path, material, tmp_path: Path, batch_tokens: int
) -> None:
    found = infer(run_folder, material.competition, tmp_path, eval_batch_tokens=batch_tokens)
    expected = predict_one_by_one(run_folder, material.competition).set_index("text_id")
    sample = pd.read_csv(material.competition / "sample_submission.csv", dtype={"text_id": str})
    assert found["text_id"].tolist() == sample["text_id"].tolist()
    values = found.set_index("text_id")
    assert np.allclose(values, expected.loc[values.index, values.columns], atol=1e-5)
    assert values.to_numpy().std() > 0


def test_a_sample_in_another_order_is_followed(run_folder: Path, material, tmp_path: Path) -> None:
    shutil.copytree(material.competition, tmp_path / "data")
    sample = pd.read_csv(tmp_path / "data/sample_submission.csv", dtype={"text_id": str})
    sample.iloc[::-1].to_csv(tmp_path / "data/sample_submission.csv", index=False)
    plain = infer(run_folder, material.competition, tmp_path)
    turned = infer(run_folder, tmp_path / "data", tmp_path)
    assert turned["text_id"].tolist() == plain["text_id"].tolist()[::-1]
    pd.testing.assert_frame_equal(turned.iloc[::-1].reset_index(drop=True), plain)


def test_two_runs_count_alike(own_run, material, tmp_path: Path) -> None:
    a, b = own_run("a"), own_run("b", seed=3, folds=(0,))
    one = infer(a, material.competition, tmp_path).set_index("text_id")
    two = infer(b, material.competition, tmp_path).set_index("text_id")
    both = infer(a, material.competition, tmp_path, runs=(str(a), str(b))).set_index("text_id")
    assert np.allclose(both, (one + two) / 2, atol=1e-6)


def test_sessions_of_one_run_attached_side_by_side_count_each_fold_once(
    own_run, run_folder: Path, material, tmp_path: Path, capsys
) -> None:
    first = own_run("first", folds=(1,))
    alone = infer(run_folder, material.competition, tmp_path)
    both = infer(run_folder, material.competition, tmp_path, runs=(str(first), str(run_folder)))
    pd.testing.assert_frame_equal(alone, both)
    assert "fold 1 is also in" in capsys.readouterr().out


def test_empty_and_odd_texts_get_a_prediction_and_a_warning(
    run_folder: Path, material, tmp_path: Path
) -> None:
    shutil.copytree(material.competition, tmp_path / "data")
    test = pd.read_csv(tmp_path / "data/test.csv", dtype=str)
    test.loc[0, "full_text"] = ""
    test.loc[1, "full_text"] = "  \n\n "
    test.loc[2, "full_text"] = "纠错 \U0001f600\u200b ﬁ " * 900
    test.to_csv(tmp_path / "data/test.csv", index=False)
    with pytest.warns(UserWarning, match="2 of 7 texts are empty"):
        found = infer(run_folder, tmp_path / "data", tmp_path)
    assert np.isfinite(found.drop(columns="text_id").to_numpy()).all()


def test_test_and_sample_of_other_ids_are_refused(
    run_folder: Path, material, tmp_path: Path
) -> None:
    shutil.copytree(material.competition, tmp_path / "data")
    test = pd.read_csv(tmp_path / "data/test.csv", dtype=str)
    test[1:].to_csv(tmp_path / "data/test.csv", index=False)
    with pytest.raises(SubmissionError, match="1 missing"):
        infer(run_folder, tmp_path / "data", tmp_path)
    assert not (tmp_path / "submission.csv").exists()


def test_a_data_folder_without_test_is_said(run_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"test\.csv"):
        infer(run_folder, tmp_path, tmp_path)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_inference_computes_in_the_precision_that_was_asked_for(
    run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    used = []

    def noting(*args, **options):
        used.append(options["precision"].name)
        return predict_in_passes(*args, **options)

    monkeypatch.setattr(ensemble, "predict_in_passes", noting)
    infer(run_folder, material.competition, tmp_path, precision=precision)
    assert used == [precision, precision]  # two folds


@pytest.mark.parametrize("attention", ["fast", "stock"])
def test_inference_computes_attention_as_was_asked_for(
    run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attention: str
) -> None:
    used = []
    make = RegressionTask.empty_model

    def noting(task: RegressionTask, fold_folder: Path, **options: Any):
        used.append(options["attention"])
        return make(task, fold_folder, **options)

    monkeypatch.setattr(RegressionTask, "empty_model", noting)
    infer(run_folder, material.competition, tmp_path, attention=attention)
    assert used == [attention, attention]  # two folds


# The file in the first seconds.


def train_means(data_dir: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """The means of ``train.csv`` for the ids of another frame."""
    train = pd.read_csv(data_dir / "train.csv").drop(columns=["text_id", "full_text"])
    return rows[["text_id"]].assign(**train.mean())


def test_the_means_are_there_before_anything_large_is_opened(
    run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def too_early(*args, **options):
        raise ArtifactError("opened")

    for name in ("encode_test", "read_manifest", "load_weights", "versions"):
        monkeypatch.setattr(ensemble, name, too_early)
    with pytest.raises(ArtifactError, match="opened"):
        infer(run_folder, material.competition, tmp_path)
    sample = material.competition / "sample_submission.csv"
    found = check_submission(tmp_path / "submission.csv", sample).set_index("text_id").astype(float)
    assert_values(found.reset_index(), train_means(material.competition, found.reset_index()), 1e-6)
    assert found.drop_duplicates().shape == (1, 6) and found.iloc[0].nunique() > 1
    assert "valid from now on, the training rows' means in every row" in capsys.readouterr().out


def test_the_first_file_holds_the_means_of_the_best_run(
    run_folder: Path, material, tmp_path: Path, slow: SlowModels
) -> None:
    best = copy_run(run_folder, tmp_path / "best", score=0.1)
    rewrite(best / "run.json", target_means=[1.5, 2.0, 2.5, 3.0, 3.5, 99.0])
    clock = slow.clock(1)
    slow.moment = 2
    runs = (str(run_folder), str(best))
    found = infer(run_folder, material.competition, tmp_path, clock, runs=runs)
    assert found.drop(columns="text_id").drop_duplicates().to_numpy().tolist() == [
        [1.5, 2.0, 2.5, 3.0, 3.5, 5.0]
    ]


@pytest.mark.parametrize("means", [None, [3.0, 3.0], [float("nan")] * 6])
def test_without_means_in_the_record_the_first_file_holds_the_middle_of_the_scale(
    run_folder: Path, material, tmp_path: Path, slow: SlowModels, capsys, means
) -> None:
    rewrite(run_folder / "run.json", target_means=means)
    clock = slow.clock(1)
    slow.moment = 2
    found = infer(run_folder, material.competition, tmp_path, clock)
    assert (found.drop(columns="text_id") == 3.0).all(axis=None)
    assert "the middle of the scale (the record of run holds no target_means)" in (
        capsys.readouterr().out
    )


def test_what_a_killed_session_left_is_removed(run_folder: Path, material, tmp_path: Path) -> None:
    (tmp_path / ".submission.csv.0a1b2c3d.tmp").write_text("half")
    infer(run_folder, material.competition, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"submission.csv", "run"}


# Better with each fold.


def test_each_fold_replaces_the_file_by_a_better_one_the_best_run_first(
    own_run, run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    set_score(run_folder, 0.7)
    best = own_run("best", seed=3, folds=(0,))
    set_score(best, 0.6)
    frames: list[pd.DataFrame] = []
    write = regression.write_submission

    def noting(frame: pd.DataFrame, *args, **options) -> None:
        frames.append(frame)
        write(frame, *args, **options)

    monkeypatch.setattr(regression, "write_submission", noting)
    data = material.competition
    found = infer(run_folder, data, tmp_path, runs=(str(run_folder), str(best)))
    fold = {
        name: predict_one_by_one(folder, data, (number,)).set_index("text_id")
        for name, folder, number in (("a0", run_folder, 0), ("a1", run_folder, 1), ("b0", best, 0))
    }
    expected = [
        fold["b0"],
        (fold["a0"] + fold["b0"]) / 2,
        ((fold["a0"] + fold["a1"]) / 2 + fold["b0"]) / 2,
    ]
    assert len(frames) == 4
    assert_values(frames[0], train_means(data, frames[0]), 1e-6)
    for frame, blend in zip(frames[1:], expected, strict=True):
        assert_values(frame, blend.reset_index())
        assert not np.allclose(frame.drop(columns="text_id"), frames[0].drop(columns="text_id"))
    pd.testing.assert_frame_equal(found, frames[-1])
    assert "folds used: run: 0 1; best: 0\n" in capsys.readouterr().out


def test_the_final_bytes_do_not_depend_on_which_run_is_best(
    own_run, material, tmp_path: Path, slow: SlowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_float64(*args, **options):  # sums of float32 would be exact in any order
        return predict_in_passes(*args, **options) * np.float64(1.1)

    monkeypatch.setattr(ensemble, "predict_in_passes", in_float64)
    runs = [own_run(name, seed=3 + seed, folds=(0,)) for seed, name in enumerate("abc")]
    slow.batch_seconds = dict.fromkeys("abc", 0.0)
    contents, orders = set(), set()
    for scores in ((0.1, 0.2, 0.3), (0.3, 0.1, 0.2), (0.2, 0.3, 0.1)):
        for run, score in zip(runs, scores, strict=True):
            set_score(run, score)
        given = tuple(map(str, runs))
        infer(runs[0], material.competition, tmp_path, slow.clock(1), runs=given)
        contents.add((tmp_path / "submission.csv").read_bytes())
        orders.add(tuple(dict.fromkeys(name for name, _ in slow.begun)))
    assert len(orders) == 3 and len(contents) == 1


def test_what_memory_holds_is_found_out_once_for_all_folds(
    run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    forward, seen = PooledModel.forward, []

    def limited(model, input_ids, attention_mask):
        seen.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return forward(model, input_ids, attention_mask)

    expected = predict_one_by_one(run_folder, material.competition)
    monkeypatch.setattr(PooledModel, "forward", limited)
    found = infer(run_folder, material.competition, tmp_path, eval_batch_tokens=7 * 64)
    assert_values(found, expected)
    assert seen.count(7) == seen.count(4) == 1  # in the first fold, not in the second
    assert capsys.readouterr().out.count("memory is full") == 2


# The clock.


@pytest.mark.parametrize("budget", [0.5, 3, 7, 8, 13.5, 21, 27.9])
def test_on_any_budget_the_file_is_always_valid_and_never_late_by_more_than_a_batch(
    run_folder: Path, material, tmp_path: Path, slow: SlowModels, capsys, budget: float
) -> None:
    """28 batches of a second each, of two runs with two folds."""
    other = copy_run(run_folder, tmp_path / "other", score=0.1)
    slow.batch_seconds = {"run": 1.0, "other": 1.0}
    sample = material.competition / "sample_submission.csv"
    slow.before_batch = lambda: check_submission(tmp_path / "submission.csv", sample)
    runs = (str(run_folder), str(other))
    clock = slow.clock(budget)
    infer(run_folder, material.competition, tmp_path, clock, runs=runs, eval_batch_tokens=1)
    check_submission(tmp_path / "submission.csv", sample, lowest=1, highest=5)
    assert max(when for _, when in slow.begun) <= budget
    assert slow.moment <= budget + 1
    printed = capsys.readouterr().out
    finished = [
        fold for fold in dict(slow.begun) if [name for name, _ in slow.begun].count(fold) == 7
    ]
    for name in ("run", "other"):
        used = " ".join(str(fold) for fold in (0, 1) if f"{name} fold{fold}" in finished) or "none"
        assert re.search(f"folds used: .*\\b{name}: {used}\\b", printed)
    assert ("NOT ALL FOLDS: " in printed) == (len(finished) < 4)


def test_what_does_not_fit_is_skipped_and_a_cheaper_run_goes_on(
    big_and_small, material, tmp_path: Path, slow: SlowModels, capsys
) -> None:
    clock = slow.clock(100)
    found = infer(tmp_path / "big", material.competition, tmp_path, clock, **big_and_small)
    assert list(dict.fromkeys(name for name, _ in slow.begun)) == [
        "big fold0",
        "small fold0",
        "small fold1",
    ]
    zero, one = (
        predict_one_by_one(tmp_path / "big", material.competition, (fold,)).set_index("text_id")
        for fold in (0, 1)
    )
    assert_values(found, ((zero + (zero + one) / 2) / 2).reset_index())
    printed = capsys.readouterr().out
    assert "big fold 1: skipped, needs about 1 min 10 s, 23 s left\n" in printed
    assert "NOT ALL FOLDS: 1 of 4 did not fit in the time budget of 1 min 40 s" in printed
    assert "folds used: small: 0 1; big: 0 (1 skipped: time)\n" in printed


def test_a_fold_that_turns_out_too_slow_is_dropped_while_there_is_time_for_a_cheaper_one(
    big_and_small, material, tmp_path: Path, slow: SlowModels, capsys
) -> None:
    clock = slow.clock(30)
    found = infer(tmp_path / "big", material.competition, tmp_path, clock, **big_and_small)
    names = [name for name, _ in slow.begun]
    assert names == ["big fold0"] * 2 + ["small fold0"] * 7
    assert_values(found, predict_one_by_one(tmp_path / "small", material.competition, (0,)))
    printed = capsys.readouterr().out
    assert re.search(r"big fold 0: dropped after 20 s, needs at least \d+ s more, 10 s", printed)
    assert "big fold 1: skipped" in printed and "small fold 1: skipped" in printed
    assert "folds used: small: 0 (1 skipped: time); big: none (0 1 skipped: time)\n" in printed


def test_a_fold_that_the_clock_ends_is_dropped_whole(
    run_folder: Path, material, tmp_path: Path, slow: SlowModels, capsys
) -> None:
    slow.batch_seconds = {"run": 1.0}
    clock = slow.clock(12)
    slow.before_batch = lambda: slow.batch_seconds.update(run=2.0 if len(slow.begun) > 8 else 0.5)
    found = infer(run_folder, material.competition, tmp_path, clock, eval_batch_tokens=1)
    assert len(slow.begun) == 13
    assert_values(found, predict_one_by_one(run_folder, material.competition, (0,)))
    assert "run fold 1: dropped after 9 s, the time budget is used up" in capsys.readouterr().out


def test_a_clock_that_is_over_leaves_a_valid_file_and_opens_nothing(
    run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def too_late(*args, **options):
        raise AssertionError("opened though there is no time")

    for name in ("encode_test", "read_manifest", "load_weights"):
        monkeypatch.setattr(ensemble, name, too_late)
    found = infer(run_folder, material.competition, tmp_path, time_budget_seconds=1e-6)
    assert_values(found, train_means(material.competition, found), 1e-6)
    printed = capsys.readouterr().out
    assert "NOT ALL FOLDS: 2 of 2 did not fit in the time budget of 0 s; the submission" in printed
    assert "folds used: run: none (0 1 skipped: time)\n" in printed
    assert "skipped, needs" not in printed  # one line for all of them is enough


def test_hashing_counts_against_the_clock(
    run_folder: Path, material, tmp_path: Path, slow: SlowModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []

    def slowly(run, fold, **options):
        checked.append(fold)
        slow.moment += 10

    monkeypatch.setattr(ensemble, "read_manifest", slowly)
    infer(run_folder, material.competition, tmp_path, slow.clock(5))
    assert checked == [0] and slow.begun == []


# Faults.


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "file", "message"),
    [
        (flip_a_bit, WEIGHTS, r"fold1/model\.safetensors is not the file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-9]), WEIGHTS, r"truncated or altered"),
        (Path.unlink, WEIGHTS, r"fold1/model\.safetensors is missing"),
        (flip_a_bit, "config.json", r"fold1/config\.json is not the file"),
        (Path.unlink, MANIFEST, r"fold1/manifest\.json is missing"),
        (lambda p: p.write_text("{"), MANIFEST, r"fold1/manifest\.json is not JSON"),
    ],
)
def test_a_damaged_fold_is_refused_before_any_prediction_and_the_means_stay(
    run_folder: Path, material, tmp_path: Path, slow: SlowModels, damage, file: str, message: str
) -> None:
    damage(run_folder / "fold1" / file)
    with pytest.raises(ArtifactError, match=message):
        infer(run_folder, material.competition, tmp_path)
    assert slow.begun == []
    sample = material.competition / "sample_submission.csv"
    found = check_submission(tmp_path / "submission.csv", sample)
    assert len(found.drop(columns="text_id").drop_duplicates()) == 1


def test_an_altered_tokenizer_is_refused_and_the_means_stay(
    run_folder: Path, material, tmp_path: Path
) -> None:
    rewrite(run_folder / TOKENIZER / "tokenizer.json", normalizer={"type": "NFC"})
    with pytest.raises(ArtifactError, match="gives other ids"):
        infer(run_folder, material.competition, tmp_path)
    check_submission(tmp_path / "submission.csv", material.competition / "sample_submission.csv")


def test_weights_that_break_after_the_check_leave_the_file_of_the_folds_before(
    run_folder: Path, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(model, path: Path) -> None:
        if path.parent.name == "fold1":
            raise ArtifactError(f"{path} is damaged. Copy it again.")
        load_weights(model, path)

    monkeypatch.setattr(ensemble, "load_weights", breaking)
    with pytest.raises(ArtifactError, match=r"fold1.*is damaged"):
        infer(run_folder, material.competition, tmp_path)
    found = pd.read_csv(tmp_path / "submission.csv", dtype={"text_id": str})
    assert_values(found, predict_one_by_one(run_folder, material.competition, (0,)))


def test_the_drift_of_the_image_is_told_once_for_each_different_line(
    run_folder: Path, material, tmp_path: Path, capsys
) -> None:
    runs = [run_folder, *(copy_run(run_folder, tmp_path / name, score=1) for name in "abc")]
    versions = json.loads((run_folder / "run.json").read_text())["versions"]
    for run, torch_version in zip(runs[1:], ("1.0", "1.0", "1.1"), strict=True):
        rewrite(run / "run.json", versions={**versions, "torch": torch_version})
    infer(run_folder, material.competition, tmp_path, runs=tuple(map(str, runs)))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("versions")]
    assert lines[0] == "versions: as in training" and len(lines) == 3
    assert "torch 1.0 -> " in lines[1] and "torch 1.1 -> " in lines[2]
