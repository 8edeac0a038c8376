"""The report of run folders made by hand: complete, self-contained, escaped, honest."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.artifacts import LOG, OOF, Run, open_run
from kernel_lib.errors import ArtifactError
from kernel_lib.results.report import write_report
from kernel_lib.tasks.regression import RegressionSettings

EVIL = "<script>alert('x')</script>&amp;"
TARGETS = ("cohesion", EVIL)


def make_run(
    folder: Path,
    *,
    finished: Sequence[int] = (0, 1, 2),
    evaluations: int = 2,
    last: dict[str, Any] | None = None,
    noise: float = 0.3,
    **settings: Any,
) -> Run:
    """A run of 3 folds and 60 rows with two targets; ``last`` changes the last evaluations."""
    random = np.random.default_rng(5)
    frame: dict[str, Any] = {"text_id": [EVIL] * 60, "fold": np.arange(60) % 3}
    for name in TARGETS:
        frame[f"true_{name}"] = random.integers(2, 11, 60) / 2
    for name in TARGETS:
        frame[f"pred_{name}"] = frame[f"true_{name}"] + random.normal(0, noise, 60)
    oof = pd.DataFrame(frame)
    oof = oof[oof["fold"].isin(finished)]

    def scores(rows: pd.DataFrame) -> dict[str, float]:
        parts = {
            name: float(np.sqrt(((rows[f"true_{name}"] - rows[f"pred_{name}"]) ** 2).mean()))
            for name in TARGETS
        }
        return {"mcrmse": float(np.mean(list(parts.values()))), **parts}

    folder.mkdir()
    entries: list[dict[str, Any]] = []
    for fold in finished:
        evaluated = scores(oof[oof["fold"] == fold])
        entry = {"fold": fold, "rows": 20, "scores": evaluated, "seconds": 75.0 + fold}
        entries.append({**entry, "epoch": 2.0, "precision": "fp16"})
        log = [
            {**entry, "epoch": epoch, "train_loss": 0.2 / epoch, "fgm_ratio": 1.1}
            for epoch in range(1, evaluations + 1)
        ]
        if log:
            log[-1].update(last or {})
        (folder / f"fold{fold}").mkdir()
        lines = "".join(json.dumps(evaluation) + "\n" for evaluation in log)
        (folder / f"fold{fold}" / LOG).write_text(lines, encoding="utf-8")
    record: dict[str, Any] = {
        "format": 1,
        "kernel_lib": "0.1.0",
        "run_id": "0123456789abcdef",
        "task": "fb3",
        "settings": RegressionSettings(n_folds=3, target_columns=TARGETS, **settings).to_dict(),
        "identity": {"task": "fb3", "settings": {}, "data": "d" * 16, "tokens": "e" * 16},
        "versions": {"python": "3.11", "torch": EVIL},
        "rows": 60,
        "score_name": "mcrmse",
        "folds": entries,
        "pooled": {},
    }
    if finished:
        oof.to_csv(folder / OOF, index=False)
        seconds = sum(entry["seconds"] for entry in entries)
        pooled = {"rows": len(oof), "scores": scores(oof), "seconds": seconds}
        record["pooled"] = {**pooled, "standard_error": 0.0123}
    (folder / "run.json").write_text(json.dumps(record), encoding="utf-8")
    return open_run(folder)


class Page(HTMLParser):
    """Collects what a report consists of."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.pieces: list[str] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def pictures(self) -> list[bytes]:
        prefix = "data:image/png;base64,"
        sources = [value for name, value in self.attributes if name == "src"]
        assert all(source.startswith(prefix) for source in sources)
        return [base64.b64decode(source.removeprefix(prefix)) for source in sources]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.pieces))


def report_of(run: Run) -> Page:
    return Page(write_report(run))


def test_headline_and_table_show_the_record_s_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = report_of(run)
    pooled = run.record["pooled"]
    assert f"CV mcrmse {pooled['scores']['mcrmse']:.4f} ± 0.0123" in page.text
    assert "60 of 60" in page.text and "3 of 3" in page.text
    assert "3 min 48 s" in page.text  # 75 + 76 + 77 s
    for entry in [*run.record["folds"], pooled]:
        for value in entry["scores"].values():
            assert f">{value:.4f}</td>" in page.source
    mean = np.mean([entry["scores"]["mcrmse"] for entry in run.record["folds"]])
    assert f"not the mean of the folds ({mean:.4f})" in page.text
    assert "pooled" in page.text


