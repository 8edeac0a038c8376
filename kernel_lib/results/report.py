"""The report of a run: one HTML file with its scores, curves, settings and what deserves a look.

Everything is inside the file: pictures as base64, style in the page, no script, nothing fetched.
It is made from the run folder alone, so it can be made again later and elsewhere.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kernel_lib.artifacts import LOG, OOF, Run
from kernel_lib.config import TrainingSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results import plots
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.runtime.files import write_text
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from kernel_lib.training.record import score_table

REPORT = "report.html"
SETTINGS_OF_TASK: dict[str, type[TrainingSettings]] = {RegressionTask.name: RegressionSettings}
FGM_RATIO_BOUNDS = (0.1, 10.0)  # below, FGM hardly counts; above, hardly anything else does

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #222; --muted: #5f6368; --line: #e3e6ea;
  --tint: #eaf3fa; --note: #fff5e8; --mark: #d55e00; }
@media (prefers-color-scheme: dark) { :root { --page: #17191c; --ink: #e6e6e6; --muted: #a5abb3;
  --line: #363b42; --tint: #1d2f40; --note: #33281b; --mark: #f0944d; } img { padding: .6rem; } }
body { background: var(--page); color: var(--ink); max-width: 920px; margin: 2.5rem auto;
  padding: 0 1.25rem; font: 15px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 2rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; }
h1 small { font-size: 1rem; font-weight: 400; }
.muted, figcaption, th, small, dt { color: var(--muted); }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; }
dt { font-size: .85rem; } dd { margin: 0; font-size: 1.2rem; }
.look { background: var(--note); border-left: 4px solid var(--mark); padding: .6rem 1.2rem; }
.look ul { margin: .2rem 0; padding-left: 1.1rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; font-size: .9rem; font-weight: 400; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide th, .wide td { text-align: right; white-space: nowrap; }
.wide tr > :first-child { text-align: left; } .changed td { background: var(--tint); }
.wide tr:last-child td { font-weight: 650; border: 0; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2rem;
  align-items: start; } .pair td:first-child { white-space: nowrap; width: 1%; }
figure { margin: 0; } figcaption { font-size: .9rem; margin-top: .4rem; }
img { display: block; box-sizing: border-box; width: 100%; background: #fff; border-radius: 6px; }
"""


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
    oof = _read(run.folder / OOF, lambda text: pd.read_csv(io.StringIO(text)))
    history: list[dict[str, Any]] = []
    for entry in record["folds"]:
        log = run.fold_folder(entry["fold"]) / LOG
        history += _read(log, lambda text: [json.loads(line) for line in text.splitlines()])
    true = [column.removeprefix("true_") for column in oof if column.startswith("true_")]
    targets = [name for name in true if f"pred_{name}" in oof]
    title = f"CV {record['score_name']} {record['pooled']['scores'][record['score_name']]:.4f}"
    page = [
        '<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>",
        *_headline(record, title),
        _worth_a_look(_warnings(record, history, oof, targets)),
        *_scores(run),
        *_figures(record, history, oof, targets),
        *_settings(record),
        *_origins(record),
        "</html>\n",
    ]
    write_text(run.folder / REPORT, "\n".join(page))
    return run.folder / REPORT


def _read(path: Path, parse: Callable[[str], Any]) -> Any:
    """What ``parse`` makes of a file's text; a missing or damaged file is an ArtifactError."""
    try:
        return parse(path.read_text(encoding="utf-8"))
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
        "backbone": Path(record["settings"]["backbone"]).name,
    }
    yield f'<div class="muted">{_text(record["task"])}, run {_text(record["run_id"])}</div>'
    yield f"<h1>{_text(title)} ± {pooled['standard_error']:.4f} <small>standard error</small></h1>"
    yield "<dl>"
    yield from (f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in facts.items())
    yield "</dl>"


def _warnings(
    record: dict[str, Any], history: list[dict[str, Any]], oof: pd.DataFrame, targets: list[str]
) -> Iterator[str]:
    """What a person should know before trusting the score."""
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
    for target in targets:
        true, predicted = oof[f"true_{target}"], oof[f"pred_{target}"]
        rmse, spread = float(((predicted - true) ** 2).mean() ** 0.5), float(true.std(ddof=0))
        if rmse > spread:
            yield f"{target}: RMSE {rmse:.3f}; always predicting the mean: {spread:.3f}."


