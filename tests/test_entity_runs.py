"""Two runs, trained and joined: their entities are those of a plain computation, text by text,
window by window, without batches."""

from __future__ import annotations

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
from kernel_lib.config import digest
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.metrics.tag_faults import illegal_tags
from kernel_lib.metrics.tags import read_spans
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runs import merge
from kernel_lib.runs.half import write_half_copy
from kernel_lib.runs.merge import merge_runs
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.tasks.registry import restore_task
from kernel_lib.text.tokenizer import load_tokenizer
from kernel_lib.text.windows import owner_spans
from kernel_lib.text.words import encode_words
from kernel_lib.training.passes import predict_in_passes


def may_follow(before: str | None, tag: str) -> bool:
    return tag[0] != "I" or (before is not None and before[0] != "O" and before[2:] == tag[2:])


@dataclass(frozen=True)
class Plain:
    """Predicts one text with one fold's model, a window at a time, in float64 from the encoder."""

    run: Run
    model: Any
    tokenizer: Any
    labels: tuple[str, ...]

    def read(self, tokens: list[str]) -> np.ndarray:
        """``(words, labels)``: from the window in which a word is deepest; of two, the later."""
        settings = restore_task(self.run.record).settings
        whole = np.zeros((len(tokens), len(self.labels)))
        whole[:, 0] = 1.0
        depth = np.full(len(tokens), -1)
        windows = encode_words(
            self.tokenizer,
            tokens,
            max_length=settings.max_length,
            overlap=settings.window_overlap,
            special_tokens=settings.special_tokens,
        )
        for window in windows:
            ends = window.start == 0, window.stop == len(tokens)
            found = self.window(window, settings) if len(window.input_ids) else {}
            for word in range(window.start, window.stop):
                left = 10**9 if ends[0] else word - window.start
                right = 10**9 if ends[1] else window.stop - 1 - word
                if min(left, right) >= depth[word]:
                    depth[word] = min(left, right)
                    if word in found:
                        whole[word] = found[word]
        return whole

    def window(self, window: Any, settings: Any) -> dict[int, np.ndarray]:
        ids = torch.from_numpy(window.input_ids.astype(np.int64))[None]
        with torch.no_grad():
            states = self.model.backbone(
                input_ids=ids, attention_mask=torch.ones_like(ids)
            ).last_hidden_state[0]
        states = states.double().numpy()
        weight, bias = (p.detach().double().numpy() for p in self.model.head.parameters())
        words = list(dict.fromkeys(word for word in window.words.tolist() if word >= 0))
        scores = []
        for word in words:
            pieces = states[window.words == word]
            one = {"first": pieces[0], "last": pieces[-1], "mean": pieces.mean(0)}
            scores.append(weight @ one[settings.subtoken] + bias)
        if settings.decoder == "crf" and words:
            shares = self.marginals(np.stack(scores), begins=window.start == 0)
        else:
            shares = [np.exp(s - s.max()) / np.exp(s - s.max()).sum() for s in scores]
        return dict(zip(words, shares, strict=True))

    def marginals(self, scores: np.ndarray, *, begins: bool) -> np.ndarray:
        """By sums over all tags before and behind."""
        crf = {name: p.detach().double().numpy() for name, p in self.model.crf.named_parameters()}
        steps = np.exp(crf["transitions"])
        start = np.exp(crf["start"]) if begins else np.ones(len(self.labels))
        for column, tag in enumerate(self.labels):
            for row, before in enumerate(self.labels):
                steps[row, column] *= may_follow(before, tag)
            start[column] *= may_follow(None, tag) or not begins
        emitted = np.exp(scores)
        forward, backward = [start * emitted[0]], [np.exp(crf["end"])]
        for each in emitted[1:]:
            forward.append(forward[-1] @ steps * each)
        for each in emitted[:0:-1]:
            backward.append(steps @ (each * backward[-1]))
        both = np.stack(forward) * np.stack(backward[::-1])
        return both / both.sum(1, keepdims=True)


def plain_members(runs: list[Run]) -> list[list[Plain]]:
    members = []
    for run in runs:
        tokenizer, task = load_tokenizer(run.folder / "tokenizer"), restore_task(run.record)
        folds = []
        for fold in run.finished_folds():
            model = task.empty_model(run.fold_folder(fold)).eval()
            load_weights(model, run.fold_folder(fold) / WEIGHTS)
            folds.append(Plain(run, model, tokenizer, task.labels))
        members.append(folds)
    return members


