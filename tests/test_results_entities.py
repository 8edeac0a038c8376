"""Named entities read back as a table, counted, and told in words."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from kernel_lib.artifacts import MANIFEST, OOF, Run, write_csv
from kernel_lib.errors import ArtifactError
from kernel_lib.results import entities
from kernel_lib.results.entities import (
    bias_text,
    count_entities,
    read_predicted,
    read_tagged_oof,
    scores_text,
)
from kernel_lib.runtime.files import sha256
from kernel_lib.tasks.entity_settings import EntityInferenceSettings
from tests.tagged import SENTENCES, tagged_frame

LABELS = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]


def make_run(folder: Path, damage: dict[str, Any] | None = None) -> Run:
    """A run folder with out-of-fold tags of two folds and nothing else."""
    frame = tagged_frame().assign(probabilities="[]")
    for name in ("tokens", "tags", "predicted"):
        frame[name] = [json.dumps(each, ensure_ascii=False) for each in frame[name]]
    for fold, part in frame.assign(**damage or {}).groupby("fold"):
        path = folder / f"fold{fold}"
        path.mkdir(parents=True)
        first = ["id", "fold", *(name for name in part if name not in ("id", "fold"))]
        write_csv(part[first], path / OOF)
        manifest = {"run_id": "r", "fold": fold, "sha256": {OOF: sha256(path / OOF)}}
        (path / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return Run(folder, {"run_id": "r", "settings": {}})


def test_entities_are_counted_by_domain() -> None:
    table = count_entities(tagged_frame())
    assert table.columns.tolist() == ["texts", "words", "LOC", "ORG", "PER"]
    assert table.index.tolist() == ["news", "notes", "zh"]
    assert table.loc["notes"].tolist() == [2, 10, 1, 0, 1]
    assert table["LOC"].tolist() == [3, 1, 1] and table["texts"].sum() == 7
    odd = count_entities(tagged_frame([("a b", (("words", 0, 1), ("texts", 1, 2)), (), "x")]))
    assert odd.to_numpy().tolist() == [[1, 2, 1, 1]]


def test_out_of_fold_tags_are_read_back_as_lists(tmp_path: Path) -> None:
    frame = read_tagged_oof(make_run(tmp_path))
    wanted = tagged_frame().sort_values("fold", kind="stable", ignore_index=True)
    assert frame.columns.tolist() == ["id", "fold", "domain", "tokens", "tags", "predicted"]
    for name in frame:
        assert frame[name].tolist() == wanted[name].tolist()
    assert "Strict" in scores_text(frame)


def test_a_run_without_a_finished_fold_has_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="has no finished fold yet"):
        read_tagged_oof(Run(tmp_path, {"settings": {}}))


@pytest.mark.parametrize("damage", [{"tags": "B"}, {"tokens": "7"}, {"predicted": '"O"'}])
def test_damaged_tags_are_an_error_with_words(tmp_path: Path, damage: dict[str, str]) -> None:
    with pytest.raises(ArtifactError, match=r"tags of .* are damaged .* Copy it again"):
        read_tagged_oof(make_run(tmp_path, damage))


def test_scores_and_confusion_are_told() -> None:
    text = scores_text(tagged_frame())
    assert "0.3750    0.3333    0.3529         3         8         9" in text
    assert "gold \\ predicted" in text


def predicted_by(
    monkeypatch: pytest.MonkeyPatch, folder: Path, test: pd.DataFrame, lines: list[dict[str, Any]]
) -> pd.DataFrame:
    """What is read when runs read those test texts, and inference wrote those lines."""
    task = SimpleNamespace(read_test=lambda settings: SimpleNamespace(frame=test))
    monkeypatch.setattr(entities, "find_runs", lambda runs: [])
    monkeypatch.setattr(entities, "gather_members", lambda runs: [])
    monkeypatch.setattr(entities, "best_first", lambda members: [SimpleNamespace(task=task)])
    path = folder / "entities.jsonl"
    written = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(written, encoding="utf-8", newline="")
    return read_predicted(EntityInferenceSettings(entities=str(path)))


def test_what_inference_wrote_becomes_tags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    test = tagged_frame(without=("predicted", "fold"))
    lines = [
        {
            "id": f"t{number}",
            "tokens": ["\u2028"],
            "entities": [
                {"type": name, "start": start, "end": end, "words": [], "probability": 0.5}
                for name, start, end in predicted
            ],
        }
        for number, (_, _, predicted, _) in enumerate(SENTENCES)
    ]
    frame = predicted_by(monkeypatch, tmp_path, test, lines[::-1])
    assert frame["id"].tolist() == test["id"].tolist()
    assert frame["predicted"].tolist() == tagged_frame()["predicted"].tolist()
    with pytest.raises(ArtifactError, match=r"no line for text t6: .* Predict again"):
        predicted_by(monkeypatch, tmp_path, test, lines[:-1])
    lines[0]["tags"] = ["I-LOC", "O", "O", "O", "O"]  # of the decoder argmax
    orphan = predicted_by(monkeypatch, tmp_path, test, lines)
    assert orphan["predicted"][0] == ["I-LOC", "O", "O", "O", "O"]
    assert "cannot stand in BIO: 1 predicted" in scores_text(orphan)
    del lines[0]["tags"]
    one = predicted_by(monkeypatch, tmp_path, test.head(1), lines)  # lists stay lists
    assert one["predicted"].tolist() == [["O"] * 5]


def test_biases_are_told_in_words() -> None:
    def told(**record: Any) -> str:
        return bias_text(Run(Path("run"), record))

    labels = {"resources": {"labels": LABELS}}
    assert told() == told(o_bias=None, **labels)
    assert told().startswith("no o_bias is chosen yet")
    assert told(o_bias={"LOC": -0.5}, o_bias_f1=0.25, **labels) == (
        "o_bias LOC -0.5, ORG +0; strict micro F1 of folds left out of it: 0.2500"
    )
    assert told(o_bias={"LOC": 1.0, "ORG": 2.0}, o_bias_f1=None, **labels) == (
        "o_bias LOC +1, ORG +2"
    )
    for damaged in ({"o_bias": {"X": 1.0}}, {"o_bias": [1]}, {"o_bias": {"LOC": "much"}}):
        with pytest.raises(ArtifactError, match=r"o_bias or the labels in run\.json are damaged"):
            told(**damaged, **labels)
    with pytest.raises(ArtifactError, match="labels"):
        told(o_bias={"LOC": 1.0}, resources=7)
    with pytest.raises(ArtifactError, match="o_bias_f1"):
        told(o_bias={}, o_bias_f1="much", **labels)
