"""The report of a run of named entities made by hand: counts right, hostile texts harmless."""

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
from kernel_lib.metrics.entities import entity_scores
from kernel_lib.metrics.entity_lines import format_lines
from kernel_lib.results.report import write_report
from kernel_lib.results.report_entities import read_oof, sections, warnings
from kernel_lib.tasks.entity_settings import EntitySettings
from tests.tagged import EVIL, SENTENCES, tagged_frame
from tests.test_report import Page, report_of

LABELS = ["O", "B-LOC", "I-LOC", "B-ORG", "I-ORG", "B-PER", "I-PER"]
BIAS: dict[str, Any] = {
    "resources": {"labels": LABELS},
    "o_bias": {"LOC": 1.5, "ORG": -3.0, "PER": 0.0},
    "o_bias_f1": 0.4321,
}


def make_run(folder: Path, sentences: Any = SENTENCES, **record: Any) -> Run:
    """A run of two folds, one evaluation each."""
    frame = tagged_frame(sentences)
    lists = {
        name: [json.dumps(each, ensure_ascii=False) for each in frame[name]]
        for name in ("tokens", "tags", "predicted")
    }
    folder.mkdir()
    write_csv(frame.assign(**lists, probabilities="[]"), folder / OOF)
    scores = {"entity_f1": 6 / 17, "precision": 3 / 8, "recall": 3 / 9}
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
        "task": "ner",
        "settings": EntitySettings(n_folds=2, train_files=(EVIL,)).to_dict(),
        "identity": {"task": "ner", "settings": {}, "data": "d" * 16},
        "versions": {"python": "3.11"},
        "rows": len(frame),
        "score_name": "entity_f1",
        "folds": entries,
        "pooled": {"rows": 7, "scores": scores, "seconds": 150.0, "standard_error": 0.1},
        **BIAS,
    }
    (folder / "run.json").write_text(json.dumps(content | record), encoding="utf-8")
    return open_run(folder)


