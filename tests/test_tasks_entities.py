"""The NER task in training: decoders, pieces, LoRA, resuming, and what a run keeps of it."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import OOF, WEIGHTS, load_weights, read_manifest, read_oof, read_tensors
from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.entities import entity_scores
from kernel_lib.model.backbone import load_backbone
from kernel_lib.tasks.entities import EntityTask
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings
from kernel_lib.tasks.registry import restore_task
from kernel_lib.tasks.word_probabilities import from_json
from kernel_lib.training.passes import predict_in_passes
from tests.conftest import entity_case
from tests.test_state import stop_after, without_seconds

LABELS = ["O", "B-X", "I-X", "B-Y", "I-Y"]
LITTLE = {"max_rows": 16, "batch_size": 4, "epochs": 2, "layer_decay": 1.0}
WITH_LORA = {"lora_rank": 2, "lora_dropout": 0.2, "learning_rate": 1e-2}
SYSTEMS = {
    "full": {"fgm_epsilon": 0.3},
    "crf, bare": {"decoder": "crf", "special_tokens": False, "subtoken": "mean"},
    "lora": {**WITH_LORA, "fgm_epsilon": 0.3, "decoder": "argmax", "subtoken": "last"},
    "lora and crf": {**WITH_LORA, "decoder": "crf", "gradient_checkpointing": True},
}


def predicted_again(case: Any, run: Any, fold: int) -> pd.DataFrame:
    """The out-of-fold table by the weights that were saved, in a model without LoRA."""
    task, folder = case.task, run.fold_folder(fold)
    model = restore_task(run.record).empty_model(folder)
    load_weights(model, folder / WEIGHTS)
    valid = [e for e, at in zip(case.examples, case.folds, strict=True) if at == fold]
    found = predict_in_passes(
        task,
        model,
        valid,
        pad_id=case.tokenizer.pad_token_id,
        batch_tokens=512,
        device=torch.device("cpu"),
        precision=case.trainer(fold).machine.precision,
    )
    return task.oof_frame(valid, found)


def is_as_kept(again: pd.DataFrame, oof: pd.DataFrame) -> None:
    """Equal, but for the last digit of probabilities: LoRA is merged in between."""
    for name in ("id", "tokens", "tags", "predicted"):
        assert again[name].tolist() == oof[name].tolist(), name
    for one, other, tags in zip(
        again["probabilities"], oof["probabilities"], oof["tags"], strict=True
    ):
        words = len(json.loads(tags))
        a, b = (from_json(text, words=words, labels=9, outside=0) for text in (one, other))
        np.testing.assert_allclose(a, b, atol=1.1e-3)


def unsure(oof: pd.DataFrame) -> dict[str, float]:
    """A score that is best at first: a model soon learns that most words are no entity."""
    found = [
        from_json(text, words=len(json.loads(tags)), labels=9, outside=0)
        for text, tags in zip(oof["probabilities"], oof["tags"], strict=True)
    ]
    return {"entity_f1": float(1 - np.concatenate(found)[:, 0].mean())}


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_stopped_run_ends_as_an_unbroken_one_with_plain_weights(
    make_entity_case, tmp_path, system: str
) -> None:
    """With dropout, and the best weights kept, which are not the last ones."""
    changes = {**LITTLE, **SYSTEMS[system], "dropout": 0.2, "keep": "best", "folds": (0,)}
    whole, broken = (
        make_entity_case(**changes, output_dir=str(tmp_path / name)) for name in ("a", "b")
    )
    for case in (whole, broken):
        case.task.scores = unsure
    expected = whole.cross_validate()
    for steps in (2, 3):
        trainer = broken.trainer()
        stop_after(trainer, steps)
        assert trainer.train() is None and trainer.resume_path.is_file()
        torch.manual_seed(999)
    run = broken.cross_validate()
    folder, other = run.fold_folder(0), expected.fold_folder(0)
    assert read_manifest(run, 0)["epoch"] == 1.0
    tensors, wanted = (read_tensors(each / WEIGHTS) for each in (folder, other))
    assert tensors.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(value, tensors[name]), name
    assert read_oof(run, 0).equals(read_oof(expected, 0))
    history, wanted_history = (
        [json.loads(line) for line in (each / "log.jsonl").read_text().splitlines()]
        for each in (folder, other)
    )
    assert without_seconds(history) == without_seconds(wanted_history)
    assert (history[-1]["fgm_ratio"] is not None) == ("fgm_epsilon" in SYSTEMS[system])
    plain = restore_task(run.record).empty_model(folder).state_dict()
    assert tensors.keys() == plain.keys() and not any("lora" in name for name in tensors)
    assert any(name.startswith("crf.") for name in tensors) == ("crf" in system)
    is_as_kept(predicted_again(whole, expected, 0), read_oof(expected, 0))


def test_lora_leaves_all_but_its_layers_and_the_head_as_they_were(make_entity_case, capsys) -> None:
    case = make_entity_case(**LITTLE, **WITH_LORA, folds=(0,), fgm_epsilon=0.3)
    run = case.cross_validate()
    assert (
        "LoRA of rank 2 beside 4 linear layers (query_proj, value_proj)" in capsys.readouterr().out
    )
    before = load_backbone(Path(case.task.settings.backbone), dropout=0.0)
    after = read_tensors(run.fold_folder(0) / WEIGHTS)
    newline = case.tokenizer.convert_tokens_to_ids("\n")
    changed = set()
    for name, value in before.state_dict().items():
        found = after[f"backbone.{name}"]
        if found.shape == value.shape:
            rows = [row for row in range(len(value)) if "word_emb" not in name or row != newline]
            value, found = value[rows], found[rows]
        else:
            found = found[: len(value)]  # a row for the line break is new
        if not torch.equal(value, found):
            changed.add(name)
    layers = [f"encoder.layer.{n}.attention.self" for n in (0, 1)]
    expected = {f"{name}.{part}_proj.weight" for name in layers for part in ("query", "value")}
    assert changed == expected


def test_recomputed_activations_give_lora_the_same_gradients(make_entity_case, tmp_path) -> None:
    models = []
    for name, recomputed in (("a", False), ("b", True)):
        case = make_entity_case(
            **{**LITTLE, "epochs": 1, **WITH_LORA, "lora_dropout": 0.0},
            gradient_checkpointing=recomputed,
            output_dir=str(tmp_path / name),
        )
        trainer = case.trainer()
        trainer.train()
        models.append(trainer.model.state_dict())
    assert any("lora_b" in name and value.any() for name, value in models[0].items())
    for name, value in models[0].items():
        assert torch.allclose(value, models[1][name], atol=1e-5), name


def test_a_low_rate_is_warned_of_with_lora_only(make_entity_case) -> None:
    for rank, warned in ((2, 1), (0, 0)):
        case = make_entity_case(lora_rank=rank, learning_rate=5e-5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            case.trainer()
        messages = [str(each.message) for each in caught]
        assert sum("learning_rate=5e-05 is low for LoRA" in m for m in messages) == warned


@pytest.fixture(scope="module")
def trained(entity_material, tmp_path_factory) -> Any:
    """A case of texts that are longer than a window, hostile ones among them, and its run."""
    root = tmp_path_factory.mktemp("hostile")
    frame = pd.read_csv(entity_material.competition / "train.csv", dtype=str)
    rows = [
        {"id": row["id"], "tokens": row["tokens"].split(), "tags": row["tags"].split()}
        for row in frame[:20].to_dict("records")
    ]
    words = ["\n", "Anna", "", " ", "\u200b", "\x00", "\r", "\u2028", '"', ",", "NA"]
    tags = ["O", "B-PERSON", *["I-PERSON"] * 4, *["O"] * 5]
    rows += [
        {"id": "\n", "tokens": words, "tags": tags},
        {"id": "empty", "tokens": [], "tags": []},
        {"id": "unseen", "tokens": [" ", ""], "tags": ["B-TIME", "I-TIME"]},
        {"id": "long", "tokens": rows[0]["tokens"] * 90, "tags": rows[0]["tags"] * 90},
    ]
    for row in rows:
        row["id"] = row["id"].strip() or "hostile"
    written = "\n".join(json.dumps(row) for row in rows)
    (root / "train.jsonl").write_text(written, encoding="utf-8")
    changes = {"data_dir": str(root), "train_files": ("train.jsonl",), "special_tokens": False}
    case = entity_case(entity_material, **changes, output_dir=str(root / "run"))
    return case, case.cross_validate(), {row["id"]: row for row in rows}


def test_every_word_of_every_text_is_scored_however_it_was_cut(trained) -> None:
    case, run, rows = trained
    assert len(case.examples) > 60
    assert run.record["rows"] == run.record["pooled"]["rows"] == 24
    assert sum(read_manifest(run, fold)["rows"] for fold in (0, 1)) == 24
    oof = pd.concat([read_oof(run, fold) for fold in (0, 1)])
    assert sorted(oof["id"]) == sorted(rows)
    gold, predicted = [], []
    for row in oof.to_dict("records"):
        wanted = rows[row["id"]]
        assert json.loads(row["tokens"]) == wanted["tokens"]
        assert json.loads(row["tags"]) == wanted["tags"] and row["domain"] == "train"
        gold.append(wanted["tags"])
        predicted.append(json.loads(row["predicted"]))
        assert len(predicted[-1]) == len(wanted["tokens"])
    kept = run.record["pooled"]["scores"]
    assert kept["entity_f1"] == entity_scores(gold, predicted).strict.micro.f1
    # What has no token is named by nobody, and counts as missed.
    of = {row["id"]: json.loads(row["predicted"]) for row in oof.to_dict("records")}
    assert of["empty"] == [] and of["unseen"] == ["O", "O"]
    text = (run.folder / OOF).read_text(encoding="utf-8")
    assert text.count("unseen") == 1


def test_windows_of_a_text_are_in_one_fold(trained) -> None:
    case, run, _ = trained
    folds = pd.read_csv(run.folder / "folds.csv", dtype=str, keep_default_na=False)
    fold_of = dict(zip(folds["id"], folds["fold"].map(int), strict=True))
    ids = case.task.read_train()["id"]
    for example, fold in zip(case.examples, case.folds, strict=True):
        assert fold_of[ids[example.row]] == fold


def test_a_run_keeps_what_inference_needs(trained) -> None:
    case, run, _ = trained
    text = (run.folder / "run.json").read_text(encoding="utf-8")
    kept = json.loads(text)
    types = ["LOCATION", "ORGANIZATION", "PERSON", "TIME"]
    assert kept["resources"] == {"labels": list(case.task.labels)} and len(case.task.labels) == 9
    assert sorted(kept["o_bias"]) == types and 0 <= kept["o_bias_f1"] <= 1
    assert "NaN" not in text
    task = restore_task(kept)
    assert isinstance(task, EntityTask) and task.labels == case.task.labels
    assert task.settings == EntitySettings.from_dict(kept["settings"]) == case.task.settings
    assert task.resources() == kept["resources"] and task.kind == case.task.kind


def test_a_run_with_one_fold_has_no_worth_of_its_choice(make_entity_case) -> None:
    run = make_entity_case(max_rows=12, folds=(1,)).cross_validate()
    text = (run.folder / "run.json").read_text(encoding="utf-8")
    assert json.loads(text)["o_bias_f1"] is None and "NaN" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resources": None}, "the labels in it are damaged"),
        ({"resources": ["labels"]}, "the labels in it are damaged"),
        ({"resources": {}}, "the labels in it are damaged"),
        ({"resources": {"labels": "O"}}, "the labels in it are damaged"),
        ({"resources": {"labels": ["O", "B-X"]}}, "the labels in it are damaged"),
        ({"o_bias": None}, "the o_bias in it is damaged"),
        ({"o_bias": {"Z": 1.0}}, "the o_bias in it is damaged"),
        ({"o_bias": {"X": float("nan")}}, "the o_bias in it is damaged"),
    ],
)
def test_a_damaged_record_is_an_artifact_error(changes: dict, message: str) -> None:
    record = {"task": "ner", "settings": {}, "resources": {"labels": LABELS}, **changes}
    with pytest.raises(ArtifactError, match=message):
        restore_task(record)


def test_all_runs_decide_as_the_best_one_unless_the_notebook_says_otherwise() -> None:
    record = {"task": "ner", "settings": {}, "resources": {"labels": LABELS}}
    leader = restore_task({**record, "o_bias": {"X": 1.5, "Y": -1}})
    other = restore_task({**record, "o_bias": {"X": 0.5}})
    found = np.array([[0.5, 0.3, 0, 0.2, 0]], dtype=np.float32)

    def tags(settings: EntityInferenceSettings) -> list[str]:
        both = []
        for member in (other, leader):
            member.agree_with(leader, settings)
            both.append(member._tags([found], member._o_bias)[0])
        assert both[0] == both[1]
        return both[0]

    best = EntityInferenceSettings()
    assert tags(best) == ["B-Y"]  # .2 e > .5, and .3 e^-1.5 is not
    assert tags(best.replace(o_bias=0.0)) == ["O"]
    leader = restore_task({**record, "o_bias": {"X": 1.5, "Y": -1}})
    assert tags(best.replace(o_bias=-1.0)) == ["B-X"]


def test_a_share_of_one_token_rows_asks_the_others_whether_outputs_are_by_token(
    make_entity_case,
) -> None:
    """One of several processes may get nothing but texts of a single token, and the others not:
    all must send arrays of one shape."""
    trainer = make_entity_case(special_tokens=False).trainer()
    evaluator, model = trainer.evaluator, trainer.model
    evaluator.valid = [
        dataclasses.replace(
            example,
            input_ids=example.input_ids[:1],
            words=np.zeros(1, np.int32),
            target=example.target[:1],
        )
        for example in evaluator.valid[:3]
    ]
    alone = evaluator.predict(model)
    asked: list[bool] = []
    sent: list[np.ndarray] = []

    def ask(flag: bool) -> bool:
        asked.append(flag)
        return len(asked) == 2  # nobody is late, and another process has longer texts

    def gather(values: np.ndarray, count: int) -> np.ndarray:
        sent.append(values)
        return values

    world = SimpleNamespace(size=2, share=lambda rows: rows, any=ask, gather_shares=gather)
    evaluator.machine = dataclasses.replace(evaluator.machine, world=world)
    together = evaluator.predict(model)
    assert asked == [False, False] and sent[0].shape == (3, 1, len(evaluator.task.labels))
    np.testing.assert_array_equal(together, alone)