def best_tags(shares: np.ndarray, labels: tuple[str, ...]) -> list[str]:
    """The likeliest legal tags, a word at a time."""
    paths: dict[str, tuple[float, list[str]]] = {}
    for word, row in enumerate(np.log(np.maximum(shares, 1e-30))):
        reached = {}
        for tag, score in zip(labels, row, strict=True):
            ways = [(0.0, [])] if not word else list(paths.values())
            legal = [w for w in ways if may_follow(w[1][-1] if w[1] else None, tag)]
            if legal:
                total, path = max(legal, key=lambda way: way[0])
                reached[tag] = (total + score, [*path, tag])
        paths = reached
    return max(paths.values(), key=lambda way: way[0])[1] if paths else []


def test_an_ensemble_names_as_a_plain_computation_does(name_entities, entity_runs) -> None:
    rows = name_entities()
    members = plain_members(entity_runs)
    named = 0
    assert len(rows) == 30 and max(len(row["tokens"]) for row in rows) > 500
    for row in rows:
        shares = np.mean([np.mean([p.read(row["tokens"]) for p in m], 0) for m in members], 0)
        tags = best_tags(shares, members[0][0].labels)
        expected = read_spans(tags, strict=True)
        found = row["entities"]
        assert [(e["type"], e["start"], e["end"]) for e in found] == expected, row["tokens"][:20]
        for entity in found:
            words = range(entity["start"], entity["end"])
            columns = [members[0][0].labels.index(tags[word]) for word in words]
            mean = np.mean([shares[w, c] for w, c in zip(words, columns, strict=True)])
            assert entity["probability"] == pytest.approx(mean, abs=1e-4)
        named += len(found)
    assert named > 30


def test_tags_spans_and_words_say_the_same(name_entities, entity_material, tmp_path) -> None:
    rows = name_entities()
    folder = entity_material.competition
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str, keep_default_na=False)
    tags = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    assert list(tags) == list(sample) and tags["id"].tolist() == sample["id"].tolist()
    spans = {(r["id"], e["type"], e["start"], e["end"]) for r in rows for e in r["entities"]}
    by_id = dict(zip(tags["id"], tags["tags"].str.split(), strict=True))
    for row in rows:
        assert len(by_id[row["id"]]) == len(row["tokens"])
        assert illegal_tags(by_id[row["id"]]) == []
    assert spans == {(i, *span) for i, t in by_id.items() for span in read_spans(t, strict=True)}
    data = shutil.copytree(folder, tmp_path / "no sample")
    (data / "sample_submission.csv").unlink()
    name_entities(data_dir=str(data), form="spans")
    found = pd.read_csv(tmp_path / "submission.csv", dtype=str)
    numbers = found["predictionstring"].str.split().map(lambda each: list(map(int, each)))
    ends = zip(found["id"], found["class"], numbers, strict=True)
    assert {(i, kind, n[0], n[-1] + 1) for i, kind, n in ends} == spans
    assert all(n == list(range(n[0], n[-1] + 1)) for n in numbers)
    name_entities(data_dir=str(data), form="words")
    words = pd.read_csv(tmp_path / "submission.csv", dtype=str)
    assert len(words) == sum(end - start for *_, start, end in spans)
    for _, one in words.iterrows():
        assert by_id[one["document"]][int(one["token"])] == one["label"]


@pytest.mark.parametrize("number", [0, 1], ids=["softmax", "crf"])
def test_words_without_a_token_keep_their_places(name_entities, entity_runs, number: int) -> None:
    """The others are what they are without them: a CRF's text begins with its first token."""
    run = entity_runs[number]
    task, tokenizer = restore_task(run.record), load_tokenizer(run.folder / "tokenizer")
    hidden = [w for w in ("\u200b", " ", "", "\ufeff") if not tokenizer.tokenize(w)]
    assert len(hidden) > 2
    sentence = ["Anna", "Weber", "in", "Riverton"]
    spread = [
        hidden[0],
        *[w for n, s in enumerate(sentence) for w in (s, hidden[n % 2], hidden[2])],
    ]
    found = []
    for tokens in (sentence, spread):
        frame = pd.DataFrame({"id": ["a"], "tokens": [tokens], "domain": "d"})
        examples = task.encode(frame, tokenizer)
        assert len(examples) == 1
        one = task.settle(examples, values_of(run, examples))
        seen = [word in sentence for word in tokens]
        found.append(one[seen])
        others = one[np.logical_not(seen)]
        assert (others[:, 0] == 1).all() and (others[:, 1:] == 0).all()
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    texts = [spread * 30, [], ["", " "], sentence * 30]
    rows = name_entities(texts)
    assert [row["tokens"] for row in rows] == texts
    assert rows[1]["entities"] == rows[2]["entities"] == []
    assert rows[0]["entities"] and rows[3]["entities"]
    for row in rows:
        for entity in row["entities"]:
            assert entity["words"] == row["tokens"][entity["start"] : entity["end"]]


