"""The CSC task in training: windows, folds, noise, resuming, and what a run keeps of it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import OOF, read_manifest, read_oof
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.results.corrections import read_corrections
from kernel_lib.tasks.decoding import Decoding
from kernel_lib.tasks.registry import restore_task
from kernel_lib.tasks.spelling import SpellingTask
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.text.confusion import ConfusionSet
from tests.conftest import Material, spelling_case
from tests.test_memory import LittleMemory
from tests.test_state import stop_after, without_seconds

SYSTEMS = {
    "copy": {"system": "copy"},
    "detect": {"system": "detect", "fgm_epsilon": 0.3},
}


@pytest.mark.parametrize(("system", "memory"), [("copy", 10**9), ("detect", 3)])
def test_resumed_equals_unbroken(
    make_spelling_case, tmp_path: Path, system: str, memory: int
) -> None:
    """With dropout, masked and confused characters, and batches that memory does not hold."""
    changes = {
        **SYSTEMS[system],
        "dropout": 0.2,
        "mask_rate": 0.2,
        "noise_rate": 0.2,
        "epochs": 2,
        "keep": "best",
        "max_rows": 24,
    }
    unbroken = make_spelling_case(**changes, output_dir=str(tmp_path / "a")).trainer()
    LittleMemory(unbroken.model, rows=memory)
    unbroken.evaluator.predict = lambda model, clock=None, real=unbroken: predictions_of(real)
    expected = unbroken.train()
    assert unbroken.state.progress.updates > 5
    case = make_spelling_case(**changes, output_dir=str(tmp_path / "b"))
    result = None
    for steps in (2, 1, 10**9):
        resumed = case.trainer()
        LittleMemory(resumed.model, rows=memory)
        resumed.evaluator.predict = lambda model, clock=None, real=resumed: predictions_of(real)
        if steps < 10**9:
            stop_after(resumed, steps)
        result = resumed.train()
        assert (result is None) == (steps < 10**9)
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert result.oof.equals(expected.oof)
    assert without_seconds(result.history) == without_seconds(expected.history)


def predictions_of(trainer) -> np.ndarray:
    """The evaluator's, with all the memory there is."""
    little, trainer.model.forward = trainer.model.forward, trainer.model.forward.model_forward
    try:
        return type(trainer.evaluator).predict(trainer.evaluator, trainer.model)
    finally:
        trainer.model.forward = little


def test_noise_is_another_in_each_epoch_and_row_and_reaches_the_model(make_spelling_case) -> None:
    case = make_spelling_case(mask_rate=0.5, epochs=2)
    trainer = case.trainer()
    mask, seen = case.task.characters.mask_id, []

    def look(model, inputs) -> None:
        if model.training:
            seen.append((inputs[0] == mask).float().mean())

    trainer.model.register_forward_pre_hook(look)
    trainer.train()
    assert min(seen) > 0.2  # of all places, padding and errors included
    updater, state = trainer.updater, trainer.state.progress
    first = [updater.shares.seen(row).input_ids.tolist() for row in range(4)]
    assert first == [updater.shares.seen(row).input_ids.tolist() for row in range(4)]
    state.epoch += 1
    assert first != [updater.shares.seen(row).input_ids.tolist() for row in range(4)]
    assert (np.array([mask in case.examples[row].input_ids for row in range(4)]) == 0).all()


@pytest.fixture(scope="module")
def hostile(spelling_material, tmp_path_factory) -> Material:
    """Among the sentences some that a table may spoil, and one of 3,000 characters."""
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(spelling_material.competition, root / "competition")
    frame = pd.read_csv(root / "competition/train.csv", dtype=str, keep_default_na=False)
    texts = ["", "NA", "1.0", "a\rb", "a\nb", "\x00我再", '"', "\u2028", " ", ",", "再" * 3000]
    rows = [{"id": f"0{n}", "source": t, "target": t, "domain": ""} for n, t in enumerate(texts)]
    rows[5]["target"] = "\x00我在"
    lines = [*frame.to_dict("records"), *rows]
    written = "\n".join(json.dumps(row, ensure_ascii=False) for row in lines)
    (root / "competition/train.jsonl").write_text(written, encoding="utf-8")
    return Material(root / "competition", spelling_material.backbone)


