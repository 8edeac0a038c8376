"""The report's part of Chinese spelling correction: every definition's scores, domains, the
threshold, corrections as they look in their texts, and what was right and got changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pandas as pd

from kernel_lib.artifacts import Run
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.metrics.spelling import SpellingScores, spelling_scores
from kernel_lib.metrics.spelling_characters import Particles
from kernel_lib.metrics.spelling_lines import PARTICLES, format_lines
from kernel_lib.results import html, spelling_diff
from kernel_lib.results.corrections import decoding_text
from kernel_lib.results.html import visible
from kernel_lib.results.report_oof import read_texts
from kernel_lib.results.report_page import escaped, figure, muted, table
from kernel_lib.results.spelling_diff import OVER, RIGHT
from kernel_lib.results.spelling_plots import plot_threshold
from kernel_lib.results.spelling_rows import corrections
from kernel_lib.results.spelling_tables import (
    domain_table,
    frequent_over_corrections,
    worst_over_corrections,
)
from kernel_lib.results.spelling_view import show_corrections
from kernel_lib.text.corrections import changes_from_json

TEXTS = ("id", "source", "target", "corrected", "changes")
SHOWN = 20  # corrections, and over-corrections
FPR_BOUND = 0.1  # above, a reader of right sentences meets the corrector too often

STYLE = (
    html.STYLE
    + spelling_diff.STYLE
    + """
@media (prefers-color-scheme: dark) { :root { --gone: #55290f; --gone-ink: #ffc9a8;
  --come: #0f4a38; --come-ink: #a9f0d6; --miss: #4b3d0c; --miss-ink: #ffe79a; } }
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; margin: .4rem 0; }
.zh td { white-space: pre-wrap; } .even tr:last-child td { font-weight: 400; }
.narrow th, .narrow td { font-size: .8rem; padding: .3rem .25rem; }
.narrow th { white-space: normal; vertical-align: bottom; overflow-wrap: normal; }
"""
)


def read_oof(text: str) -> pd.DataFrame:
    """``oof.csv``: everything as the text that it is, the changes as lists.

    Raises:
        ValueError: it is no such table.
    """
    frame = read_texts(text, TEXTS)
    try:
        changes = [changes_from_json(entry) for entry in frame["changes"]]
    except (TypeError, ValueError) as error:
        raise ValueError(f"its changes are not JSON lists of changes: {error}") from None
    frame["changes"] = pd.Series(changes, index=frame.index, dtype=object)
    return frame


def warnings(oof: pd.DataFrame) -> Iterator[str]:
    """Correctors that do nothing, break more than they mend, or touch too much that is right."""
    kinds = [mark.kind for row in corrections(oof, judged=True) for mark in row.marks]
    mended, broken = kinds.count(RIGHT), kinds.count(OVER)
    scores = _scores(oof)
    clean = scores.sentences - scores.positives
    if (oof["source"] == oof["corrected"]).all():
        yield "No text was changed at all: train for longer."
    if broken > mended:
        yield (
            f"{broken:,} right characters were changed and {mended:,} wrong ones set right: the "
            "texts were better before."
        )
    if scores.fpr > FPR_BOUND:
        yield (
            f"{scores.clean_changed:,} of {clean:,} sentences without an error were changed "
            f"({100 * scores.fpr:.1f} %): a higher threshold touches fewer."
        )


def sections(run: Run, oof: pd.DataFrame) -> Iterator[str]:
    """What the scores do not tell."""
    yield "<h2>Scores by definition</h2>"
    yield f"<pre>{escaped(format_lines(_scores(oof)))}</pre>"
    yield muted(
        "Of all out-of-fold sentences, as are the tables and texts below: a character is changed "
        "wherever another one is likelier, whatever decoding was chosen since."
    )
    yield from _particles(oof)
    yield from _domains(oof)
    yield from _decoding(run)
    yield f"<h2>Corrections</h2>\n{show_corrections(oof, count=SHOWN, seed=0).page}"
    yield muted(
        "Drawn at random from the texts that were changed. Struck through: what stood there; "
        "underlined: what was put there, with its probability. A sign tells how the target judges "
        "it, and the right character follows where it is another one. Long texts are excerpts."
    )
    yield from _over_corrections(oof)


def _scores(oof: pd.DataFrame, particles: Particles = "as they are") -> SpellingScores:
    texts = (oof[name].tolist() for name in ("source", "target", "corrected"))
    return spelling_scores(*texts, particles=particles)


def _particles(oof: pd.DataFrame) -> Iterator[str]:
    ways: tuple[Particles, ...] = get_args(Particles)
    rows = []
    for way in ways:
        scores = _scores(oof, way)
        strict = scores.strict_correction
        figures = (strict.precision, strict.recall, strict.f1, scores.fpr)
        rows.append([PARTICLES[way], *(f"{figure:.4f}" for figure in figures)])
    header = ["的, 地, 得 in the predictions", "P", "R", "F1", "false positive rate"]
    yield f'<h2>Particles</h2>\n<div class="wide even">{table(rows, header=header)}</div>'
    yield muted(
        "Strict correction. What is done about 的, 地 and 得 gives three numbers for one output: "
        "say which one you compare. All other figures here take the predictions as they are."
    )


def _domains(oof: pd.DataFrame) -> Iterator[str]:
    scores = domain_table(oof)
    if len(scores) < 2:
        return
    rows = [
        [visible(str(name)), *(_cell(value) for value in values)]
        for name, values in zip(scores.index, scores.to_numpy(dtype=object), strict=True)
    ]
    header = ["domain", *scores.columns]
    yield f'<h2>Domains</h2>\n<div class="wide narrow">{table(rows, header=header)}</div>'


def _decoding(run: Run) -> Iterator[str]:
    points = run.record.get("decoding_curve")
    if not points:
        return
    try:
        chosen = float(run.record["decoding"]["threshold"])
        chart = plot_threshold(pd.DataFrame(points).astype(float), chosen)
        words = decoding_text(run)
    except (DataError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"the decoding in run.json is damaged ({error}). Copy the run folder again."
        ) from None
    yield figure(
        "Decoding",
        chart,
        "A character is changed where another one is likelier and its probability reaches the "
        "threshold. The curves are of the predictions that the threshold was chosen on.",
    )
    yield muted(f"Chosen: {words}.")


def _over_corrections(oof: pd.DataFrame) -> Iterator[str]:
    worst, frequent = worst_over_corrections(oof, SHOWN), frequent_over_corrections(oof, SHOWN)
    yield "<h2>Over-corrections</h2>"
    if worst.empty:
        yield muted("No right character was changed.")
        return
    yield muted("Right characters that were changed; those the model was surest of.")
    rows = [
        [
            visible(entry["id"]),
            visible(entry["domain"]),
            f"{entry['position']:,}",
            f"{visible(entry['wrong'])} → {visible(entry['right'])}",
            "" if pd.isna(entry["probability"]) else f"{entry['probability']:.4f}",
            entry["context"],
        ]
        for entry in worst.to_dict("records")
    ]
    header = ["id", "domain", "position", "change", "probability", "context"]
    yield f'<div class="zh">{table(rows, header=header)}</div>'
    yield muted("The most frequent ones:")
    pairs = [
        f"{visible(entry['wrong'])} → {visible(entry['right'])} {entry['times']:,} ×"
        for entry in frequent.to_dict("records")
    ]
    yield f"<p>{' · '.join(map(escaped, pairs))}</p>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "-" if pd.isna(value) else f"{value:.3f}"
    return f"{value:,}"
