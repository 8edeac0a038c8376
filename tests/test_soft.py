"""Soft labels: those of models that never saw the fold they are for, and nothing else's."""

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

from kernel_lib.artifacts import OOF, WEIGHTS, load_weights, open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, DataError, SettingsError, TrainingError
from kernel_lib.results.members import task_of
from kernel_lib.results.soft import main, write_soft_labels
from kernel_lib.runtime.clock import Clock
from kernel_lib.text.tokenizer import load_tokenizer

PLAIN = {"fold_scheme": "plain"}  # folds that do not depend on the labels


@pytest.fixture
def teacher(trained: Callable[..., Path]) -> Callable[..., Path]:
    """Gives a trained run folder, to be read only."""
    return lambda **changes: trained(**PLAIN, **changes)


def label(material, tmp_path: Path, *runs: Path, out: str = "soft", **options: Any) -> pd.DataFrame:
    """The table of soft labels of the test essays."""
    changes = {name: options.pop(name) for name in ("data_dir",) if name in options}
    settings = InferenceSettings(runs=tuple(map(str, runs)), precision="float32", **changes)
    texts = options.pop("texts", material.competition / "test.csv")
    path = write_soft_labels(settings, texts, tmp_path / out, **options)
    return pd.read_csv(path, dtype={"text_id": str}, keep_default_na=False)


def forward(run_folder: Path, fold: int, texts: pd.DataFrame) -> np.ndarray:
    """The plain way: one text at a time through a fold's model, clipped."""
    run = open_run(run_folder)
    task = task_of(run)
    tokenizer = load_tokenizer(run_folder / "tokenizer")
    model = task.empty_model(run.fold_folder(fold)).eval()
    load_weights(model, run.fold_folder(fold) / WEIGHTS)
    outputs = []
    for text in texts["full_text"]:
        ids = tokenizer(text, truncation=True, max_length=task.settings.max_length)["input_ids"]
        with torch.no_grad():
            outputs.append(model(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)))
    return np.clip(torch.cat(outputs).numpy(), 1, 5)


def of_fold(table: pd.DataFrame, fold: int, ids: pd.Series) -> np.ndarray:
    rows = table[table["fold"] == fold].set_index("text_id").loc[ids.tolist()]
    return rows.drop(columns=["fold", "full_text"]).to_numpy(float)


def test_each_folds_labels_are_those_of_its_own_teachers(teacher, material, tmp_path) -> None:
    runs = teacher(), teacher(pooling="mean", learning_rate=3e-3)
    table = label(material, tmp_path, *runs)
    test = pd.read_csv(material.competition / "test.csv", dtype=str)
    targets = list(task_of(open_run(runs[0])).settings.target_columns)
    assert list(table.columns) == ["fold", "text_id", "full_text", *targets]
    assert len(table) == 2 * len(test)
    for fold in (0, 1):
        expected = (forward(runs[0], fold, test) + forward(runs[1], fold, test)) / 2
        assert np.allclose(of_fold(table, fold, test["text_id"]), expected, atol=1e-5)
    apart = of_fold(table, 0, test["text_id"]) - of_fold(table, 1, test["text_id"])
    assert np.abs(apart).min() > 1e-4  # no fold has another one's
    written = dict(zip(test["text_id"], test["full_text"], strict=True))
    assert all(written[row["text_id"]] == row["full_text"] for _, row in table.iterrows())


def test_training_rows_are_labelled_outside_their_fold_and_mixed_with_the_truth(
    teacher, material, tmp_path
) -> None:
    run = teacher()
    folds = pd.read_csv(run / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    train = pd.read_csv(material.competition / "train.csv", dtype={"text_id": str})
    targets = list(task_of(open_run(run)).settings.target_columns)
    test = pd.read_csv(material.competition / "test.csv", dtype=str)
    plain = label(material, tmp_path, run)
    for share in (0.0, 0.3, 1.0):
        table = label(material, tmp_path, run, with_train=True, mix_true=share)
        assert len(table) == 2 * len(test) + len(train)
        for fold in (0, 1):
            others = train[train["text_id"].map(folds) != fold]
            found = table[table["fold"] == fold]["text_id"]
            assert set(found) == set(others["text_id"]) | set(test["text_id"])
            labels = forward(run, fold, others)
            expected = share * others[targets].to_numpy() + (1 - share) * labels
            assert np.allclose(of_fold(table, fold, others["text_id"]), expected, atol=1e-5)
            further = of_fold(plain, fold, test["text_id"])
            assert np.array_equal(of_fold(table, fold, test["text_id"]), further)


def test_the_labels_of_a_fold_know_nothing_of_its_true_ones(
    make_case, teacher, material, tmp_path
) -> None:
    """Poison: other true labels in fold 0, and neither teacher nor student of fold 0 moves."""
    clean = teacher()
    folds = pd.read_csv(clean / "folds.csv", dtype={"id": str}).set_index("id")["fold"]
    shutil.copytree(material.competition, tmp_path / "poisoned")
    frame = pd.read_csv(tmp_path / "poisoned/train.csv", dtype={"text_id": str})
    targets = list(task_of(open_run(clean)).settings.target_columns)
    there = frame["text_id"].map(folds) == 0
    frame.loc[there, targets] = 6 - frame.loc[there, targets]
    frame.to_csv(tmp_path / "poisoned/train.csv", index=False)
    data = {"data_dir": str(tmp_path / "poisoned")}
    poisoned = make_case(output_dir=str(tmp_path / "p"), **PLAIN, **data).cross_validate().folder
    options = {"with_train": True, "mix_true": 0.5}
    before = label(material, tmp_path, clean, out="clean", **options)
    after = label(material, tmp_path, poisoned, out="poison", **data, **options)
    assert before[before["fold"] == 0].equals(after[after["fold"] == 0])
    ids = before.loc[before["fold"] == 1, "text_id"]
    assert not np.array_equal(of_fold(before, 1, ids), of_fold(after, 1, ids))
    students = []
    for name, more in (("clean", {}), ("poison", data)):
        case = make_case(
            output_dir=str(tmp_path / f"student-{name}"),
            pseudo_labels=str(tmp_path / name),
            **PLAIN,
            **more,
        )
        students.append(case.cross_validate().folder)
    weights = [load_file(student / "fold0" / WEIGHTS) for student in students]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])
    predicted = [pd.read_csv(student / "fold0" / OOF).filter(like="pred_") for student in students]
    assert predicted[0].equals(predicted[1])
    weights = [load_file(student / "fold1" / WEIGHTS) for student in students]
    assert not all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.parametrize("same", ["id", "text"])
