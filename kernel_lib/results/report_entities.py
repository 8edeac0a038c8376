"""The report's part of named entities: every definition's scores, which type was taken for which,
errors by kind, domains, how ready each type is named, and texts with their errors in them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from kernel_lib.artifacts import Run
from kernel_lib.errors import DataError
from kernel_lib.metrics.entities import EntityScores, entity_scores
from kernel_lib.metrics.entity_errors import TypeConfusion, type_confusion
from kernel_lib.metrics.entity_lines import format_lines
from kernel_lib.results import entity_marks, html
from kernel_lib.results.entities import chosen_biases, with_lists
from kernel_lib.results.entity_marks import SIGNS
from kernel_lib.results.entity_rows import (
    BOTH,
    BOUNDARY,
    MISSED,
    SPURIOUS,
    TYPE,
    tagged_rows,
)
from kernel_lib.results.entity_tables import domain_table, error_table
from kernel_lib.results.entity_view import show_entities
from kernel_lib.results.html import visible
from kernel_lib.results.report_oof import read_texts
from kernel_lib.results.report_page import escaped, muted, table
from kernel_lib.tasks.entity_decoding import BIASES

COLUMNS = ("id", "tokens", "tags", "predicted")
SHOWN = 20  # texts with errors
EXAMPLES = 6  # of each kind of error
SPURIOUS_BOUND = 0.25  # of what was named; above, a reader of the output meets too much of nothing

MEANINGS = {
    MISSED: "gold, and nothing of it was named",
    SPURIOUS: "named where no entity is",
    BOUNDARY: "the right type, another start or end",
    TYPE: "the right words, another type",
    BOTH: "they overlap, nothing more",
}
STYLE = (
    html.STYLE
    + entity_marks.STYLE
    + """