def sections_of(rows: Any = SENTENCES, **record: Any) -> str:
    """What the report has of the task alone, its white space as a reader sees it."""
    source = "\n".join(sections(Run(Path("nowhere"), record), tagged_frame(rows)))
    return re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", source)))


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The report of the worked example."""
    return report_of(make_run(tmp_path_factory.mktemp("report") / "run"))


def test_the_report_has_the_scores_of_every_definition(worked: Page) -> None:
    frame = tagged_frame()
    gold, predicted, tokens = (frame[name].tolist() for name in ("tags", "predicted", "tokens"))
    scores = entity_scores(gold, predicted, texts=tokens)
    assert "CV entity_f1 0.3529 ± 0.1000" in worked.text
    assert re.sub(r"\s+", " ", format_lines(scores)) in worked.text
    assert "All are without o_bias" in worked.text


def test_types_errors_domains_and_texts_are_shown(worked: Page) -> None:
    assert "gold \\ predicted LOC ORG PER missed wrong boundary LOC 2 1 0 2 1" in worked.text
    assert "ORG 1 1 0 0 1 PER 0 0 2 0 0 spurious 1 0 0" in worked.text
    assert "<td>○ missed</td><td>2</td>" in worked.source
    assert "“New Harbor” (LOC) 1 × · “Norbury” (LOC) 1 ×" in worked.text
    assert "“Ashford Bank” (LOC → ORG) 1 ×" in worked.text
    assert "news 4 17 5 5 0 0.0000 0.0000 0.0000 0.0000 notes 2 10 2 1 1 1.0000" in worked.text
    assert "all 7 33 9 8 3 0.3750 0.3333 0.3529" in worked.text
    assert "5 of 5 texts with errors, 7 texts in all" in worked.text
    assert "○ missed LOC" in worked.text and len(worked.pictures) == 2  # learning curves, time


def test_biases_are_told_in_words_with_what_they_are_worth(worked: Page) -> None:
    assert "LOC +1.5 only where it is 4.5 times as likely as no entity ORG" in worked.text
    assert (
        "ORG -3 even where no entity is up to 20.1 times as likely; the end of what" in worked.text
    )
    assert "PER 0 where it is likelier than no entity" in worked.text
    assert "0.4321 strict micro F1; without, as above, 0.3529: +0.0792." in worked.text


def test_one_fold_and_no_choice_promise_nothing() -> None:
    assert "One fold cannot tell" in sections_of(**{**BIAS, "o_bias_f1": None})
    assert "How ready" not in sections_of()


def test_defaults_are_the_task_s_own(worked: Page) -> None:
    changed = re.findall(r'<tr class="changed"><td>(\w+)</td>', worked.source)
    assert set(changed) == {"n_folds", "train_files"}


def test_what_a_text_holds_does_nothing_to_the_page(tmp_path: Path) -> None:
    words = [EVIL, "\0\u202e", "a\r\nb", "", " "]
    rows = [(words, ((EVIL, 0, 2),), ((EVIL, 0, 3), ("LOC", 3, 5)), EVIL), *SENTENCES]
    labels = ["O", f"B-{EVIL}", f"I-{EVIL}", *LABELS[1:]]
    run = make_run(tmp_path / "run", rows, resources={"labels": labels}, o_bias={EVIL: 0.5})
    read = read_oof((run.folder / OOF).read_bytes().decode("utf-8"))
    assert read["tokens"][0] == words and read["domain"][0] == EVIL
    page = report_of(run)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert {value[:5] for name, value in page.attributes if name in ("src", "href")} == {"data:"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import", page.source)
    assert not set("\x00\u202e\r") & set(page.source)
    assert page.source.count("&lt;script&gt;") > 10 and r"a\r\nb" in page.text


def illegal(column: str) -> pd.DataFrame:
    frame = tagged_frame()
    frame.at[0, column] = ["O", "I-LOC", "O", "O", "O"]
    return frame


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (tagged_frame([(*s[:2], (), s[3]) for s in SENTENCES]), "Nothing was named at all"),
        (
            tagged_frame([(s[0], (), s[2], s[3]) for s in SENTENCES]),
            "There is no entity in the out",
        ),
        (tagged_frame(), "Never found: ORG (2 there, 2 named)."),
        (tagged_frame(SENTENCES[2:3]), "1 of 2 named entities stand where none is (50.0 %)"),
        (illegal("tags"), "1 gold tags cannot stand where they stand"),
        (illegal("predicted"), "1 predicted tags cannot stand where they stand"),
    ],
)
def test_what_is_worth_a_look_is_said(frame: pd.DataFrame, words: str) -> None:
    assert any(words in warning for warning in warnings(frame))


def test_a_good_tagger_has_no_warnings_and_no_errors() -> None:
    rows = [(text, gold, gold, "x") for text, gold, _, _ in SENTENCES]
    assert not list(warnings(tagged_frame(rows)))
    text = sections_of(rows)
    assert "Errors There is none." in text and "Domains" not in text
    assert "0 of 0 texts with errors" in text


def test_texts_without_any_entity_have_a_report() -> None:
    text = sections_of([("a b", (), (), "x")])
    assert "Types" not in text and "Errors There is none." in text


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"tags": "B"}, "Expecting value"),
        ({"tags": '"O"'}, "a cell of tags is no list"),
        ({"tokens": '["a"]'}, "has 1 tokens and 5 predicted"),
        ({"predicted": '["X", "O", "O", "O", "O"]'}, "tag 1: 'X' is no tag of BIO"),
        ({"predicted": "[1]"}, "not a list of texts"),
    ],
)
def test_damaged_tags_are_an_error_with_words(tmp_path: Path, columns: Any, words: str) -> None:
    run = make_run(tmp_path / "run")
    oof = pd.read_csv(run.folder / OOF, dtype=str, keep_default_na=False)
    write_csv(oof.assign(**columns), run.folder / OOF)
    with pytest.raises(ArtifactError, match=rf"oof\.csv is damaged.*{words}"):
        write_report(run)


def test_a_table_of_another_kind_is_an_error_with_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pd.DataFrame({"id": ["a"], "true_x": [1]}).to_csv(run.folder / OOF, index=False)
    with pytest.raises(ArtifactError, match="no column tokens, tags, predicted"):
        write_report(run)


def test_the_same_run_gives_the_same_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SENTENCES * 10)
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert "20 of 50 texts with errors" in first.decode("utf-8")
