"""A copy in half precision: smaller, still a run that inference reads, and its cost measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from kernel_lib.artifacts import open_run, read_manifest
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runs.half import write_half_copy
from kernel_lib.runtime.files import read_json, sha256, write_json


@pytest.fixture
def run_folder(own_run) -> Path:
    folder: Path = own_run()
    return folder


def submission(run: Path, material, path: Path) -> pd.DataFrame:
    settings = InferenceSettings(
        runs=(str(run),),
        data_dir=str(material.competition),
        submission=str(path),
        precision="float32",
    )
    return pd.read_csv(predict_submission(settings), index_col=0)


def test_the_copy_is_half_as_large_and_predicts_nearly_the_same(
    run_folder: Path, material, tmp_path: Path
) -> None:
    target = tmp_path / "half"
    changes = write_half_copy(run_folder, target, str(material.competition))
    assert [change.fold for change in changes] == [0, 1]
    sizes = [(f / "fold0/model.safetensors").stat().st_size for f in (run_folder, target)]
    assert sizes[1] < 0.55 * sizes[0]
    whole = submission(run_folder, material, tmp_path / "whole.csv")
    half = submission(target, material, tmp_path / "half.csv")
    moved = float((whole - half).abs().max().max())
    assert 0 < moved < 0.01
    for change in changes:
        assert 0 < change.largest < 0.01
        assert change.after != change.before
        manifest = read_manifest(
            open_run(target), change.fold, check=("model.safetensors", "oof.csv")
        )
        assert manifest["half"] == {
            "before": change.before,
            "after": change.after,
            "largest": change.largest,
        }
        assert change.before == pytest.approx(manifest["score"], abs=1e-6)


def test_every_weight_is_the_nearest_half_precision_number(
    run_folder: Path, material, tmp_path: Path
) -> None:
    write_half_copy(run_folder, tmp_path / "half", str(material.competition))
    before = load_file(run_folder / "fold1/model.safetensors")
    after = load_file(tmp_path / "half/fold1/model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == torch.float16 and torch.equal(after[name], tensor.half())


def test_a_weight_that_does_not_fit_is_refused_and_nothing_is_left(
    run_folder: Path, material, tmp_path: Path
) -> None:
    path = run_folder / "fold0/model.safetensors"
    tensors = load_file(path)
    tensors["head.weight"][0, 0] = 1e6
    save_file(tensors, path)
    manifest = read_json(run_folder / "fold0/manifest.json")
    manifest["sha256"]["model.safetensors"] = sha256(path)
    write_json(run_folder / "fold0/manifest.json", manifest)
    with pytest.raises(ArtifactError, match=r"head.weight holds values beyond float16 \(largest"):
        write_half_copy(run_folder, tmp_path / "half", str(material.competition))
    assert not list(tmp_path.glob("*half*"))


def test_other_data_than_the_run_was_trained_on_are_refused(
    run_folder: Path, material, tmp_path: Path
) -> None:
    frame = pd.read_csv(material.competition / "train.csv", dtype=str)
    frame.loc[3, "syntax"] = "1.0" if frame.loc[3, "syntax"] != "1.0" else "2.0"
    frame.to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(DataError, match=r"is not what .* was trained on"):
        write_half_copy(run_folder, tmp_path / "half", str(tmp_path))


def test_a_folder_that_is_there_is_not_overwritten(run_folder: Path, material) -> None:
    with pytest.raises(ArtifactError, match="is there already"):
        write_half_copy(run_folder, run_folder, str(material.competition))
