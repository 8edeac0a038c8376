"""Runs on frozen features: folds, files and predictions as any run's, and blended with others."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import open_run, read_oof
from kernel_lib.blending.blend import blend_runs
from kernel_lib.blending.search import Splitting
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.results import ensemble
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.results.report import write_report
from kernel_lib.results.soft import write_soft_labels
from kernel_lib.runs.half import write_half_copy
from kernel_lib.runs.merge import merge_runs
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.tasks import features as features_room
from kernel_lib.tasks.feature_fits import predict_rows
from kernel_lib.tasks.feature_folds import cross_validate_features
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.tasks.feature_store import FeatureStore
from kernel_lib.tasks.features import FeatureTask, text_of
from kernel_lib.tasks.registry import restore_task

METHODS = ("svr", "ridge", "tfidf_ridge")


@pytest.fixture(autouse=True)
def empty_store(monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    store = FeatureStore()
    monkeypatch.setattr(features_room, "STORE", store)
    return store


@pytest.fixture
def make(material, tmp_path: Path) -> Any:
    """Makes a task, its examples and their folds."""

    def make(method: str = "svr", **changes: Any) -> tuple[FeatureTask, list[Any], Any]:
        settings = FeatureSettings(
            **{
                "method": method,
                "encoders": (str(material.backbone),),
                "data_dir": str(material.competition),
                "output_dir": str(tmp_path / method),
                "n_folds": 2,
                "max_length": 64,
                "ngram_longest": 3,
                **changes,
            }
        )
        task = FeatureTask(settings)
        train = task.read_train()
        return task, task.encode(train), task.folds(train)

    return make


def infer(runs: list[Path], material, path: Path, **changes: Any) -> pd.DataFrame:
    settings = InferenceSettings(
        runs=tuple(map(str, runs)),
        data_dir=str(material.competition),
        submission=str(path),
        precision="float32",
        **changes,
    )
    return pd.read_csv(predict_submission(settings), dtype={"text_id": str}).set_index("text_id")


def test_an_example_is_its_text_with_plain_line_ends(make) -> None:
    task = make()[0]
    texts = ["a\r\nb\rc", "“é” 🙂\ud800", ""]
    examples = task.encode(pd.DataFrame({"text_id": list("xyz"), "full_text": texts}))
    assert [text_of(each) for each in examples] == ["a\nb\nc", "“é” 🙂\ud800", ""]
    assert [each.id for each in examples] == list("xyz") and examples[0].target is None
    assert task.cut(examples, training=True) == examples


@pytest.mark.parametrize("method", METHODS)
def test_a_run_has_the_folds_and_files_of_any_other(
    make, make_case, method: str, tmp_path: Path, capsys
) -> None:
    task, examples, folds = make(method)
    assert (folds == make_case(n_folds=2).folds).all()
    run = cross_validate_features(task, examples, folds)
    oof = pd.concat([read_oof(run, fold) for fold in (0, 1)])
    assert sorted(oof["text_id"]) == sorted(each.id for each in examples)
    assert run.record["pooled"]["scores"]["mcrmse"] == pytest.approx(task.scores(oof)["mcrmse"])
    table = pd.read_csv(run.folder / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    assert (oof.set_index("text_id")["fold"] == table.loc[oof["text_id"]]).all()
    assert not list(run.folder.rglob("*.pkl"))
    if method == "svr":
        assert "<html" in write_report(run).read_text(encoding="utf-8")

    # Each row by the model that has not seen it, and by that alone.
    features = task.features(examples, device=torch.device("cpu"), batch_tokens=512)
    for fold in (0, 1):
        rows = np.flatnonzero(folds == fold)
        model = task.fit(features, examples, np.flatnonzero(folds != fold))
        expected = task.clip(predict_rows(model, features, rows))
        found = read_oof(run, fold)[[f"pred_{name}" for name in task.settings.target_columns]]
        assert np.allclose(found.to_numpy(), expected, atol=1e-6)
    assert restore_task(json.loads(json.dumps(open_run(run.folder).record))).name == task.name


def test_it_goes_on_where_it_stopped_and_keeps_what_is_done(
    make, material, tmp_path: Path, capsys
) -> None:
    elsewhere = shutil.copytree(material.backbone, tmp_path / "elsewhere/backbone")
    task, examples, folds = make(folds=(1,), encoders=(str(elsewhere),))
    first = cross_validate_features(task, examples, folds)
    assert first.finished_folds() == [1]
    before = (first.folder / "fold1/manifest.json").read_bytes()
    whole = cross_validate_features(make()[0], examples, folds)
    assert whole.id == first.id and whole.finished_folds() == [0, 1]
    assert (first.folder / "fold1/manifest.json").read_bytes() == before
    assert "fold 1: finished before, mcrmse" in capsys.readouterr().out
    other = make(output_dir=str(first.folder) + "2")
    unbroken = cross_validate_features(*other)
    for name in ("model.safetensors", "oof.csv", "config.json"):
        for fold in ("fold0", "fold1"):
            assert (whole.folder / fold / name).read_bytes() == (
                unbroken.folder / fold / name
            ).read_bytes()
    with pytest.raises(ArtifactError, match=r"svr_c was 1\.0, is 3\.0"):
        cross_validate_features(make(svr_c=3.0)[0], examples, folds)


def test_a_clock_that_is_over_begins_nothing_and_says_so(make, capsys) -> None:
    for method in ("svr", "tfidf_ridge"):
        run = cross_validate_features(*make(method), clock=Clock(0.0, used_seconds=1.0))
        assert run.finished_folds() == [] and run.record["pooled"] == {}
        assert "not begun, the time budget is used up" in capsys.readouterr().out


def test_the_loop_of_fine_tuning_says_where_to_go(make, make_case) -> None:
    case = make_case()
    with pytest.raises(SettingsError, match="fitted, not trained: call cross_validate_features"):
        make()[0].build_model(None, case.tokenizer, case.examples)


def test_a_blend_with_fine_tuned_folds_is_the_mean_of_its_members(
    make, own_run, material, tmp_path: Path, empty_store: FeatureStore, capsys
) -> None:
    runs = [own_run("tuned", folds=(0,))]
    runs += [cross_validate_features(*make(method)).folder for method in METHODS]
    alone = [infer([run], material, tmp_path / f"{number}.csv") for number, run in enumerate(runs)]
    capsys.readouterr()
    empty_store._kept.clear()
    blend = infer(runs, material, tmp_path / "blend.csv")
    assert np.allclose(blend, sum(alone) / 4, atol=1e-5) and blend.to_numpy().std() > 0
    shown = capsys.readouterr()
    assert shown.err.count("read with backbone: 100%") == 1  # by two members of two folds each
    assert "folds used: tuned: 0; svr: 0 1; ridge: 0 1; tfidf_ridge: 0 1" in shown.out

    # The plain way: the test rows through the first fold's model.
    task, run = FeatureTask(make("ridge")[0].settings), open_run(tmp_path / "ridge")
    test = task.read_test(InferenceSettings(data_dir=str(material.competition))).frame
    examples, _ = task.read_unseen(run, test)
    features = task.features(examples, device=torch.device("cpu"), batch_tokens=64)
    total = 0
    for fold in (0, 1):
        model = task.empty_model(run.fold_folder(fold))
        ensemble.load_weights(model, run.fold_folder(fold) / "model.safetensors")
        total = total + task.clip(predict_rows(model, features)) / 2
    assert np.allclose(alone[2].loc[test["text_id"]], total, atol=1e-5)


def test_its_folds_teach_and_it_has_no_half_copy(make, trained, material, tmp_path: Path) -> None:
    runs = [cross_validate_features(*make("ridge")).folder, trained()]
    paths = []
    for order in (runs, runs[::-1]):
        settings = InferenceSettings(
            runs=tuple(map(str, order)), data_dir=str(material.competition), precision="float32"
        )
        out = tmp_path / f"soft{len(paths)}"
        paths.append(write_soft_labels(settings, material.competition / "test.csv", out))
    first, second = (pd.read_csv(path).select_dtypes("float") for path in paths)
    assert len(first) and np.allclose(first, second, atol=1e-6) and first.to_numpy().std() > 0
    with pytest.raises(SettingsError, match="ridge is a run on frozen features"):
        write_half_copy(runs[0], tmp_path / "half", str(material.competition))
    assert not (tmp_path / "half").exists()


def test_sessions_with_a_fold_each_are_joined_and_blended(make, tmp_path: Path) -> None:
    whole = cross_validate_features(*make())
    parts = [
        cross_validate_features(*make(folds=(fold,), output_dir=str(tmp_path / f"part{fold}")))
        for fold in (0, 1)
    ]
    joined = merge_runs([part.folder for part in parts], tmp_path / "joined")
    assert joined.id == whole.id and joined.finished_folds() == [0, 1]
    assert joined.record["pooled"]["scores"] == whole.record["pooled"]["scores"]
    other = cross_validate_features(*make("tfidf_ridge")).folder
    splitting = Splitting(parts=3, repeats=1)
    outcomes = [
        blend_runs(folders, tmp_path / "blend", method="ridge", keep_all=True, splitting=splitting)
        for folders in ([whole.folder, other], [*(part.folder for part in parts), other])
    ]
    assert np.array_equal(*(each.found.weights.values for each in outcomes))


def test_auto_precision_is_that_of_the_machine_the_run_began_on(
    make, material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ``auto`` is where it goes on and where it predicts."""

    def on_a_machine(name: str) -> None:
        monkeypatch.setattr(
            features_room,
            "pick_precision",
            lambda wanted, device: Precision(name if wanted == "auto" else wanted, device.type),
        )

    on_a_machine("bf16")
    run = cross_validate_features(*make("ridge", precision="auto", folds=(0,)))
    assert run.record["settings"]["precision"] == "bf16"
    assert json.loads((run.folder / "fold0/manifest.json").read_text())["precision"] == "bf16"
    here = infer([run.folder], material, tmp_path / "here.csv")
    features_room.STORE._kept.clear()
    on_a_machine("float32")
    assert infer([run.folder], material, tmp_path / "there.csv").equals(here)
    with pytest.raises(ArtifactError, match="precision was 'bf16', is 'float32'"):
        cross_validate_features(*make("ridge", precision="auto"))

    # A record that says auto all the same: the fold's manifest knows.
    path = run.folder / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["settings"]["precision"] = "auto"
    path.write_text(json.dumps(record), encoding="utf-8")
    features_room.STORE._kept.clear()
    assert infer([run.folder], material, tmp_path / "old.csv").equals(here)
    task = FeatureTask(make("ridge", precision="float32")[0].settings)
    test = task.read_test(InferenceSettings(data_dir=str(material.competition))).frame
    examples, _ = task.read_unseen(run, test)
    options = {"device": torch.device("cpu"), "batch_tokens": 512}
    plain = task.features(examples, **options).dense
    task.empty_model(run.fold_folder(0))
    assert not np.array_equal(task.features(examples, **options).dense, plain)  # bf16 is seen


def test_features_are_not_counted_as_the_time_of_the_next_fold(make, material, tmp_path) -> None:
    task, examples, folds = make()
    run = cross_validate_features(task, examples, folds)
    task.read_unseen(run, make()[0].read_train())
    options = {"device": torch.device("cpu"), "batch_tokens": 512}
    model = task.fit(task.features(examples, **options), examples, np.flatnonzero(folds == 0))
    features_room.STORE._kept.clear()
    task.outputs(model, examples, **options)
    assert task.seconds_shared > 0
    task.outputs(model, examples, **options)
    assert task.seconds_shared == 0


def test_without_its_encoder_a_run_says_what_is_missing(make, material, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(material.backbone, tmp_path / "small-encoder"))
    run = cross_validate_features(*make("ridge", encoders=(str(folder),)))
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match=r"frozen encoder '.*small-encoder', whose weights are"):
        infer([run.folder], material, tmp_path / "s.csv")
    assert (tmp_path / "s.csv").is_file()  # the first guess