def _worth_a_look(warnings: Iterator[str]) -> str:
    items = "".join(f"<li>{_text(warning)}</li>" for warning in warnings)
    if not items:
        return '<p class="muted">Nothing out of the ordinary was recorded.</p>'
    return f'<div class="look"><strong>Worth a look</strong><ul>{items}</ul></div>'


def _scores(run: Run) -> Iterator[str]:
    table = score_table(run).reset_index()
    rows = [[f"{v:.4f}" if isinstance(v, float) else v for v in row] for row in table.to_numpy()]
    rows[-1][0] = "pooled"
    mean = np.mean([entry["scores"][run.record["score_name"]] for entry in run.record["folds"]])
    yield f'<h2>Scores</h2>\n<div class="wide">{_table(rows, header=table.columns.tolist())}</div>'
    yield (
        '<p class="muted">The last row scores all out-of-fold predictions together. It is not the '
        f"mean of the folds ({mean:.4f}), if often close to it.</p>"
    )


def _figures(
    record: dict[str, Any], history: list[dict[str, Any]], oof: pd.DataFrame, targets: list[str]
) -> Iterator[str]:
    if history:
        yield _figure(
            "Learning curves",
            plots.plot_learning_curves(history, record["score_name"]),
            "The score is that of the rows which the fold has not seen in training.",
        )
    else:
        yield '<h2>Learning curves</h2>\n<p class="muted">No evaluation was recorded.</p>'
    if targets:
        yield _figure(
            "Predicted against true",
            plots.plot_predicted_against_true(oof, targets),
            "Out-of-fold predictions; on the dashed line they equal the truth. Boxes hold the "
            "middle half of a level's rows, with a bar at the median; whiskers reach from the 5th "
            "to the 95th percentile.",
        )
        yield _figure(
            "Distribution of scores",
            plots.plot_score_distribution(oof, targets),
            "True values and out-of-fold predictions, counted in the same bins.",
        )
    yield _figure("Time", plots.plot_time(record["folds"]))


def _settings(record: dict[str, Any]) -> Iterator[str]:
    fields = dataclasses.fields(SETTINGS_OF_TASK.get(record["task"], TrainingSettings))
    defaults = {field.name: _python(field.default) for field in fields}
    settings = {name: _python(value) for name, value in record["settings"].items()}
    changed = {name for name in settings if settings[name] != defaults.get(name, settings[name])}
    rows = [
        [name, f"{value} (default {defaults[name]})" if name in changed else value]
        for name, value in settings.items()
    ]
    half = -(-len(rows) // 2)
    yield '<h2>Settings</h2>\n<p class="muted">Tinted: not the default.</p>\n<div class="pair">'
    yield from (_table(part, tinted=changed) for part in (rows[:half], rows[half:]))
    yield "</div>"


def _origins(record: dict[str, Any]) -> Iterator[str]:
    precision = ", ".join(sorted({entry["precision"] for entry in record["folds"]}))
    versions = {"kernel_lib": record["kernel_lib"], **record["versions"], "precision": precision}
    prints = {k: v for k, v in record["identity"].items() if isinstance(v, str)}
    yield '<h2>Versions and fingerprints</h2>\n<div class="pair">'
    yield from (_table(list(pairs.items())) for pairs in (versions, prints))
    yield "</div>"


def _table(
    rows: Sequence[Sequence[Any]], *, header: Sequence[str] = (), tinted: Collection[str] = ()
) -> str:
    """An HTML table; rows whose first cell is in ``tinted`` stand out."""
    lines = [f"<tr>{''.join(f'<th>{_text(name)}</th>' for name in header)}</tr>"] if header else []
    for row in rows:
        mark = ' class="changed"' if row[0] in tinted else ""
        lines.append(f"<tr{mark}>{''.join(f'<td>{_text(cell)}</td>' for cell in row)}</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _figure(heading: str, chart: plots.Chart, caption: str = "") -> str:
    picture = base64.b64encode(chart.png()).decode("ascii")
    return (
        f"<h2>{heading}</h2>\n"
        f'<figure><img alt="{heading}" src="data:image/png;base64,{picture}">\n'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _python(value: Any) -> str:
    """A setting as one would type it; JSON has made lists of the tuples."""
    return repr(tuple(value) if isinstance(value, list) else value)


def _text(value: Any) -> str:
    return html.escape(str(value))
