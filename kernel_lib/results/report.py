"""The report of a run: one HTML file with its scores, curves, settings and what deserves a look.

Everything is inside the file: pictures as base64, style in the page, no script, nothing fetched.
It is made from the run folder alone, so it can be made again later and elsewhere. What every task
has is written here; what only one has, in a file of its own, entered in ``PARTS``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernel_lib.artifacts import LOG, OOF, Run
from kernel_lib.config import TrainingSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results import plots, report_entities, report_regression, report_spelling
from kernel_lib.results.report_page import begin_page, escaped, figure, muted, table, worth_a_look
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.runtime.files import write_text
from kernel_lib.tasks.registry import settings_class
from kernel_lib.training.cost import costs_text
from kernel_lib.training.record import score_table

REPORT = "report.html"
FGM_RATIO_BOUNDS = (0.1, 10.0)  # below, FGM hardly counts; above, hardly anything else does


@dataclasses.dataclass(frozen=True)
class TaskPart:
    """What a report has of one kind of task only.

    Attributes:
        read_oof: makes a table of the text of ``oof.csv``; ValueError when it is damaged.
        warnings: what a person should know before trusting the predictions.
        sections: HTML, given the run, whose record is read, and that table.
        style: what the sections need beside the common style.
    """

    read_oof: Callable[[str], pd.DataFrame]
    warnings: Callable[[pd.DataFrame], Iterator[str]]
    sections: Callable[[Run, pd.DataFrame], Iterator[str]]
    style: str = ""


REGRESSION = TaskPart(
    report_regression.read_oof, report_regression.warnings, report_regression.sections
)
SPELLING = TaskPart(
    report_spelling.read_oof,
    report_spelling.warnings,
    report_spelling.sections,
    report_spelling.STYLE,
)
ENTITIES = TaskPart(
    report_entities.read_oof,
    report_entities.warnings,
    report_entities.sections,
    report_entities.STYLE,
)
PARTS = {"fb3": REGRESSION, "csc": SPELLING, "ner": ENTITIES}


def write_report(run: Run) -> Path:
    """Writes ``report.html`` into the run folder, from the folds that are finished so far.

    Args:
        run: the run; only its record and its folder are read.

    Returns:
        The path of the report.

    Raises:
        ArtifactError: no fold is finished, or a file of a finished one is missing or damaged.
    """
    record = run.record
    if not record["folds"]:
        raise ArtifactError(
            f"{run.folder} has no finished fold, so there is nothing to report yet. Train until "
            "the first fold is saved, then write the report."
        )
    part = PARTS.get(record["task"], REGRESSION)
    oof = _read(run.folder / OOF, part.read_oof)
    history: list[dict[str, Any]] = []
    for entry in record["folds"]:
        log = run.fold_folder(entry["fold"]) / LOG
        history += _read(log, lambda text: [json.loads(line) for line in text.splitlines()])
    title = f"CV {record['score_name']} {record['pooled']['scores'][record['score_name']]:.4f}"
    page = [
        begin_page(title, [part.style]),
        *_headline(record, title),
        worth_a_look([*_warnings(record, history), *part.warnings(oof)]),
        *_scores(run),
        _learning_curves(record, history),
        *part.sections(run, oof),
        figure("Time", plots.plot_time(record["folds"])),
        *_settings(record),
        *_origins(record),
        "</html>\n",
    ]
    write_text(run.folder / REPORT, "\n".join(page))
    return run.folder / REPORT


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What ``parse`` makes of a file's text; a missing or damaged file is an ArtifactError."""
    try:
        with open(path, encoding="utf-8", newline="") as file:  # a text's line ends as they are
            return parse(file.read())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Copy the whole run folder.") from None
    except ValueError as error:  # the parsers' errors and those of the encoding are of this kind
        raise ArtifactError(f"{path} is damaged ({error}). Copy it again.") from None


def _missing_folds(record: dict[str, Any]) -> list[int]:
    """The wanted folds that are not finished."""
    names = {field.name for field in dataclasses.fields(TrainingSettings)}
    common = {name: value for name, value in record["settings"].items() if name in names}
    wanted = TrainingSettings.from_dict(common).wanted_folds
    return sorted(set(wanted) - {entry["fold"] for entry in record["folds"]})