def test_a_training_row_among_the_further_texts_is_refused(
    teacher, material, tmp_path, same: str
) -> None:
    train = pd.read_csv(material.competition / "train.csv", dtype=str, keep_default_na=False)
    texts = pd.read_csv(material.competition / "test.csv", dtype=str, keep_default_na=False)
    if same == "id":
        texts.loc[2, "text_id"] = train.loc[5, "text_id"]
    else:
        texts.loc[2, "full_text"] = train.loc[5, "full_text"].replace(" ", "\n ", 3) + "\r\n"
    texts.to_csv(tmp_path / "more.csv", index=False)
    name = texts.loc[2, "text_id"]
    with pytest.raises(DataError, match=rf"1 texts are rows of train\.csv.*{name}\."):
        label(material, tmp_path, teacher(), texts=tmp_path / "more.csv")
    assert not (tmp_path / "soft").exists()


def test_without_further_texts_the_training_rows_alone_are_labelled(
    teacher, material, tmp_path
) -> None:
    run, options = teacher(), {"with_train": True, "mix_true": 0.5}
    test = pd.read_csv(material.competition / "test.csv", dtype=str)
    both = label(material, tmp_path, run, **options)
    alone = label(material, tmp_path, run, out="alone", texts=None, **options)
    expected = both[~both["text_id"].isin(test["text_id"])].reset_index(drop=True)
    assert alone.equals(expected) and len(alone) == 40


def test_weights_of_another_fold_are_no_teacher(own_run, material, tmp_path) -> None:
    """They have learned the very rows that their labels would be for."""
    run = own_run(**PLAIN)
    shutil.copy(run / "fold1" / WEIGHTS, run / "fold0" / WEIGHTS)
    with pytest.raises(ArtifactError, match="is not the file that training wrote"):
        label(material, tmp_path, run)
    assert not (tmp_path / "soft").exists()


def test_a_teacher_whose_epoch_its_own_fold_chose_is_named(
    teacher, material, tmp_path, capsys
) -> None:
    label(material, tmp_path, teacher())
    assert "keep=" not in capsys.readouterr().out
    label(material, tmp_path, teacher(keep="best"))
    assert "the rows of its own fold chose its weights" in capsys.readouterr().out


def test_teachers_of_other_folds_are_refused(teacher, material, tmp_path) -> None:
    other = teacher(n_folds=3, folds=(0,))
    with pytest.raises(ArtifactError, match=r"other folds: of 40 rows .* another fold there"):
        label(material, tmp_path, teacher(), other)
    with pytest.raises(ArtifactError, match="no finished fold 1, 2"):
        label(material, tmp_path, other)


def test_what_makes_no_sense_is_refused(teacher, material, tmp_path) -> None:
    with pytest.raises(SettingsError, match="with-train"):
        label(material, tmp_path, teacher(), mix_true=0.5)
    with pytest.raises(SettingsError, match="from 0 to 1"):
        label(material, tmp_path, teacher(), mix_true=1.5, with_train=True)
    with pytest.raises(SettingsError, match="nothing to label"):
        label(material, tmp_path, teacher(), texts=None)


def test_without_time_nothing_is_written(teacher, material, tmp_path) -> None:
    with pytest.raises(TrainingError, match="nothing is written"):
        label(material, tmp_path, teacher(), clock=Clock(0.0))
    assert not (tmp_path / "soft").exists()


def test_the_command(teacher, material, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "labels.csv"
    texts = str(material.competition / "test.csv")
    argv = ["soft", str(teacher()), "--texts", texts, "--out", str(out), "--with-train"]
    monkeypatch.setattr("sys.argv", [*argv, "--mix-true", "0.5"])
    assert main() == 0
    assert "54 labels, 7 further texts, 2 folds" in capsys.readouterr().out
    record = json.loads(out.with_suffix(".json").read_text())
    assert (record["mix_true"], record["with_train"], record["texts"]) == (0.5, True, 7)
    monkeypatch.setattr("sys.argv", ["soft", str(tmp_path), *argv[2:]])
    assert main() == 1
    assert "ArtifactError" in capsys.readouterr().err