def values_of(run: Run, examples: list[Any]) -> np.ndarray:
    task = restore_task(run.record)
    model = task.empty_model(run.fold_folder(0))
    load_weights(model, run.fold_folder(0) / WEIGHTS)
    return predict_in_passes(
        task,
        model,
        examples,
        pad_id=int(load_tokenizer(run.folder / "tokenizer").pad_token_id),
        batch_tokens=4096,
        device=torch.device("cpu"),
        precision=Precision("float32", "cpu"),
    )


@pytest.mark.parametrize("number", [0, 1])
def test_a_document_of_20_000_tokens_is_read_as_its_parts_are(entity_runs, number: int) -> None:
    """A part that begins and ends as windows do has the same windows but for its first, which
    begins a text, and its last."""
    run = entity_runs[number]
    task, tokenizer = restore_task(run.record), load_tokenizer(run.folder / "tokenizer")
    random = np.random.default_rng(0)
    words = [
        "Anna",
        "Weber",
        "Riverton",
        "Ashford",
        "Bank",
        "Monday",
        "in",
        "joined",
        ".",
        "\n",
        " ",
    ]
    document = [str(word) for word in random.choice(words, 9000)]

    def read(texts: list[list[str]]) -> tuple[list[Any], np.ndarray]:
        ids = list(map(str, range(len(texts))))
        frame = pd.DataFrame({"id": ids, "tokens": texts, "domain": "d"})
        examples = task.encode(frame, tokenizer)
        return examples, task.settle(examples, values_of(run, examples))

    examples, whole = read([document])
    assert whole.shape == (len(document), 9)
    bounds = [(example.start, example.origin["stop"]) for example in examples]
    once = owner_spans(bounds)
    assert sum(len(example.input_ids) for example in examples) > 20_000 and len(bounds) > 500
    groups = [range(n, min(n + 60, len(bounds))) for n in range(0, len(bounds), 60)]
    parts = [(bounds[group[0]][0], bounds[group[-1]][1]) for group in groups]
    _, alone = read([document[start:stop] for start, stop in parts])
    compared, at = 0, 0
    for group, (start, stop) in zip(groups, parts, strict=True):
        first, last = once[group[1]][0], once[group[-2]][0]
        inside = alone[at + first - start : at + last - start]
        np.testing.assert_allclose(whole[first:last], inside, atol=1e-5)
        compared, at = compared + len(inside), at + stop - start
    assert compared > 0.9 * len(document) and at == len(alone) > len(document)
    assert (whole.argmax(1) > 0).sum() > 100  # there is something to compare


