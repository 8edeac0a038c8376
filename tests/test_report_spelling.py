"""The report of a spelling run made by hand: counts right, hostile texts harmless, honest."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kernel_lib.artifacts import LOG, OOF, Run, open_run, write_csv
from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.spelling import spelling_scores
from kernel_lib.metrics.spelling_lines import format_lines
from kernel_lib.results.report import write_report
from kernel_lib.results.report_spelling import read_oof, sections, warnings
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.corrections import changes_to_json
from tests.corrected import SENTENCES, corrected_frame
from tests.test_report import Page, report_of

EVIL = "<script>alert('x')</script>&amp;"
NASTY = f'{EVIL}\r\n"\x00\u202e,我去图书管\r'
CURVE = [
    {"threshold": at / 10, "precision": 0.5, "recall": 0.4, "f1": 0.44, "fpr": 0.1}
    for at in range(10)
]
DECODING = {"threshold": 0.3, "chinese_only": True, "confusion_only": False, "passes": 2}


def make_run(folder: Path, sentences: Any = SENTENCES, **record: Any) -> Run:
    """A run of two folds, one evaluation each."""
    frame = corrected_frame(sentences)
    oof = frame.assign(fold=[at % 2 for at in range(len(frame))], proposals="[]")
    oof["changes"] = [changes_to_json(changes) for changes in frame["changes"]]
    names = ["id", "fold", "domain", "source", "target", "corrected", "changes", "proposals"]
    folder.mkdir()
    write_csv(oof[names], folder / OOF)
    scores = {"correction_f1": 0.2, "detection_f1": 0.4, "official_f1": 2 / 7, "fpr": 0.5}
    entries: list[dict[str, Any]] = []
    for fold in (0, 1):
        entry = {"fold": fold, "rows": 4, "scores": scores, "seconds": 75.0, "epoch": 2.0}
        entries.append({**entry, "precision": "bf16"})
        (folder / f"fold{fold}").mkdir()
        log = json.dumps({**entry, "train_loss": 0.2})
        (folder / f"fold{fold}" / LOG).write_text(log, encoding="utf-8")
    content: dict[str, Any] = {
        "format": 1,
        "kernel_lib": "0.1.0",
        "run_id": "0123456789abcdef",
        "task": "csc",
        "settings": SpellingSettings(n_folds=2, train_files=(EVIL,)).to_dict(),
        "identity": {"task": "csc", "settings": {}, "data": "d" * 16},
        "versions": {"python": "3.11"},
        "rows": len(frame),
        "score_name": "correction_f1",
        "folds": entries,
        "pooled": {"rows": 7, "scores": scores, "seconds": 150.0, "standard_error": 0.1},
        "decoding": DECODING,
        "decoding_f1": 0.4321,
        "decoding_curve": CURVE,
    }
    (folder / "run.json").write_text(json.dumps(content | record), encoding="utf-8")
    return open_run(folder)


def sections_of(rows: Any, **record: Any) -> str:
    """What the report has of the task alone, its white space as a reader sees it."""
    run = Run(Path("nowhere"), record)
    source = "\n".join(sections(run, corrected_frame(rows)))
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", source)))


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of the worked example."""
    return report_of(make_run(tmp_path_factory.mktemp("report") / "run"))


def test_the_report_has_the_scores_of_every_definition(worked: Page) -> None:
    texts = corrected_frame()
    scores = spelling_scores(*(texts[name].tolist() for name in ("source", "target", "corrected")))
    assert "CV correction_f1 0.2000 ± 0.1000" in worked.text
    assert re.sub(r"\s+", " ", format_lines(scores)) in worked.text
    assert "all 7 5 0.400 0.400 0.400 0.200 0.200 0.200 0.286 0.500 2" in worked.text
    assert re.search(r"school 3 3 (0\.\d{3} ){7}- 0 ", worked.text)  # no clean sentence there


def test_corrections_over_corrections_and_decoding_are_shown(worked: Page) -> None:
    assert "✓ right 3 · ✗ wrong character 1 · ▲ over-correction 2 · ○ missed 1" in worked.text
    assert "<del>糠</del><ins>慷</ins><small>0.86</small><b>✗ 康</b>" in worked.source
    assert "<td>门 → 们</td><td>0.8800</td><td>请把门观上。</td>" in worked.source
    assert "很 → 狠 1 ×" in worked.text
    assert len(worked.pictures) == 3  # learning curves, decoding, time
    assert "0.3 or more" in worked.text and "0.4321" in worked.text


