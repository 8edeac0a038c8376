"""The datasets of weights: a backbone's, and a run's, which replaces no other run's."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kernel_lib.errors import ArtifactError, BackboneError, SettingsError
from kernel_lib.offline.upload.metadata import check_dataset, needs_dir_mode
from kernel_lib.offline.upload.model_datasets import HASHED, default_name
from kernel_lib.offline.upload.package import (
    build_backbone,
    build_weights,
)
from tests.test_artifacts import make_run
from tests.uploading import content

pytestmark = pytest.mark.usefixtures("no_account")


# The backbone


def test_a_backbone_has_the_files_that_training_reads_and_no_code(material, tmp_path: Path) -> None:
    source = tmp_path / "DeBERTa_v3 tiny"
    shutil.copytree(material.backbone, source)
    for name in ("modeling.py", ".gitattributes", "README.md", "pytorch_model.bin", "tf_model.h5"):
        (source / name).write_text("x")
    (source / "LICENSE").write_text("MIT")
    (source / "onnx").mkdir()
    (source / "onnx/model.onnx").write_text("x")
    folder = tmp_path / "deberta-v3-tiny"
    build_backbone(source, folder, "somebody", source.name)
    needed = {"config.json", "model.safetensors", "spm.model", "tokenizer_config.json"}
    assert set(content(folder)) == {*needed, "LICENSE", "dataset-metadata.json"}
    assert (folder / "model.safetensors").samefile(source / "model.safetensors")
    values = json.loads((folder / "dataset-metadata.json").read_text())
    assert (values["id"], values["title"]) == ("somebody/deberta-v3-tiny", "DeBERTa_v3 tiny")
    assert check_dataset(folder) == [] and not needs_dir_mode(folder)


def test_a_built_backbone_loads(material, tmp_path: Path) -> None:
    from kernel_lib.model.backbone import load_backbone
    from kernel_lib.model.location import find_backbone
    from kernel_lib.text.tokenizer import build_tokenizer

    build_backbone(material.backbone, tmp_path / "tiny-backbone", "somebody", "tiny-backbone")
    folder = find_backbone(str(tmp_path / "tiny-backbone"))
    assert len(build_tokenizer(folder, keep_newlines=True)) > 100
    assert load_backbone(folder, dropout=0.1).config.hidden_size == 32


def test_the_weights_that_are_taken_are_those_that_training_would_load() -> None:
    from kernel_lib.model.backbone import WEIGHT_FILES
    from kernel_lib.offline.upload.model_datasets import WEIGHTS

    assert WEIGHTS == WEIGHT_FILES


def test_weights_in_shards_come_with_their_index_and_only_from_the_folder(
    material, tmp_path: Path
) -> None:
    source = tmp_path / "sharded"
    shutil.copytree(material.backbone, source)
    (source / "model.safetensors").rename(source / "model-00001-of-00002.safetensors")
    (source / "model-00002-of-00002.safetensors").write_text("x")
    index = source / "model.safetensors.index.json"
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}}))
    build_backbone(source, tmp_path / "sharded-backbone", "somebody", "sharded-backbone")
    assert {index.name, *shards} < set(content(tmp_path / "sharded-backbone"))
    for name in ("../secret.safetensors", "model-00003-of-00002.safetensors"):
        (tmp_path / "secret.safetensors").write_text("x")
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(BackboneError, match="which is not in the folder"):
            build_backbone(source, tmp_path / "other-backbone", "somebody", "other-backbone")


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("config.json", r"has no config\.json"),
        ("spm.model", "has no tokenizer"),
        ("model.safetensors", "has no weights"),
    ],
)
def test_a_folder_that_is_no_whole_backbone_is_refused(
    material, tmp_path: Path, missing: str, words: str
) -> None:
    shutil.copytree(material.backbone, tmp_path / "source")
    (tmp_path / "source" / missing).unlink()
    with pytest.raises(BackboneError, match=words):
        build_backbone(tmp_path / "source", tmp_path / "backbone", "somebody", "backbone")
    assert not (tmp_path / "backbone").exists()


def test_the_folder_around_a_backbone_gets_a_hint(material, tmp_path: Path) -> None:
    shutil.copytree(material.backbone, tmp_path / "around/1")
    with pytest.raises(BackboneError, match=r"Is .*around/1 meant\?"):
        build_backbone(tmp_path / "around", tmp_path / "backbone", "somebody", "backbone")


# The weights of a run


FOLD = {"model.safetensors", "config.json", "oof.csv", "log.jsonl", "manifest.json"}


def test_the_weights_are_the_finished_folds_and_what_inference_reads(
    written_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "fb3-weights"
    assert default_name(written_run) == "fb3-weights"
    build_weights(written_run, folder, "somebody", "fb3-weights")
    files = {"run.json", "folds.csv", "oof.csv", "report.html"}
    files |= {"tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"}
    files |= {f"fold{fold}/{name}" for fold in (0, 1) for name in FOLD}
    assert set(content(folder)) == {f"run/{name}" for name in files} | {"dataset-metadata.json"}
    assert content(folder)["run/fold1/oof.csv"] == (written_run / "fold1/oof.csv").read_bytes()
    assert check_dataset(folder) == [] and needs_dir_mode(folder)


def test_the_names_of_the_run_folder_are_those_of_the_library() -> None:
    from kernel_lib import artifacts
    from kernel_lib.offline.upload import model_datasets as ours

    assert (ours.RECORD, ours.MANIFEST, ours.LOG) == (
        artifacts.RUN_RECORD,
        artifacts.MANIFEST,
        artifacts.LOG,
    )
    assert ours.HASHED == (artifacts.WEIGHTS, artifacts.CONFIG, artifacts.OOF)
    assert ours.RUN_TOKENIZER == artifacts.TOKENIZER


def test_the_built_weights_of_a_real_run_predict_the_same(
    trained, material, tmp_path: Path
) -> None:
    from kernel_lib.config import InferenceSettings
    from kernel_lib.results.ensemble import predict_submission
    from kernel_lib.results.report import write_report

    build_weights(trained(), tmp_path / "fb3-weights", "somebody", "fb3-weights")
    predictions = []
    for folder in (trained(), tmp_path / "fb3-weights/run"):
        settings = InferenceSettings(
            runs=(str(folder),),
            data_dir=str(material.competition),
            submission=str(tmp_path / "submission.csv"),
        )
        path = predict_submission(settings)
        predictions.append(np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, 7)))
    assert np.array_equal(predictions[0], predictions[1]) and predictions[0].std() > 0
    copy = tmp_path / "copy"  # a report is written into its run folder
    shutil.copytree(tmp_path / "fb3-weights/run", copy)
    from kernel_lib.artifacts import open_run

    assert Path(write_report(open_run(copy))).stat().st_size > 10_000


def test_one_flipped_byte_in_any_hashed_file_is_named(written_run: Path, tmp_path: Path) -> None:
    for name in HASHED:
        path = written_run / "fold1" / name
        genuine = path.read_bytes()
        path.write_bytes(genuine[:-3] + bytes([genuine[-3] ^ 1]) + genuine[-2:])
        with pytest.raises(ArtifactError, match=r"is not the file that training wrote") as caught:
            build_weights(written_run, tmp_path / "fb3-weights", "somebody", "fb3-weights")
        assert str(path) in str(caught.value)
        path.write_bytes(genuine)
    build_weights(written_run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


@pytest.mark.parametrize("name", ["fold0/oof.csv", "tokenizer/tokenizer.json", "run.json"])
def test_a_missing_file_is_named(written_run: Path, tmp_path: Path, name: str) -> None:
    (written_run / name).unlink()
    with pytest.raises(ArtifactError, match="is missing") as caught:
        build_weights(written_run, tmp_path / "fb3-weights", "somebody", "fb3-weights")
    assert name in str(caught.value) and not (tmp_path / "fb3-weights").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"run_id": "other"}, "of run other, not fold 1 of abc123"),
        ({"fold": 0}, "holds fold 0"),
        ({"sha256": {}}, "is not a manifest"),
        ({"sha256": None}, "is not a manifest"),
    ],
)
def test_a_manifest_of_something_else_is_refused(
    written_run: Path, tmp_path: Path, changes: dict, words: str
) -> None:
    path = written_run / "fold1/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ArtifactError, match=words):
        build_weights(written_run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


def test_a_hostile_manifest_cannot_name_a_file_outside_its_fold(
    written_run: Path, tmp_path: Path
) -> None:
    path, outside = written_run / "fold1/manifest.json", tmp_path / "working/private.txt"
    outside.write_text("x")
    manifest = json.loads(path.read_text())
    manifest["sha256"]["../../private.txt"] = hashlib.sha256(b"x").hexdigest()
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"private\.txt is missing"):
        build_weights(written_run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


def test_a_run_without_a_finished_fold_is_refused(written_run: Path, tmp_path: Path) -> None:
    for fold in (0, 1):
        (written_run / f"fold{fold}/manifest.json").unlink()
    with pytest.raises(ArtifactError, match="no finished fold"):
        build_weights(written_run, tmp_path / "fb3-weights", "somebody", "fb3-weights")


def test_a_name_that_kaggle_would_not_take_is_refused(
    written_run: Path, material, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="6 to 50 characters"):
        build_weights(written_run, tmp_path / "a", "somebody", "mine")
    with pytest.raises(SettingsError, match="6 to 50 characters"):
        build_backbone(material.backbone, tmp_path / "a", "somebody", "model")


# On frozen features, and beside other runs


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """A run on the frozen features of two encoders, each with its tokenizer."""
    folder = tmp_path / "working/run"
    make_run(folder)
    record = json.loads((folder / "run.json").read_text())
    record |= {
        "task": "fb3_features",
        "resources": {"encoders": [{"tokens": "a"}, {"tokens": "b"}]},
    }
    (folder / "run.json").write_text(json.dumps(record))
    for number in (0, 1):
        (folder / f"tokenizer/{number}").mkdir(parents=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / f"tokenizer/{number}" / name).write_text(f"{number}")
    return folder


def test_a_run_on_frozen_features_takes_the_tokenizer_of_each_encoder(
    frozen: Path, tmp_path: Path
) -> None:
    built = tmp_path / "fb3-features"
    build_weights(frozen, built, "somebody", "fb3-features")
    for number in (0, 1):
        assert (built / f"run/tokenizer/{number}/tokenizer.json").read_text() == f"{number}"
    (frozen / "tokenizer/1/tokenizer.json").unlink()
    with pytest.raises(ArtifactError, match=r"tokenizer/1/tokenizer\.json is missing"):
        build_weights(frozen, built, "somebody", "fb3-features")


def test_without_encoders_no_tokenizer_is_asked_for(frozen: Path, tmp_path: Path) -> None:
    record = json.loads((frozen / "run.json").read_text())
    (frozen / "run.json").write_text(json.dumps(record | {"resources": {"encoders": []}}))
    build_weights(frozen, tmp_path / "fb3-ridge", "somebody", "fb3-ridge")
    assert not (tmp_path / "fb3-ridge/run/tokenizer").exists()


def test_the_dataset_of_another_run_is_not_replaced(frozen: Path, tmp_path: Path) -> None:
    built = tmp_path / "fb3-weights"
    build_weights(frozen, built, "somebody", "fb3-weights")
    build_weights(frozen, built, "somebody", "fb3-weights")  # the same run once more
    for path in (frozen / "run.json", *frozen.glob("fold*/manifest.json")):
        text = json.dumps(json.loads(path.read_text()) | {"run_id": "another"})
        path.unlink()  # what was built may be a link to it
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"holds another run.*NAME="):
        build_weights(frozen, built, "somebody", "fb3-weights")
    assert json.loads((built / "run/run.json").read_text())["run_id"] != "another"
