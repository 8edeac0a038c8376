"""Both systems, trained and joined: their corrections are those of a plain computation, sentence by
sentence, window by window, without batches."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import WEIGHTS, Run, load_weights
from kernel_lib.errors import SettingsError
from kernel_lib.model.corrector import COPY_ID
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runs import merge
from kernel_lib.runs.half import write_half_copy
from kernel_lib.runs.merge import merge_runs
from kernel_lib.runtime.clock import Clock
from kernel_lib.tasks.registry import restore_task
from kernel_lib.text.characters import CharacterEncoder, is_chinese
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.tokenizer import load_tokenizer
from kernel_lib.text.windows import cut_windows, owner_spans
from tests.conftest import spelling_case


@dataclass(frozen=True)
class Plain:
    """Predicts one text with one fold's model, a window at a time."""

    run: Run
    model: Any
    characters: CharacterEncoder

    def read(self, text: list[int]) -> list[tuple[float, dict[int, float]]]:
        """Of each character the probability of keeping it, and its five likeliest others."""
        settings = restore_task(self.run.record).settings
        size, overlap = settings.max_length - 2, settings.window_overlap
        spans = cut_windows(len(text), size=size, overlap=overlap)
        found: list[tuple[float, dict[int, float]]] = []
        for (start, stop), (first, last) in zip(spans, owner_spans(spans), strict=True):
            ids = torch.tensor(
                [[self.characters.cls_id, *text[start:stop], self.characters.sep_id]]
            )
            with torch.no_grad():
                p = torch.softmax(self.model(ids, torch.ones_like(ids)).logits[0], -1).numpy()
            for at in range(first, last):
                found.append(self.one(p[at - start + 1], text[at], settings))
        return found

    def one(self, p: np.ndarray, own: int, settings: Any) -> tuple[float, dict[int, float]]:
        if own == self.characters.unknown_id:
            return 1.0, {}
        copies = settings.system == "copy" and settings.copy_label
        keep = sum(float(p[i]) for i in {own, *((0, COPY_ID) if copies else ())})
        allowed = self.characters.writable.copy()
        allowed[own] = False
        best = np.argsort(-p[: len(allowed)] * allowed, kind="stable")[:5]
        return keep, {int(i): float(p[i]) for i in best}

    def passes(self, source: str, count: int) -> list[tuple[float, dict[int, float]]]:
        text = self.characters.ids(source).tolist()
        spans_once = len(text) <= restore_task(self.run.record).settings.max_length - 2
        assert count == 1 or spans_once, "windows that overlap may read different changes"
        settled: dict[int, tuple[float, dict[int, float]]] = {}
        for _ in range(count):
            now = {at: row for at, row in enumerate(self.read(text)) if at not in settled}
            for at, (keep, others) in now.items():
                best = max(others, key=others.get, default=None)
                if best is not None and others[best] > keep and self.characters.writable[text[at]]:
                    settled[at] = (keep, others)
            for at in settled:
                text[at] = max(settled[at][1], key=settled[at][1].get)
        return [settled.get(at, now.get(at)) for at in range(len(text))]


def plain_members(runs: list[Run]) -> list[list[Plain]]:
    members = []
    for run in runs:
        characters = CharacterEncoder(load_tokenizer(run.folder / "tokenizer"))
        task, folds = restore_task(run.record), []
        for fold in run.finished_folds():
            model = task.empty_model(run.fold_folder(fold)).eval()
            load_weights(model, run.fold_folder(fold) / WEIGHTS)
            folds.append(Plain(run, model, characters))
        members.append(folds)
    return members


def mean(rows: list[tuple[float, dict[int, float]]]) -> tuple[float, dict[int, float]]:
    """Of full distributions, where what is not named has probability 0; the five likeliest."""
    names = dict.fromkeys(name for _, others in rows for name in others)
    shares = {name: sum(o.get(name, 0.0) for _, o in rows) / len(rows) for name in names}
    kept = sorted(shares, key=lambda name: -shares[name])[:5]
    return sum(keep for keep, _ in rows) / len(rows), {name: shares[name] for name in kept}


