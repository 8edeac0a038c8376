"""What a run leaves can be trusted: whole, of one run, and refused with the cure when not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from kernel_lib.artifacts import (
    CONFIG,
    FORMAT,
    LOG,
    MANIFEST,
    OOF,
    RUN_RECORD,
    WEIGHTS,
    Run,
    finish_fold,
    load_weights,
    open_run,
    read_manifest,
    read_oof,
    read_tensors,
    save_record,
    save_tensors,
    write_csv,
)
from kernel_lib.errors import ArtifactError

PREDICTIONS = [0.1, 1 / 3, 2.5000000000000004, 1e-17, 4.999999999999999]
IDS = ["53E542321463", "000123", "NA", 'with "quotes", comma', "é纠"]


def make_oof(fold: int) -> pd.DataFrame:
    return pd.DataFrame({"text_id": IDS, "fold": fold, "pred_syntax": PREDICTIONS})


def make_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def write_fold(run: Run, fold: int, **changes) -> None:
    finish_fold(
        run,
        fold,
        **{
            "model": make_model(fold),
            "backbone_config": {"model_type": "bert"},
            "oof": make_oof(fold),
            "log": '{"epoch": 1}\n',
            "summary": {"score": 0.5 + fold, "epoch": 5},
            **changes,
        },
    )


def make_run(folder: Path, run_id: str = "abc123", folds: int = 2) -> Run:
    record = {"format": FORMAT, "run_id": run_id, "task": "fb3", "settings": {"seed": 1}}
    run = Run(folder, {**record, "identity": {}, "folds": []})
    save_record(run)
    for fold in range(folds):
        write_fold(run, fold)
    return run


@pytest.fixture
def run(tmp_path) -> Run:
    return make_run(tmp_path / "run")


def test_a_run_reads_back_as_it_was_written(run: Run) -> None:
    again = open_run(run.folder)
    assert again.record == run.record and again.id == "abc123"
    assert again.finished_folds() == [0, 1]
    for fold in (0, 1):
        manifest = read_manifest(again, fold, check=(WEIGHTS, CONFIG, OOF))
        assert (manifest["fold"], manifest["score"], manifest["epoch"]) == (fold, 0.5 + fold, 5)
        model = make_model(seed=99)
        load_weights(model, again.fold_folder(fold) / WEIGHTS)
        for name, tensor in make_model(fold).state_dict().items():
            assert torch.equal(model.state_dict()[name], tensor)


def test_a_fold_holds_exactly_the_files_that_are_documented(run: Run) -> None:
    names = {path.name for path in run.fold_folder(0).iterdir()}
    assert names == {WEIGHTS, CONFIG, OOF, LOG, MANIFEST}


def test_ten_folds_and_more_come_in_the_order_of_their_numbers(tmp_path) -> None:
    run = make_run(tmp_path, folds=0)
    for fold in (10, 2, 0):
        write_fold(run, fold)
    assert run.finished_folds() == [0, 2, 10]


def test_a_folder_that_is_no_fold_is_no_finished_fold(run: Run) -> None:
    shutil.copytree(run.fold_folder(0), run.folder / "fold0_old")
    shutil.copytree(run.fold_folder(0), run.folder / "folds")
    assert run.finished_folds() == [0, 1]


def test_ids_stay_text_and_floats_are_exact(run: Run) -> None:
    oof = read_oof(run, 1)
    assert oof["text_id"].tolist() == IDS
    assert oof["fold"].tolist() == [1] * 5
    assert oof["pred_syntax"].tolist() == PREDICTIONS


def test_float32_predictions_come_back_as_the_same_float32(tmp_path) -> None:
    values = np.random.default_rng(0).normal(3, 1, size=500).astype(np.float32)
    frame = pd.DataFrame({"text_id": [str(i) for i in range(500)], "fold": 0, "pred": values})
    run = make_run(tmp_path, folds=0)
    write_fold(run, 0, oof=frame)
    assert (read_oof(run, 0)["pred"].to_numpy(np.float32) == values).all()


@pytest.mark.parametrize("blocked", [WEIGHTS, CONFIG, OOF, LOG])
def test_the_manifest_comes_last_so_a_broken_save_is_no_finished_fold(tmp_path, blocked) -> None:
    run = make_run(tmp_path, folds=0)
    (run.fold_folder(0) / blocked / "in the way").mkdir(parents=True)
    with pytest.raises(ArtifactError, match=blocked):
        write_fold(run, 0)
    assert run.finished_folds() == []
    left = [p.name for p in run.fold_folder(0).rglob("*") if p.is_file()]
    assert not any("tmp" in name for name in left)


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [alter, truncate])
@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, OOF])
def test_a_damaged_file_is_named_with_the_cure(run: Run, name: str, damage) -> None:
    damage(run.fold_folder(1) / name)
    read_manifest(run, 0, check=(WEIGHTS, CONFIG, OOF))
    with pytest.raises(ArtifactError, match="Copy it again") as caught:
        read_manifest(run, 1, check=(WEIGHTS, CONFIG, OOF))
    assert str(run.fold_folder(1) / name) in str(caught.value)


def test_damaged_predictions_are_not_read(run: Run) -> None:
    alter(run.fold_folder(0) / OOF)
    with pytest.raises(ArtifactError, match=r"oof\.csv"):
        read_oof(run, 0)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, OOF])
def test_a_missing_file_is_named_with_the_cure(run: Run, name: str) -> None:
    (run.fold_folder(0) / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing. Copy the whole fold folder"):
        read_manifest(run, 0, check=(WEIGHTS, CONFIG, OOF))


def test_a_fold_that_is_not_there_is_an_artifact_error(run: Run) -> None:
    with pytest.raises(ArtifactError, match=r"fold7.*manifest\.json is missing"):
        read_manifest(run, 7)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"run_id": "abc123", "fold": 0}'])
def test_a_damaged_manifest_is_an_artifact_error(run: Run, content: str) -> None:
    (run.fold_folder(0) / MANIFEST).write_text(content)
    with pytest.raises(ArtifactError, match="fold0"):
        read_manifest(run, 0, check=(WEIGHTS,))


def test_a_fold_of_another_run_is_refused(run: Run, tmp_path) -> None:
    other = make_run(tmp_path / "other", run_id="def456")
    shutil.rmtree(run.fold_folder(1))
    shutil.copytree(other.fold_folder(1), run.fold_folder(1))
    with pytest.raises(ArtifactError, match=r"belongs to run def456, not to abc123"):
        read_manifest(run, 1, check=(WEIGHTS,))


def test_a_fold_copied_over_another_is_refused(run: Run) -> None:
    """Else one fold's weights count twice and its rows have two predictions."""
    shutil.rmtree(run.fold_folder(0))
    shutil.copytree(run.fold_folder(1), run.fold_folder(0))
    with pytest.raises(ArtifactError, match="fold"):
        read_manifest(run, 0, check=(WEIGHTS, OOF))