pre { overflow-x: auto; font-size: .82rem; line-height: 1.45; margin: .4rem 0; }
.even tr:last-child td { font-weight: 400; }
.kinds th, .kinds td:nth-child(-n+2) { white-space: nowrap; overflow-wrap: normal; }
.kinds td:nth-child(2), .kinds th:nth-child(2) { text-align: right; }
.kinds td:nth-child(3) { min-width: 9rem; overflow-wrap: normal; }
"""
)


def read_oof(text: str) -> pd.DataFrame:
    """``oof.csv``: ids and domains as the texts they are; words and tags as lists.

    Raises:
        ValueError: it is no such table.
    """
    frame = with_lists(read_texts(text, COLUMNS))
    try:
        for _ in tagged_rows(frame, judged=True):
            pass
    except DataError as error:
        raise ValueError(str(error)) from None
    return frame


def warnings(oof: pd.DataFrame) -> Iterator[str]:
    """Taggers that name nothing, miss a type, or name what is nothing; gold that is faulty."""
    scores = _scores(oof)
    micro = scores.strict.micro
    if scores.illegal_gold:
        yield (
            f"{scores.illegal_gold:,} gold tags cannot stand where they stand (an I- behind an O, "
            "say): strictly read they are no entities. Mend the training file."
        )
    if not micro.gold:
        yield "There is no entity in the out-of-fold texts: no score says anything here."
    if not micro.predicted:
        yield "Nothing was named at all: train for longer, or at a higher rate."
        return
    never = [
        f"{visible(name)} ({score.gold:,} there, {score.predicted:,} named)"
        for name, score in scores.strict.by_type.items()
        if score.gold and not score.correct
    ]
    if never:
        yield f"Never found: {', '.join(never)}."
    spurious = error_table(oof, 0)["errors"][SPURIOUS]
    if micro.gold and spurious > SPURIOUS_BOUND * micro.predicted:
        yield (
            f"{spurious:,} of {micro.predicted:,} named entities stand where none is "
            f"({100 * spurious / micro.predicted:.1f} %): a higher o_bias names fewer."
        )
    if scores.illegal_predicted:
        yield (
            f"{scores.illegal_predicted:,} predicted tags cannot stand where they stand: "
            'decoder="viterbi" makes none such.'
        )


def sections(run: Run, oof: pd.DataFrame) -> Iterator[str]:
    """What the scores do not tell."""
    scores = _scores(oof)
    yield "<h2>Scores by type and definition</h2>"
    yield f"<pre>{escaped(format_lines(scores))}</pre>"
    yield muted(
        "Of all out-of-fold texts, whole ones; so are the tables and texts below. All are without "
        "o_bias, whatever was chosen since."
    )
    rows = list(tagged_rows(oof, judged=True))
    spans = ([row.gold or [] for row in rows], [row.predicted for row in rows])
    yield from _confusion(type_confusion(*spans))
    yield from _errors(oof)
    yield from _domains(oof)
    yield from _biases(run, scores)
    texts = show_entities(oof, count=SHOWN, only="wrong", seed=0)
    yield f"<h2>Texts with errors</h2>\n{texts.page}"
    yield muted("Drawn at random from the texts with an error. Long ones are excerpts about these.")


def _scores(oof: pd.DataFrame) -> EntityScores:
    gold, predicted, texts = (oof[name].tolist() for name in ("tags", "predicted", "tokens"))
    return entity_scores(gold, predicted, texts=texts, ids=oof["id"].tolist())


def _confusion(confusion: TypeConfusion) -> Iterator[str]:
    if not confusion.types:
        return
    names = [visible(name) for name in confusion.types]
    rows = [
        [name, *(f"{n:,}" for n in counts), f"{off:,}"]
        for name, counts, off in zip(names, confusion.counts, confusion.boundary, strict=False)
    ]
    rows.append(["spurious", *(f"{n:,}" for n in confusion.counts[-1, :-1]), "", ""])
    header = ["gold \\ predicted", *names, "missed", "wrong boundary"]
    yield f'<h2>Types</h2>\n<div class="wide even">{table(rows, header=header)}</div>'
    yield muted(
        "A row a gold type, a column what was predicted in its place. Those of the right type "
        "count there with any boundaries; the last column says how many of them have a wrong one."
    )


def _errors(oof: pd.DataFrame) -> Iterator[str]:
    found = error_table(oof, EXAMPLES)
    yield "<h2>Errors</h2>"
    if not found["errors"].sum():
        yield muted("There is none.")
        return
    rows = [
        [f"{SIGNS[kind]} {kind}", f"{errors:,}", MEANINGS[kind], " · ".join(examples)]
        for kind, errors, examples in found.itertuples()
    ]
    header = ["kind", "errors", "what it is", "most frequent: predicted → gold"]
    yield f'<div class="kinds">{table(rows, header=header)}</div>'


def _domains(oof: pd.DataFrame) -> Iterator[str]:
    scores = domain_table(oof)
    if len(scores) < 3:  # one domain, and all
        return
    rows = [
        [visible(str(name)), *(f"{v:.4f}" if isinstance(v, float) else f"{v:,}" for v in values)]
        for name, values in zip(scores.index, scores.to_numpy(dtype=object), strict=True)
    ]
    header = ["domain", *scores.columns]
    yield f'<h2>Domains</h2>\n<div class="wide">{table(rows, header=header)}</div>'
    yield muted("Strict scores; the last column is the mean of the types that a domain has.")


def _biases(run: Run, scores: EntityScores) -> Iterator[str]:
    bias, worth = chosen_biases(run)
    if bias is None:
        return
    rows = [
        [visible(name), f"{value:+g}" if value else "0", _told(value)]
        for name, value in bias.items()
    ]
    header = ["type", "o_bias", "so a word is named"]
    yield f"<h2>How ready a type is named</h2>\n{table(rows, header=header)}"
    yield muted(
        "Chosen for each type by the out-of-fold texts, and used by inference unless it sets its "
        f"own. {_worth(worth, scores.strict.micro.f1)}"
    )


def _told(bias: float) -> str:
    if not bias:
        return "where it is likelier than no entity"
    times = f"{math.exp(abs(bias)):.1f} times"
    ends = "; the end of what was tried" if abs(bias) >= max(BIASES) else ""
    if bias > 0:
        return f"only where it is {times} as likely as no entity{ends}"
    return f"even where no entity is up to {times} as likely{ends}"


def _worth(worth: float | None, plain: float) -> str:
    """What the choice brings where it had no part in the scoring."""
    if worth is None:
        return "One fold cannot tell what the choice is worth on texts that had no part in it."
    return (
        f"Chosen on the other folds each time, it scores {worth:.4f} strict micro F1; without, as "
        f"above, {plain:.4f}: {worth - plain:+.4f}."
    )