def test_the_first_file_is_no_entity_in_the_samples_order(
    name_entities, entity_material, tmp_path: Path
) -> None:
    folder = entity_material.competition
    sample = pd.read_csv(folder / "sample_submission.csv", dtype=str, keep_default_na=False)
    name_entities()
    predict_submission(name_entities.settings, Clock(0.5, now=iter([0.0, *[9.0] * 1000]).__next__))
    first = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    assert first.equals(sample)  # which is all O
    lines = (tmp_path / "entities.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert len(lines) == 30 and not any(json.loads(line)["entities"] for line in lines)


def altered(run: Run, folder: Path, **changes: Any) -> str:
    """A copy of a run whose record says something else."""
    shutil.copytree(run.folder, folder)
    (folder / "run.json").write_text(json.dumps({**run.record, **changes}), encoding="utf-8")
    return str(folder)


def test_a_bias_makes_entities_rarer_or_more_frequent(
    name_entities, entity_runs, tmp_path: Path
) -> None:
    full = entity_runs[0]

    def types(**changes: Any) -> list[str]:
        rows = name_entities(**changes)
        return sorted(entity["type"] for row in rows for entity in row["entities"])

    runs = (str(full.folder),)
    plain = types(runs=runs)
    assert len(types(runs=runs, o_bias=2.0)) < len(plain) < len(types(runs=runs, o_bias=-2.0))
    assert types(runs=runs, o_bias=50.0) == []
    one, kinds = plain[0], full.record["o_bias"]
    chosen = {kind: 50.0 if kind == one else 0.0 for kind in kinds}
    copy = altered(full, tmp_path / "copy", o_bias=chosen)
    without = types(runs=(copy,), o_bias=None)
    assert one not in without and without != []
    assert types(runs=(copy,), o_bias=0.0) == plain
    # The best run's biases hold for all.
    leads = altered(
        entity_runs[1],
        tmp_path / "leads",
        o_bias=dict.fromkeys(kinds, 50.0),
        pooled={**entity_runs[1].record["pooled"], "scores": {"entity_f1": 1.0}},
    )
    assert types(runs=(str(full.folder), leads), o_bias=None) == []
    with pytest.raises(SettingsError, match="o_bias"):
        types(runs=runs, o_bias=1000.0)


def test_tags_that_training_never_saw_end_no_prediction(
    name_entities, entity_material, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    row = {"id": "a", "tokens": ["Anna", "fox"], "tags": ["B-PERSON", "B-ANIMAL"]}
    (folder / "test.jsonl").write_text(json.dumps(row))
    rows = name_entities(data_dir=str(folder))
    assert rows[0]["tokens"] == ["Anna", "fox"]
    assert "cannot be named: B-ANIMAL (a, word 2)" in capsys.readouterr().out


def test_runs_of_other_labels_are_not_averaged_nor_weights_of_others_taken(
    name_entities, entity_runs, tmp_path: Path
) -> None:
    record = entity_runs[0].record
    labels = record["resources"]["labels"]
    few = {"labels": labels[:-2]}
    identity = {**record["identity"], "resources": digest(few)}
    fewer = {"resources": few, "o_bias": {}, "identity": identity}
    other = altered(entity_runs[0], tmp_path / "other", run_id="f" * 16, **fewer)
    with pytest.raises(
        ArtifactError, match=r"entities \(O, .*another entities.*cannot be averaged"
    ):
        name_entities(runs=(str(entity_runs[0].folder), other))
    damaged = altered(entity_runs[0], tmp_path / "damaged", **fewer)
    with pytest.raises(ArtifactError, match=r"(?s)safetensors does not fit the model.*head"):
        name_entities(runs=(damaged,))
    renamed = {"labels": [label.replace("LOC", "LAND") for label in labels]}  # of the same number
    edited = altered(entity_runs[0], tmp_path / "edited", resources=renamed, o_bias={})
    with pytest.raises(ArtifactError, match=r"B-LAND.* are not those that the weights were"):
        name_entities(runs=(edited,))
    wrong = altered(entity_runs[0], tmp_path / "wrong", o_bias={"NOBODY": 1.0})
    with pytest.raises(ArtifactError, match=r"wrong/run\.json: the o_bias in it is damaged"):
        name_entities(runs=(wrong,))


@pytest.mark.parametrize("number", [0, 1])
def test_a_copy_in_half_precision_and_a_merged_run_predict_the_same(
    name_entities, entity_runs, entity_material, tmp_path, monkeypatch, number: int
) -> None:
    monkeypatch.setattr(merge, "write_report", lambda run: run.folder)
    run = entity_runs[number]
    changes = write_half_copy(run.folder, tmp_path / "half", str(entity_material.competition))
    assert [change.fold for change in changes] == run.finished_folds()
    assert all(0 < change.largest < 0.02 for change in changes)
    merged = merge_runs([run.folder], tmp_path / "merged")
    assert merged.record["o_bias"] == run.record["o_bias"]
    assert merged.record["pooled"] == run.record["pooled"]
    expected = name_entities(runs=(str(run.folder),))
    assert name_entities(runs=(str(tmp_path / "merged"),)) == expected
    half = name_entities(runs=(str(tmp_path / "half"),))

    def spans(rows: list[dict]) -> list[Any]:
        return [[(e["type"], e["start"], e["end"]) for e in row["entities"]] for row in rows]

    same = sum(one == other for one, other in zip(spans(half), spans(expected), strict=True))
    assert same >= 26