def expected_changes(members: list[list[Plain]], source: str, count: int = 1) -> list[tuple]:
    """Positions, characters and probabilities, by the likeliest character alone."""
    of_runs = []
    for folds in members:
        each = [plain.passes(source, count) for plain in folds]
        of_runs.append([mean(list(rows)) for rows in zip(*each, strict=True)])
    changes = []
    for at, rows in enumerate(zip(*of_runs, strict=True)):
        keep, others = mean(list(rows))
        best = max(others, key=others.get, default=None)
        if best is not None and others[best] > keep and is_chinese(source[at]):
            changes.append((at, members[0][0].characters.character(best), others[best]))
    return changes


def check(rows: list[dict[str, Any]], runs: list[Run], count: int = 1) -> int:
    """Compares with the plain computation; gives the number of changes."""
    members, changes = plain_members(runs), 0
    for row in rows:
        expected = expected_changes(members, row["source"], count)
        found = [(c["position"], c["right"], c["probability"]) for c in row["changes"]]
        assert [pair[:2] for pair in found] == [pair[:2] for pair in expected], row["source"]
        assert [p for *_, p in found] == pytest.approx([p for *_, p in expected], abs=2e-4)
        text = list(row["source"])
        for at, right, _ in expected:
            text[at] = right
        assert row["corrected"] == "".join(text)
        changes += len(found)
    return changes


def test_an_ensemble_corrects_as_a_plain_computation_does(correct, spelling_runs, capsys) -> None:
    rows = correct()
    assert "folds used: run: 0 1; " not in capsys.readouterr().out  # the names tell them apart
    assert len(rows) == 22 and max(len(row["source"]) for row in rows) > 1000
    assert check(rows, spelling_runs) > 100


def test_a_second_pass_reads_the_corrections_of_the_first(
    correct, spelling_runs, spelling_material
) -> None:
    frame = pd.read_csv(
        spelling_material.competition / "test.csv", dtype=str, keep_default_na=False
    )
    texts = [text for text in frame["source"] if len(text) <= 30]
    one, two = correct(texts), correct(texts, passes=2)
    assert check(two, spelling_runs, 2) > 30
    assert [row["changes"] for row in one] != [row["changes"] for row in two]


LEFT_ALONE = [
    "",
    " ",
    "ABC def 123!?",
    "😀👍🏽",
    "龘靐齉",
    "“……”——",
    "\x00\x07\x7f",
    "ＡＢＣ１２３",
    "a\r\nb",
]


def test_what_is_not_chinese_or_not_known_is_never_changed_and_nothing_shifts(correct) -> None:
    sentence = "我们在家里写作业"
    mixed = [left + sentence + left + sentence for left in LEFT_ALONE]
    rows = correct([*LEFT_ALONE, *mixed])
    for row in rows[: len(LEFT_ALONE)]:
        assert row["corrected"] == row["source"] and row["changes"] == []
    for row in rows[len(LEFT_ALONE) :]:
        assert len(row["corrected"]) == len(row["source"])
        for before, after in zip(row["source"], row["corrected"], strict=True):
            assert before == after or (before in sentence and is_chinese(after))
    assert sum(len(row["changes"]) for row in rows) > 30
    with open(correct.settings.submission, encoding="utf-8", newline="") as file:
        written = {row["id"]: row["target"] for row in csv.DictReader(file)}
    assert written == {row["id"]: row["corrected"] for row in rows}