def test_defaults_are_the_task_s_own(worked: Page) -> None:
    changed = re.findall(r'<tr class="changed"><td>(\w+)</td>', worked.source)
    assert set(changed) == {"n_folds", "train_files"}


def test_particles_give_three_numbers() -> None:
    rows = [("他跑的快", "他跑得快", "他跑得快", "a"), ("走吧", "走吧", "走吧", "a")]
    text = sections_of(rows)
    assert re.search(r"as they are( 1\.0000){3} 0\.0000", text)
    assert re.search(r"changes into 地 or 得 taken back( 0\.0000){4}", text)


def test_what_a_text_holds_does_nothing_to_the_page(tmp_path: Path) -> None:
    rows = [(NASTY, NASTY.replace("管", "馆"), NASTY.replace("管", "馆").replace("我", "窝"), EVIL)]
    run = make_run(tmp_path / "run", [*rows, *SENTENCES])
    read = read_oof((run.folder / OOF).read_bytes().decode("utf-8"))
    assert read["source"][0] == NASTY and read["domain"][0] == EVIL
    page = report_of(run)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert {value[:5] for name, value in page.attributes if name in ("src", "href")} == {"data:"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert not set("\x00\u202e\r") & set(page.source)
    assert "&lt;script&gt;" in page.source
    assert "<del>管</del><ins>馆</ins>" in page.source
    assert f"position {NASTY.index('管')}: 管 → 馆; probability 0." in page.source
    assert r"<i>\r</i><i>\n</i>" in page.source


def test_texts_that_look_like_missing_values_or_numbers_stay_texts() -> None:
    text = "id,source,target,corrected,changes\n1,NA,NA,NA,[]\n007,nan,nan,nan,[]\n"
    frame = read_oof(text)
    assert frame["id"].tolist() == ["1", "007"]
    assert frame["source"].tolist() == ["NA", "nan"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(s, t, s, d) for s, t, _, d in SENTENCES], "No text was changed at all"),
        (
            [("他很好", "他很好", "她狠好", "a"), ("图书管", "图书馆", "图书馆", "a")],
            "2 right characters were changed and 1 wrong ones set right",
        ),
        (SENTENCES, "1 of 2 sentences without an error were changed (50.0 %)"),
    ],
)
def test_what_is_worth_a_look_is_said(rows: Any, words: str) -> None:
    assert any(words in warning for warning in warnings(corrected_frame(rows)))


def test_a_good_corrector_has_no_warnings() -> None:
    rows = [(s, t, t, d) for s, t, _, d in SENTENCES]
    assert not list(warnings(corrected_frame(rows)))
    assert "No right character was changed." in sections_of(rows)


def test_one_domain_and_no_curve_have_no_section() -> None:
    text = sections_of([(s, t, p, "") for s, t, p, _ in SENTENCES], decoding_curve=[])
    assert "Corrections" in text
    assert "Domains" not in text and "Decoding" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("[[1]]", "not JSON lists of changes"),
        ("", "not JSON"),
        ('{"a": 1}', "not JSON"),
        ("7", "no"),
    ],
)
def test_damaged_changes_are_an_error_with_words(tmp_path: Path, changes: str, words: str) -> None:
    run = make_run(tmp_path / "run")
    oof = pd.read_csv(run.folder / OOF, dtype=str, keep_default_na=False)
    write_csv(oof.assign(changes=changes), run.folder / OOF)
    with pytest.raises(ArtifactError, match=rf"oof\.csv is damaged.*{words}"):
        write_report(run)


@pytest.mark.parametrize(
    "record",
    [
        {"decoding_curve": [{"threshold": 1}], "decoding": DECODING},
        {"decoding_curve": CURVE, "decoding": {}},
        {"decoding_curve": CURVE},
        {"decoding_curve": ["a"], "decoding": DECODING},
    ],
)
def test_a_damaged_decoding_is_an_error_with_words(record: Any) -> None:
    with pytest.raises(ArtifactError, match=r"decoding in run\.json is damaged"):
        sections_of(SENTENCES, **record)


def test_a_table_of_another_kind_is_an_error_with_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pd.DataFrame({"id": ["a"], "true_x": [1]}).to_csv(run.folder / OOF, index=False)
    with pytest.raises(ArtifactError, match="no column source, target, corrected, changes"):
        write_report(run)


def test_the_same_run_gives_the_same_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [(*row[:3], "x") for row in SENTENCES] * 10)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert Page(run.folder / "report.html").text.count("▲") >= 5