@pytest.mark.parametrize(
    "record",
    [
        {"format": FORMAT + 1, "run_id": "x"},
        {"format": str(FORMAT), "run_id": "x"},
        {"run_id": "x"},
        {"format": FORMAT},
        [FORMAT],
        None,
    ],
)
def test_a_record_of_another_format_is_refused_with_the_cure(tmp_path, record) -> None:
    (tmp_path / RUN_RECORD).write_text(json.dumps(record))
    with pytest.raises(ArtifactError, match="Use the kernel_lib that wrote it"):
        open_run(tmp_path)


def test_a_folder_without_a_record_is_no_run(tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"run\.json is missing"):
        open_run(tmp_path)


def test_a_missing_tensor_is_named(tmp_path) -> None:
    state = make_model().state_dict()
    del state["1.weight"]
    save_tensors(state, tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=r"(?s)model\.safetensors.*[Mm]issing.*1\.weight"):
        load_weights(make_model(), tmp_path / WEIGHTS)


def test_an_unexpected_tensor_is_named(tmp_path) -> None:
    save_tensors({**make_model().state_dict(), "pooler.weight": torch.ones(2)}, tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=r"(?s)[Uu]nexpected.*pooler\.weight"):
        load_weights(make_model(), tmp_path / WEIGHTS)


def test_a_tensor_of_another_shape_is_named(tmp_path) -> None:
    save_tensors({**make_model().state_dict(), "2.bias": torch.ones(6)}, tmp_path / WEIGHTS)
    with pytest.raises(ArtifactError, match=r"2\.bias"):
        load_weights(make_model(), tmp_path / WEIGHTS)


def test_half_precision_files_load_as_float32(tmp_path) -> None:
    state = {name: tensor.half() for name, tensor in make_model(3).state_dict().items()}
    save_tensors(state, tmp_path / WEIGHTS)
    model = make_model()
    load_weights(model, tmp_path / WEIGHTS)
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].float())


def test_tensors_read_back_bit_for_bit_whatever_their_layout(tmp_path) -> None:
    whole = torch.randn(4, 6)
    tensors = {
        "transposed": whole.T,
        "sliced": whole[:, ::2],
        "bf16": whole.bfloat16(),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "integers": torch.arange(5),
        "scalar": torch.tensor(1.5),
        "grown": whole.clone().requires_grad_(),
    }
    save_tensors(tensors, tmp_path / "t.safetensors", {"epoch": "3"})
    found = read_tensors(tmp_path / "t.safetensors")
    assert set(found) == set(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name].nan_to_num(7), tensor.detach().nan_to_num(7)), name


def test_a_missing_or_damaged_tensor_file_is_an_artifact_error(tmp_path) -> None:
    path = tmp_path / WEIGHTS
    with pytest.raises(ArtifactError, match=r"model\.safetensors is missing"):
        read_tensors(path)
    save_tensors(make_model().state_dict(), path)
    truncate(path)
    with pytest.raises(ArtifactError, match=r"model\.safetensors is damaged.*Copy it again"):
        read_tensors(path)


def test_a_failing_save_leaves_the_old_weights_and_no_half_file(tmp_path) -> None:
    from tests.test_files import no_file_longer_than

    path = tmp_path / WEIGHTS
    save_tensors({"a": torch.ones(3)}, path)
    with pytest.raises(ArtifactError, match="could not write"), no_file_longer_than(1 << 20):
        save_tensors({"a": torch.zeros(1 << 20)}, path)
    assert torch.equal(read_tensors(path)["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == [WEIGHTS]


def test_a_table_is_written_with_unix_line_ends_and_exact_floats(tmp_path) -> None:
    write_csv(pd.DataFrame({"id": ["a", "b"], "x": [0.1, 1 / 3]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == b"id,x\na,0.1\nb,0.3333333333333333\n"