def test_switches_of_the_notebook(correct, spelling_runs, spelling_material) -> None:
    texts = ["我们再家里做作业，abc 123。", "他座在园桌旁边"]
    confusion = ConfusionSet.read([spelling_material.competition / "confusion.txt"])

    def changes(**switches: Any) -> list[tuple[str, str, float]]:
        rows = correct(texts, runs=(str(spelling_runs[1].folder),), **switches)
        return [(c["wrong"], c["right"], c["probability"]) for r in rows for c in r["changes"]]

    plain = changes()
    assert plain and all(is_chinese(wrong) for wrong, *_ in plain)
    middle = sorted(p for *_, p in plain)[len(plain) // 2]
    assert changes(threshold=middle - 6e-5) == [c for c in plain if c[2] >= middle]
    assert changes(threshold=1.0) == []
    anything = changes(chinese_only=False)
    assert any(not is_chinese(wrong) for wrong, *_ in anything) and set(plain) < set(anything)
    restricted = changes(confusion_only=True)
    assert all(confusion.allows(wrong, right) for wrong, right, _ in restricted)


def test_a_text_of_ten_thousand_characters_is_corrected_in_place(correct) -> None:
    rows = correct(["我们再家里做作业。" * 1112, "好"])
    assert len(rows[0]["corrected"]) == len(rows[0]["source"]) == 10008
    positions = [change["position"] for change in rows[0]["changes"]]
    assert positions == sorted(set(positions)) and positions[-1] > 9000
    unchanged = set(range(10008)) - set(positions)
    assert all(rows[0]["corrected"][at] == rows[0]["source"][at] for at in unchanged)


def test_the_first_file_is_the_sources_in_the_samples_order(
    correct, spelling_material, tmp_path: Path
) -> None:
    folder = spelling_material.competition
    test = pd.read_csv(folder / "test.csv", dtype=str, keep_default_na=False).set_index("id")
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str, keep_default_na=False)
    correct()
    found = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    assert found["id"].tolist() == sample["id"].tolist() and list(found) == list(sample)
    assert found["target"].tolist() != sample["target"].tolist()
    predict_submission(correct.settings, Clock(0.5, now=iter([0.0, *[9.0] * 1000]).__next__))
    first = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    assert first["target"].tolist() == test.loc[sample["id"], "source"].tolist()


def test_a_run_without_confusion_set_may_follow_one_that_has_it(
    correct, spelling_runs, spelling_material, tmp_path: Path
) -> None:
    case = spelling_case(
        spelling_material, confusion_files=(), folds=(0,), output_dir=str(tmp_path / "third")
    )
    third = case.cross_validate()
    leader = shutil.copytree(spelling_runs[1].folder, tmp_path / "leader")
    record = json.loads((leader / "run.json").read_text(encoding="utf-8"))
    pooled = {**record["pooled"], "scores": {"correction_f1": 1.0}}
    (leader / "run.json").write_text(json.dumps({**record, "pooled": pooled}))
    both = (str(third.folder), str(leader))
    rows = correct(["我们再家里做作业，他座在园桌旁边"], runs=both, confusion_only=True)
    assert len(rows) == 1
    with pytest.raises(SettingsError, match="the best run was trained without confusion_files"):
        correct(["我"], runs=both[:1], confusion_only=True)


def test_a_copy_in_half_precision_and_a_merged_run_predict_the_same(
    correct, spelling_runs, spelling_material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "write_report", lambda run: run.folder)
    changes = write_half_copy(
        spelling_runs[1].folder, tmp_path / "half", str(spelling_material.competition)
    )
    assert [change.fold for change in changes] == [0, 2]
    assert all(0 < change.largest < 0.01 for change in changes)
    merged = merge_runs([spelling_runs[1].folder], tmp_path / "merged")
    again = json.loads((tmp_path / "merged/run.json").read_text(encoding="utf-8"))
    assert again["decoding"] == json.loads(json.dumps(merged.record["decoding"]))
    expected = correct(runs=(str(spelling_runs[1].folder),))
    assert correct(runs=(str(tmp_path / "merged"),)) == expected
    half = correct(runs=(str(tmp_path / "half"),))
    same = sum(
        one["corrected"] == other["corrected"] for one, other in zip(half, expected, strict=True)
    )
    assert same >= 20