def test_all_four_figures_are_embedded(tmp_path: Path) -> None:
    pictures = report_of(make_run(tmp_path / "run")).pictures
    assert len(pictures) == 4
    assert len(set(pictures)) == 4
    assert all(picture.startswith(b"\x89PNG\r\n") for picture in pictures)


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run"))
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert {value[:5] for name, value in page.attributes if name in ("src", "href")} == {"data:"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import", page.source)


def test_text_from_data_is_escaped(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", group_column=EVIL, backbone=f"in/{EVIL}"))
    assert "<script" not in page.source
    # Table header, versions, settings (group, backbone, targets): each shows the text as it is.
    assert page.source.count("&lt;script&gt;alert(&#x27;x&#x27;)") >= 4
    assert "&amp;amp;" in page.source


def test_some_finished_folds_are_enough(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", finished=[1]))
    assert "1 of 3" in page.text and "20 of 60" in page.text
    assert "Not finished: fold 0, 2." in page.text
    assert len(page.pictures) == 4


def test_folds_that_were_not_wanted_are_not_missed(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", finished=[1], folds=(1,)))
    assert "1 of 1" in page.text and "20 of 60" in page.text
    assert "Not finished" not in page.text


def test_folds_without_evaluations_have_no_curves(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run", evaluations=0))
    assert "No evaluation was recorded." in page.text
    assert len(page.pictures) == 3


def test_no_finished_fold_is_an_error_with_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", finished=[])
    with pytest.raises(ArtifactError, match="no finished fold"):
        write_report(run)
    assert not (run.folder / "report.html").exists()


def test_missing_or_damaged_files_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.folder / "fold1" / LOG).write_text('{"fold": 1, "epo', encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"fold1.log\.jsonl is damaged"):
        write_report(run)
    (run.folder / "fold1" / LOG).unlink()
    with pytest.raises(ArtifactError, match=r"fold1.log\.jsonl is missing"):
        write_report(run)
    (run.folder / OOF).write_text("", encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"oof\.csv is damaged"):
        write_report(run)


def test_a_quiet_run_has_no_warnings(tmp_path: Path) -> None:
    page = report_of(make_run(tmp_path / "run"))
    assert "Nothing out of the ordinary" in page.text
    assert "Worth a look" not in page.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"last": {"skipped_updates": 4}}, "Fold 2: 4 updates skipped"),
        (
            {"last": {"fgm_ratio": 0.05}},
            "0.05 times the clean one at the end; fgm_epsilon is too s",
        ),
        ({"last": {"fgm_ratio": 20.0}}, "20 times the clean one at the end; fgm_epsilon is too l"),
        ({"keep": "best"}, "optimistic"),
        ({"max_rows": 60}, "Only 60 rows were used"),
        ({"noise": 5.0}, "cohesion: RMSE"),
    ],
)
def test_what_is_worth_a_look_is_said(tmp_path: Path, changes: Any, words: str) -> None:
    page = report_of(make_run(tmp_path / "run", **changes))
    assert "Worth a look" in page.text
    assert words in page.text


@pytest.mark.parametrize("ratio", [None, 0.1, 10.0])
def test_fgm_off_or_within_bounds_is_not_worth_a_look(tmp_path: Path, ratio: float | None) -> None:
    page = report_of(make_run(tmp_path / "run", last={"fgm_ratio": ratio}))
    assert "FGM's gradient" not in page.text


def test_changed_settings_stand_out_and_others_do_not(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", learning_rate=3e-5)
    changed = re.findall(r'<tr class="changed"><td>(\w+)</td>', report_of(run).source)
    assert set(changed) == {"n_folds", "learning_rate", "target_columns"}
    in_memory = Run(run.folder, run.record | {"settings": run.record["settings"] | {"folds": ()}})
    assert "<td>folds</td><td>()</td>" in report_of(in_memory).source
    assert "3e-05 (default 5e-05)" in report_of(run).text


def test_a_task_without_true_and_predicted_columns_has_its_scores(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pd.DataFrame({"id": ["a"], "fold": [0], "text": ["b"]}).to_csv(run.folder / OOF, index=False)
    other = Run(run.folder, run.record | {"task": "another"})
    page = report_of(other)
    assert len(page.pictures) == 2
    assert "CV mcrmse" in page.text


def test_a_report_replaces_an_older_one_and_leaves_no_half_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run.folder / "report.html").write_text("old", encoding="utf-8")
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert sorted(path.name for path in run.folder.iterdir() if path.is_file()) == [
        OOF,
        "report.html",
        "run.json",
    ]
