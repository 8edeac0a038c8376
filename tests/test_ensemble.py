"""Inference from run folders: the mean of the folds, in the sample's order, or a clear refusal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import TOKENIZER, WEIGHTS, load_weights, open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, DataError, SubmissionError
from kernel_lib.results import ensemble
from kernel_lib.results.ensemble import find_runs, predict_submission, task_of
from kernel_lib.text.batches import collate
from kernel_lib.text.tokenizer import load_tokenizer
from kernel_lib.training.prediction import predict


@pytest.fixture
def run_folder(make_case, tmp_path: Path) -> Path:
    return make_case().cross_validate().folder


def infer(run_folder: Path, data_dir: Path, tmp_path: Path, **changes) -> pd.DataFrame:
    settings = InferenceSettings(
        **{
            "runs": (str(run_folder),),
            "data_dir": str(data_dir),
            "submission": str(tmp_path / "submission.csv"),
            "precision": "float32",
            **changes,
        }
    )
    return pd.read_csv(predict_submission(settings), dtype={"text_id": str})


def predict_one_by_one(run_folder: Path, data_dir: Path) -> pd.DataFrame:
    """The same, the plain way: a text at a time, no padding, no sorting."""
    run = open_run(run_folder)
    task = task_of(run)
    tokenizer = load_tokenizer(run_folder / TOKENIZER)
    test, _ = task.read_test(str(data_dir))
    total = 0.0
    for fold in run.finished_folds():
        model = task.empty_model(run.fold_folder(fold)).eval()
        load_weights(model, run.fold_folder(fold) / WEIGHTS)
        with torch.no_grad():
            batches = [collate([e], tokenizer.pad_token_id) for e in task.encode(test, tokenizer)]
            values = [model(batch.input_ids, batch.attention_mask) for batch in batches]
        total = total + np.clip(torch.cat(values).numpy(), 1, 5) / len(run.finished_folds())
    frame = pd.DataFrame(total, columns=list(task.settings.target_columns))
    return frame.assign(text_id=test["text_id"])


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_submission_is_the_mean_of_the_folds_whatever_the_batch_size(
    run_folder: Path, material, tmp_path: Path, batch_size: int
) -> None:
    found = infer(run_folder, material.competition, tmp_path, batch_size=batch_size)
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


def test_two_runs_count_alike(make_case, material, tmp_path: Path) -> None:
    a = make_case(output_dir=str(tmp_path / "a")).cross_validate().folder
    b = make_case(output_dir=str(tmp_path / "b"), seed=3, folds=(0,)).cross_validate().folder
    one = infer(a, material.competition, tmp_path).set_index("text_id")
    two = infer(b, material.competition, tmp_path).set_index("text_id")
    both = infer(a, material.competition, tmp_path, runs=(str(a), str(b))).set_index("text_id")
    assert np.allclose(both, (one + two) / 2, atol=1e-6)


def test_sessions_of_one_run_attached_side_by_side_count_each_fold_once(
    make_case, run_folder: Path, material, tmp_path: Path, capsys
) -> None:
    first = make_case(output_dir=str(tmp_path / "first"), folds=(1,)).cross_validate().folder
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


def test_runs_are_found_under_the_inputs_at_any_depth(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_LIB_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    with pytest.raises(ArtifactError, match="no run folder"):
        find_runs(())
    place = tmp_path / "kaggle/input/notebooks/somebody/fb3-train/run"
    shutil.copytree(run_folder, place)
    assert [run.folder for run in find_runs(())] == [place]


def test_an_altered_weight_file_is_refused_before_anything_is_written(
    run_folder: Path, material, tmp_path: Path
) -> None:
    path = run_folder / "fold1" / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"fold1/model\.safetensors is not the file"):
        infer(run_folder, material.competition, tmp_path)
    assert not (tmp_path / "submission.csv").exists()


def test_a_missing_weight_file_is_refused(run_folder: Path, material, tmp_path: Path) -> None:
    (run_folder / "fold0" / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"fold0/model\.safetensors is missing"):
        infer(run_folder, material.competition, tmp_path)


def test_an_altered_tokenizer_is_refused(run_folder: Path, material, tmp_path: Path) -> None:
    path = run_folder / TOKENIZER / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "NFC"}  # what transformers 5 would put there
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError, match="gives other ids"):
        infer(run_folder, material.competition, tmp_path)


def test_a_run_without_a_finished_fold_is_refused(run_folder: Path) -> None:
    for fold in (0, 1):
        (run_folder / f"fold{fold}/manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no finished fold"):
        find_runs([str(run_folder)])


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
        return predict(*args, **options)

    monkeypatch.setattr(ensemble, "predict", noting)
    infer(run_folder, material.competition, tmp_path, precision=precision)
    assert used == [precision, precision]  # two folds