def _headline(record: dict[str, Any], title: str) -> Iterator[str]:
    pooled, finished = record["pooled"], len(record["folds"])
    facts = {
        "rows scored": f"{pooled['rows']:,} of {record['rows']:,}",
        "folds finished": f"{finished} of {finished + len(_missing_folds(record))}",
        "time in all": format_seconds(pooled["seconds"]),
    }
    if backbone := record["settings"].get("backbone"):
        facts["backbone"] = Path(backbone).name
    if cost := costs_text(entry.get("cost") for entry in record["folds"]):
        facts["training took"] = cost
    yield f'<div class="muted">{escaped(record["task"])}, run {escaped(record["run_id"])}</div>'
    error = f"± {pooled['standard_error']:.4f} <small>standard error</small>"
    yield f"<h1>{escaped(title)} {error}</h1>"
    yield "<dl>"
    yield from (f"<div><dt>{escaped(k)}</dt><dd>{escaped(v)}</dd></div>" for k, v in facts.items())
    yield "</dl>"


def _warnings(record: dict[str, Any], history: list[dict[str, Any]]) -> Iterator[str]:
    """What a person should know of the training before trusting the score."""
    settings, (lowest, highest) = record["settings"], FGM_RATIO_BOUNDS
    if missing := _missing_folds(record):
        yield f"Not finished: fold {', '.join(map(str, missing))}. Rows there are not scored yet."
    if settings.get("debug") or settings.get("max_rows"):
        yield f"Only {record['rows']:,} rows were used (debug or max_rows): a trial, not a result."
    if settings.get("keep") == "best":
        yield 'keep="best" picks weights by the score on the rows they are scored on: optimistic.'
    for last in {entry["fold"]: entry for entry in history}.values():
        fold, skipped, ratio = last["fold"], last.get("skipped_updates"), last.get("fgm_ratio")
        if skipped:
            yield f"Fold {fold}: {skipped} updates skipped, their gradients were not finite."
        if ratio is not None and not lowest <= ratio <= highest:
            size = "small" if ratio < lowest else "large"
            yield (
                f"Fold {fold}: FGM's gradient was {ratio:.3g} times the clean one at the end; "
                f"fgm_epsilon is too {size}."
            )


def _scores(run: Run) -> Iterator[str]:
    scores = score_table(run).reset_index()
    rows = [[f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in scores.to_numpy()]
    rows[-1][0] = "pooled"
    mean = np.mean([entry["scores"][run.record["score_name"]] for entry in run.record["folds"]])
    yield f'<h2>Scores</h2>\n<div class="wide">{table(rows, header=scores.columns.tolist())}</div>'
    yield muted(
        "The last row scores all out-of-fold predictions together. It is not the mean of the "
        f"folds ({mean:.4f}), if often close to it."
    )


def _learning_curves(record: dict[str, Any], history: list[dict[str, Any]]) -> str:
    if not history:
        return f"<h2>Learning curves</h2>\n{muted('No evaluation was recorded.')}"
    return figure(
        "Learning curves",
        plots.plot_learning_curves(history, record["score_name"]),
        "The score is that of the rows which the fold has not seen in training.",
    )


def _settings(record: dict[str, Any]) -> Iterator[str]:
    try:
        kind = settings_class(record["task"])
    except ArtifactError:  # a task of another release: its own settings have no known default
        kind = TrainingSettings
    defaults = {field.name: _python(field.default) for field in dataclasses.fields(kind)}
    settings = {name: _python(value) for name, value in record["settings"].items()}
    changed = {name for name in settings if settings[name] != defaults.get(name, settings[name])}
    rows = [
        [name, f"{value} (default {defaults[name]})" if name in changed else value]
        for name, value in settings.items()
    ]
    half = -(-len(rows) // 2)
    yield '<h2>Settings</h2>\n<p class="muted">Tinted: not the default.</p>\n<div class="pair">'
    yield from (table(part, tinted=changed) for part in (rows[:half], rows[half:]))
    yield "</div>"


def _origins(record: dict[str, Any]) -> Iterator[str]:
    precision = ", ".join(sorted({entry["precision"] for entry in record["folds"]}))
    versions = {"kernel_lib": record["kernel_lib"], **record["versions"], "precision": precision}
    prints = {k: v for k, v in record["identity"].items() if isinstance(v, str)}
    yield '<h2>Versions and fingerprints</h2>\n<div class="pair">'
    yield from (table(list(pairs.items())) for pairs in (versions, prints))
    yield "</div>"


def _python(value: Any) -> str:
    """A setting as one would type it; JSON has made lists of the tuples."""
    return repr(tuple(value) if isinstance(value, list) else value)
