"""What a run begins with: soft labels, other runs' weights; never of models that saw a fold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from kernel_lib.artifacts import OOF, WEIGHTS, open_run
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.model.mixout import MixoutLinear
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.files import read_json, sha256, write_json
from kernel_lib.tasks.soft_rows import write_soft_rows
from kernel_lib.text.batches import collate, collate_to
from kernel_lib.training import fold_work, loop, shares
from kernel_lib.training.origins import Origins, find_origins
from tests.test_crossval import SlowFolds


def weights(run: Path, fold: int) -> dict[str, np.ndarray]:
    return load_file(run / f"fold{fold}" / WEIGHTS)


def equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    assert one.keys() == two.keys()
    return all(np.array_equal(one[name], two[name]) for name in one)


@pytest.fixture
def soft(make_case, material, tmp_path) -> Callable[..., Path]:
    """Writes a table of made-up soft labels for the test essays, other ones for each fold."""

    def make(folds: tuple[int, ...] = (0, 1), extra: list[list[str]] | None = None) -> Path:
        case = make_case()
        s = case.task.settings
        texts = pd.read_csv(material.competition / "test.csv", dtype=str, keep_default_na=False)
        parts = []
        for fold in folds:
            part = texts[["text_id", "full_text"]].copy()
            for number, name in enumerate(s.target_columns):
                part[name] = 1.5 + fold + 0.25 * np.arange(len(part)) + number / 8
            part.insert(0, "fold", fold)
            parts.append(part)
        frame = pd.concat(parts, ignore_index=True)
        for fold, row_id in extra or []:
            values = [fold, row_id, "a text", *[3.0] * len(s.target_columns)]
            frame.loc[len(frame)] = values
        by_id = {e.id: int(at) for e, at in zip(case.examples, case.folds, strict=True)}
        folder = tmp_path / "labels"
        write_soft_rows(frame, folder / "soft.csv", folds=by_id, facts={})
        return folder

    return make


def test_each_fold_begins_with_that_folds_weights(
    make_case, trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    began: dict[int, dict[str, np.ndarray]] = {}
    train = loop.FoldTrainer.train

    def noting(trainer):
        state = trainer.model.state_dict()
        began[trainer.fold] = {name: value.numpy().copy() for name, value in state.items()}
        return train(trainer)

    monkeypatch.setattr(fold_work.FoldTrainer, "train", noting)
    run = make_case(init_from=str(trained()), fgm_epsilon=0, seed=42).cross_validate()
    for fold in (0, 1):
        assert equal(began[fold], weights(trained(), fold))
        assert not equal(weights(run.folder, fold), weights(trained(), fold))
    assert not equal(weights(trained(), 0), weights(trained(), 1))


def test_the_first_loss_is_that_of_the_run_it_begins_with(make_case, trained) -> None:
    case = make_case(init_from=str(trained()), fgm_epsilon=0, dropout=0.0)
    origins = find_origins(case.task, case.tokenizer)
    plain = case.trainer()  # its model is that of the backbone
    origins.put_weights(plain.model, 0)
    rows = plain.order.batches(0)[0]
    batch = collate([plain.train_examples[row] for row in rows], case.tokenizer.pad_token_id)
    taught = case.task.empty_model(trained() / "fold0").eval()
    taught.load_state_dict({k: torch.from_numpy(v) for k, v in weights(trained(), 0).items()})
    with torch.no_grad():
        expected = case.task.loss(taught(batch.input_ids, batch.attention_mask), batch)
    found = plain.updater.update([rows], None, ())
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_mixout_and_weight_decay_pull_towards_the_first_weights(make_case, trained) -> None:
    case = make_case(
        init_from=str(trained()), mixout_probability=0.5, pretrained_weight_decay=0.1, fgm_epsilon=0
    )
    model = case.task.build_model(Path(case.task.settings.backbone), case.tokenizer, case.examples)
    find_origins(case.task, case.tokenizer).put_weights(model, 1)
    there = weights(trained(), 1)
    mixing = {n: m for n, m in model.named_modules() if isinstance(m, MixoutLinear)}
    assert mixing
    for name, module in mixing.items():
        assert np.array_equal(module.pretrained.numpy(), there[f"{name}.weight"])


def test_a_second_stage_stopped_by_the_clock_equals_an_unbroken_one(
    make_case, trained, soft, tmp_path
) -> None:
    more = {"init_from": str(trained()), "pseudo_labels": str(soft()), "batch_size": 2, "epochs": 2}
    more |= {"mixout_probability": 0.2, "pretrained_weight_decay": 0.1, "folds": (1,)}
    more |= {"fgm_epsilon": 0}
    make_case(output_dir=str(tmp_path / "unbroken"), **more).cross_validate()
    case = make_case(**more)
    slow, sessions = SlowFolds(case), 0
    while not case.cross_validate(clock=slow.clock(5)).finished_folds():
        sessions += 1
        assert sessions < 20
    assert sessions > 1
    assert equal(weights(tmp_path / "run", 1), weights(tmp_path / "unbroken", 1))
    assert (tmp_path / "run" / OOF).read_bytes() == (tmp_path / "unbroken" / OOF).read_bytes()


def test_a_student_learns_from_the_soft_rows_of_its_fold_and_is_scored_on_true_ones(
    make_case, soft, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    learned: list[tuple[str, list[float]]] = []

    def noting(examples, pad_id, device):
        learned.extend((example.id, example.target.tolist()) for example in examples)
        return collate_to(examples, pad_id, device)

    monkeypatch.setattr(shares, "collate_to", noting)
    folder = soft()
    case = make_case(pseudo_labels=str(folder), folds=(1,), epochs=2)
    run = case.cross_validate()
    table = pd.read_csv(folder / "soft.csv", dtype={"text_id": str}, keep_default_na=False)
    mine = table[table["fold"] == 1].set_index("text_id")
    targets = mine[list(case.task.settings.target_columns)]
    assert sorted(row_id for row_id, _ in learned) == sorted([*mine.index, *mine.index])
    assert all(targets.loc[row_id].tolist() == target for row_id, target in learned)
    true = [e.id for e, at in zip(case.examples, case.folds, strict=True) if at == 1]
    oof = pd.read_csv(run.folder / OOF, dtype={"text_id": str})
    assert oof["text_id"].tolist() == true
    bias = case.task.build_model(
        Path(case.task.settings.backbone),
        case.tokenizer,
        find_origins(case.task, case.tokenizer).train_rows(case.examples, case.folds, 1),
    ).head.bias
    assert np.allclose(bias.detach().numpy(), targets.mean().to_numpy(), atol=1e-6)


def test_the_model_of_all_rows_learns_from_the_mean_of_the_folds_labels(make_case, soft) -> None:
    case = make_case(pseudo_labels=str(soft()), n_folds=2)
    origins = find_origins(case.task, case.tokenizer)
    zero, one, whole = (origins.train_rows(case.examples, case.folds, n) for n in (0, 1, 2))
    assert [e.id for e in whole] == [e.id for e in zero] == [e.id for e in one]
    for a, b, mean in zip(zero, one, whole, strict=True):
        assert np.allclose(mean.target, (a.target + b.target) / 2)
        assert np.array_equal(mean.input_ids, a.input_ids)
    assert len(Origins().train_rows(case.examples, case.folds, 2)) == len(case.examples)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 7}, r"other folds: of 40 rows \d+ are in another fold there"),
        ({"n_folds": 3}, "other folds"),
        ({"max_rows": 30}, "10 are in one of the two only"),
        ({"keep_newlines": False}, "another tokenizer"),
        ({"pooling": "mean"}, "pooling='attention', this run has 'mean'"),
    ],
)
def test_weights_that_do_not_fit_or_would_leak_are_refused(
    make_case, trained, tmp_path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArtifactError, match=said):
        make_case(init_from=str(trained()), **changes).cross_validate()
    assert not (tmp_path / "run").exists()


def test_weights_of_another_backbone_are_refused(make_case, trained, material, tmp_path) -> None:
    other = shutil.copytree(material.backbone, tmp_path / "other")
    config = read_json(other / "config.json")
    write_json(other / "config.json", {**config, "layer_norm_eps": 1e-5})
    with pytest.raises(ArtifactError, match="another backbone"):
        make_case(init_from=str(trained()), backbone=str(other)).cross_validate()


def test_folds_that_are_missing_or_damaged_there_are_said(make_case, trained, tmp_path) -> None:
    with pytest.raises(ArtifactError, match="init_from='nowhere'"):
        make_case(init_from="nowhere").cross_validate()
    copy = shutil.copytree(trained(), tmp_path / "copy")
    path = copy / "fold1" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match="not the file that training wrote"):
        make_case(init_from=str(copy), folds=(1,)).cross_validate()
    shutil.rmtree(copy / "fold1")
    with pytest.raises(ArtifactError, match=r"no finished fold 1.*make merge"):
        make_case(init_from=str(copy), output_dir=str(tmp_path / "b")).cross_validate()
    with pytest.raises(ArtifactError, match="no finished fold 2"):
        make_case(init_from=str(trained()), full_data=True).cross_validate()


def test_a_run_is_known_by_what_it_begins_with_not_by_where_that_is(
    make_case, trained, soft, tmp_path
) -> None:
    labels, run = soft(), trained()
    make_case(init_from=str(run), pseudo_labels=str(labels), folds=(0,)).cross_validate()
    there = shutil.copytree(run, tmp_path / "there")
    moved = shutil.copytree(labels, tmp_path / "moved")
    same = make_case(init_from=str(there), pseudo_labels=str(moved / "soft.csv"))
    assert same.cross_validate(clock=Clock(0.0)).finished_folds() == [0]
    other = trained(learning_rate=3e-3)
    with pytest.raises(ArtifactError, match="other first weights"):
        make_case(init_from=str(other), pseudo_labels=str(labels)).cross_validate()
    with pytest.raises(ArtifactError, match="other first weights"):
        make_case(pseudo_labels=str(labels)).cross_validate()
    frame = pd.read_csv(labels / "soft.csv", dtype={"text_id": str}, keep_default_na=False)
    frame.loc[3, "syntax"] += 0.125
    folds = read_json(labels / "soft.json")["folds"]
    write_soft_rows(frame, labels / "soft.csv", folds=folds, facts={})
    with pytest.raises(ArtifactError, match="other soft labels"):
        make_case(init_from=str(run), pseudo_labels=str(labels)).cross_validate()


def test_soft_labels_of_other_folds_are_refused(make_case, soft) -> None:
    with pytest.raises(DataError, match="was made with other folds"):
        make_case(pseudo_labels=str(soft()), seed=7).cross_validate()
    with pytest.raises(DataError, match="no soft labels for fold 1"):
        make_case(pseudo_labels=str(soft(folds=(0,)))).cross_validate()


def test_a_fold_is_never_given_a_row_that_it_is_validated_on(make_case, soft) -> None:
    case = make_case()
    zero = next(e.id for e, at in zip(case.examples, case.folds, strict=True) if at == 0)
    good = make_case(pseudo_labels=str(soft(extra=[[1, zero]])), folds=(1,))
    assert good.cross_validate().finished_folds() == [1]
    bad = make_case(pseudo_labels=str(soft(extra=[[0, zero]])), folds=(1,))
    with pytest.raises(DataError, match=f"fold 0 would learn from rows .*: {zero}"):
        bad.cross_validate()


def test_a_table_that_is_not_what_was_written_is_refused(make_case, soft) -> None:
    folder = soft()
    case = make_case(pseudo_labels=str(folder))
    table, beside = folder / "soft.csv", folder / "soft.json"
    text = table.read_text()
    table.write_text(text.replace("1.5", "2.5", 1))
    with pytest.raises(ArtifactError, match="not the table that"):
        case.cross_validate()
    record = json.loads(beside.read_text())
    for broken, said in (("9.0", "numbers from 1"), ("", "numbers from 1")):
        table.write_text(text.replace(",1.5,", f",{broken},", 1))
        write_json(beside, {**record, "sha256": sha256(table)})
        with pytest.raises(DataError, match=said):
            case.cross_validate()
    table.write_text(text.replace("\n0,", "\nzero,", 1))
    write_json(beside, {**record, "sha256": sha256(table)})
    with pytest.raises(DataError, match="numbers of folds: zero"):
        case.cross_validate()
    beside.unlink()
    with pytest.raises(ArtifactError, match=r"soft\.json is missing"):
        case.cross_validate()
    with pytest.raises(ArtifactError, match=r"pseudo_labels='gone'.*soft\.csv"):
        make_case(pseudo_labels="gone").cross_validate()


@pytest.mark.parametrize("mount", ["input/{}", "input/datasets/owner/{}"])
def test_both_are_found_by_name_under_the_inputs(
    make_case, trained, soft, tmp_path, monkeypatch, mount: str
) -> None:
    run = shutil.copytree(trained(), tmp_path / mount.format("stage-one") / "run")
    shutil.copytree(soft(), tmp_path / mount.format("labels"))
    monkeypatch.setenv("KERNEL_LIB_KAGGLE_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    case = make_case(init_from="stage-one", pseudo_labels="labels")
    origins = find_origins(case.task, case.tokenizer)
    assert origins.start.folder == run and open_run(run).id == origins.start.id
    assert origins.soft.source.parent == tmp_path / mount.format("labels")