@pytest.fixture(scope="module")
def trained(hostile, tmp_path_factory):
    """A case of texts that are longer than a window, hostile ones among them, and its run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    case = spelling_case(hostile, train_files=("train.jsonl",), output_dir=str(folder))
    return case, case.cross_validate()


def test_a_run_counts_texts_not_windows(trained) -> None:
    case, run = trained
    assert len(case.examples) > 59
    folds = pd.read_csv(run.folder / "folds.csv", dtype=str, keep_default_na=False)
    frame = case.task.read_train()
    assert folds["id"].tolist() == frame["id"].tolist()
    assert run.record["rows"] == run.record["pooled"]["rows"] == 59
    assert sum(read_manifest(run, fold)["rows"] for fold in (0, 1)) == 59
    fold_of = dict(zip(folds["id"], folds["fold"].map(int), strict=True))
    for example, fold in zip(case.examples, case.folds, strict=True):
        assert fold_of[frame["id"][example.row]] == fold
    oof = pd.read_csv(run.folder / OOF, dtype=str, keep_default_na=False)
    assert sorted(oof["id"]) == sorted(frame["id"])


def test_out_of_fold_texts_are_those_of_the_file_character_by_character(trained) -> None:
    case, run = trained
    frame = case.task.read_train().set_index("id")
    found = read_corrections(run).set_index("id")
    for name in ("source", "target", "domain"):
        assert found.loc[frame.index, name].tolist() == frame[name].tolist()
    assert (found["corrected"].str.len() == found["source"].str.len()).all()
    for _, row in found.iterrows():
        pairs = zip(row["source"], row["corrected"], strict=True)
        changed = [at for at, (a, b) in enumerate(pairs) if a != b]
        assert [change.position for change in row["changes"]] == changed
    for fold in (0, 1):
        assert set(read_oof(run, fold)["fold"]) == {fold}
    assert OOF in {path.name for path in run.folder.iterdir()}


def test_a_run_keeps_what_inference_needs(trained, hostile) -> None:
    _, run = trained
    kept = json.loads((run.folder / "run.json").read_text(encoding="utf-8"))
    confusion = ConfusionSet.read([hostile.competition / "confusion.txt"])
    assert kept["resources"] == {"confusion": confusion.to_dict()}
    assert len(kept["identity"]["resources"]) == 16  # no second copy of it
    assert set(kept["decoding"]) == {"threshold", "chinese_only", "confusion_only", "passes"}
    assert len(kept["decoding_curve"]) == 50 and 0 <= kept["decoding_f1"] <= 1
    task = restore_task(kept)
    assert task.decoding == Decoding(**kept["decoding"]) and task.resources() == kept["resources"]
    assert task.settings == SpellingSettings.from_dict(kept["settings"])


def test_the_size_of_the_record_is_that_of_the_confusion_set(make_spelling_case) -> None:
    case = make_spelling_case()
    characters = [chr(0x4E00 + n) for n in range(3000)]
    table = {one: "".join(characters[n : n + 40]) for n, one in enumerate(characters)}
    case.task._confusion = ConfusionSet.from_dict(table)
    path = case.trainer().run.folder / "run.json"
    size = len(json.dumps(case.task.resources(), ensure_ascii=False).encode())
    assert size < path.stat().st_size < 1.2 * size + 20_000


def test_a_run_with_one_fold_has_no_worth_of_its_choice(make_spelling_case) -> None:
    run = make_spelling_case(folds=(1,), max_passes=1).cross_validate()
    text = (run.folder / "run.json").read_text(encoding="utf-8")
    assert json.loads(text)["decoding_f1"] is None and "NaN" not in text
    assert run.record["decoding"]["passes"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoding": {"threshold": "0.5"}}, "the decoding in it is damaged"),
        ({"decoding": []}, "the decoding in it is damaged"),
        ({"resources": {"confusion": 3}}, "the confusion set in it is damaged"),
        ({"resources": None}, "the confusion set in it is damaged"),
    ],
)
def test_a_damaged_record_is_an_artifact_error(changes: dict, message: str) -> None:
    record = {"task": "csc", "settings": {}, **changes}
    with pytest.raises(ArtifactError, match=message):
        restore_task(record)


def task_with(decoding: Decoding, confusion: ConfusionSet | None = None) -> SpellingTask:
    record = {"decoding": dataclasses.asdict(decoding)}
    resources = {"resources": {"confusion": confusion.to_dict()}} if confusion else {}
    return restore_task({"task": "csc", "settings": {"max_passes": 3}, **record, **resources})


def test_all_runs_decide_as_the_best_one_unless_the_notebook_says_otherwise() -> None:
    confusion = ConfusionSet.from_dict({"在": "再"})
    leader = task_with(Decoding(0.5, True, True, 2), confusion)
    other = task_with(Decoding(0.1, False, False, 1))
    for member in (leader, other):
        member.agree_with(leader, SpellingInferenceSettings())
        assert member.decoding == Decoding(0.5, True, True, 2) and member.passes == 2
    assert other.resources() == leader.resources()  # within the best run's confusion set
    changed = SpellingInferenceSettings(threshold=0.0, passes=4, confusion_only=False)
    for member in (leader, other):
        member.agree_with(leader, changed)
        assert member.decoding == Decoding(0.0, True, False, 4) and member.passes == 4


def test_what_needs_a_confusion_set_is_refused_without_one() -> None:
    leader = task_with(Decoding())
    with pytest.raises(SettingsError, match=r"confusion_only=True, but the best run"):
        leader.agree_with(leader, SpellingInferenceSettings(confusion_only=True))


def test_only_the_encoders_are_frozen_or_loaded_as_everywhere(make_spelling_case) -> None:
    case = make_spelling_case(freeze_layers=1, freeze_embeddings=False, gradient_checkpointing=True)
    backbone = Path(case.task.settings.backbone)
    model = case.task.build_model(backbone, case.tokenizer, case.examples)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(".layer.0." in name for name in frozen)
    taken = make_spelling_case(pretrained_head=False)
    other = taken.task.build_model(backbone, case.tokenizer, case.examples)
    assert not torch.equal(model.head.dense.weight, other.head.dense.weight)
