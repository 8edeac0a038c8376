"""What a blend is, for people: tables in the terminal, and a page with figures beside them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kernel_lib import __version__
from kernel_lib.blending.outcome import Outcome
from kernel_lib.results.chart import (
    BLUE,
    FAINT,
    FOLD_COLOURS,
    FOLD_MARKERS,
    INK,
    MUTED,
    ORANGE,
    Chart,
    add_legend,
    make_panels,
    set_title,
)
from kernel_lib.results.report_page import begin_page, escaped, figure, muted, table, worth_a_look
from kernel_lib.runtime.files import write_text

METHOD_HEADER = ("method", "in-sample", "nested", "optimism", "behind the best")
MEMBER_HEADER = ("run", "alone", "weight", "lost without it")
NESTED = (
    "Nested: the rows are split into parts, the weights for each part are learned from the others. "
    "In-sample: learned from the rows that are scored. Optimism: how much better that looks."
)


def method_rows(outcome: Outcome) -> list[list[str]]:
    """A row of cells for each method, the chosen one's name marked with a star."""
    return [
        [
            f"{trial.method}{' *' if trial.method == outcome.found.method else ''}",
            f"{trial.in_sample:.4f}",
            f"{trial.nested:.4f}",
            f"{trial.nested - trial.in_sample:.4f}",
            f"{trial.behind:.4f} ± {trial.error:.4f}" if trial.behind else "-",
        ]
        for trial in outcome.found.trials
    ]


def member_rows(outcome: Outcome) -> list[list[str]]:
    """A row of cells for each run: those kept, the best first, then those dropped."""
    found = outcome.found
    weights = found.weights.values
    rows = []
    for number in sorted(found.kept, key=lambda kept: outcome.singles[kept]):
        own = weights[found.kept.index(number)]
        spread = f" ({own.min():.3f} to {own.max():.3f})" if np.ptp(own) > 1e-9 else ""
        loss = found.losses.get(number)
        rows.append(
            [
                outcome.names[number],
                f"{outcome.singles[number]:.4f}",
                f"{own.mean():.3f}{spread}",
                "-" if loss is None else f"{loss:+.5f}",
            ]
        )
    for each in found.dropped:
        gain = each.after - each.before
        rows.append(
            [
                outcome.names[each.member],
                f"{outcome.singles[each.member]:.4f}",
                "dropped",
                f"{gain:+.5f}",
            ]
        )
    return rows


def facts(outcome: Outcome) -> Iterator[str]:
    """What there is to say, a line each, the most important first."""
    found, split = outcome.found, outcome.splitting
    single = outcome.best_single
    yield (
        f"blend: {found.method}, {len(found.kept)} of {len(outcome.names)} runs, MCRMSE "
        f"{found.trial.nested:.4f} ± {outcome.standard_error:.4f} nested, "
        f"{found.trial.in_sample:.4f} in-sample ({len(outcome.rows.ids):,} rows, {split.repeats} x "
        f"{split.parts} parts)"
    )
    yield (
        f"best single run: {outcome.names[single]} {outcome.singles[single]:.4f}, to the blend "
        f"{outcome.to_single}; from the mean of all runs {outcome.to_mean}"
    )
    yield (f"with method and runs chosen anew for each part as well: {outcome.searched:.4f}")
    if found.weights.by_rank:
        yield "combined by ranks: a row's prediction depends on the other rows"
    else:
        sums = found.weights.values.sum(axis=0)
        yield f"sum of weights {_span(sums)}, intercept {_span(found.weights.intercepts)}" + (
            f", alpha {found.weights.alpha:g}" if found.weights.alpha is not None else ""
        )
    for each in found.dropped:
        yield (
            f"dropped: {outcome.names[each.member]}, nested {each.before:.5f} with it, "
            f"{each.after:.5f} without ({each.method})"
        )
    low, high = outcome.rows.scale.lowest, outcome.rows.scale.highest
    yield f"clipping to {low:g} to {high:g} (done): {outcome.clipping:+.5f}"
    if outcome.rounding is not None:
        yield f"rounding to the scale's levels (not done): {outcome.rounding:+.5f}"


def print_outcome(outcome: Outcome) -> None:
    """Prints tables and facts."""
    print(_text_table(MEMBER_HEADER, member_rows(outcome)))
    print()
    print(_text_table(METHOD_HEADER, method_rows(outcome)))
    print()
    print("\n".join(facts(outcome)))


def write_page(outcome: Outcome, path: Path) -> None:
    """Writes the page; everything is inside the file."""
    title = f"Blend MCRMSE {outcome.found.trial.nested:.4f}"
    error = f"<small>nested, ± {outcome.standard_error:.4f} standard error</small>"
    members = table(member_rows(outcome), header=MEMBER_HEADER)
    methods = table(method_rows(outcome), header=METHOD_HEADER)
    headline, *rest = facts(outcome)
    page = [
        begin_page(title),
        f"<h1>{escaped(title)} {error}</h1>",
        muted(headline),
        worth_a_look(warnings(outcome)),
        f'<h2>Runs</h2>\n<div class="wide">{members}</div>',
        muted("Alone: MCRMSE out of fold. Lost without it: change of the nested score."),
        f'<h2>Methods</h2>\n<div class="wide">{methods}</div>',
        muted(NESTED),
        figure(
            "Scores",
            plot_methods(outcome),
            "Lower is better. The lines join what the method "
            "seems to score with what it does on rows it was not chosen by.",
        ),
        figure("Weights", plot_weights(outcome)),
        "<h2>Figures in words</h2>",
        *map(muted, rest),
        muted(f"kernel_lib {__version__}"),
        "</html>\n",
    ]
    write_text(path, "\n".join(page))


def warnings(outcome: Outcome) -> Iterator[str]:
    """What a person should know before trusting the blend."""
    difference = outcome.to_single
    if difference.value > -2 * difference.error - 1e-9:
        yield (
            f"The blend is {difference} from the best single run: within twice the standard error, "
            "no evidence that it is better."
        )
    records = {member.name: member.record["settings"] for member in outcome.rows.members}
    for name, settings in records.items():
        if settings.get("debug") or settings.get("max_rows"):
            yield f"{name} was trained on a part of the rows (debug or max_rows): a trial."
        if settings.get("keep") == "best":
            yield f'{name} has keep="best": its out-of-fold score is optimistic, its weight too.'
    whole = max(member.record.get("rows", 0) for member in outcome.rows.members)
    if len(outcome.rows.ids) < whole:
        yield (
            f"Only {len(outcome.rows.ids):,} of {whole:,} rows have a prediction of every run: the "
            "weights were chosen on these."
        )


def plot_methods(outcome: Outcome) -> Chart:
    """Nested and in-sample score of each method, and the best run's."""
    trials = outcome.found.trials
    drawn, (axes,) = make_panels(1, 0.5 + 0.32 * len(trials), x="MCRMSE")
    rows = np.arange(len(trials))
    inside, nested = (
        np.array([getattr(t, name) for t in trials]) for name in ("in_sample", "nested")
    )
    axes.hlines(rows, inside, nested, color=FAINT, linewidth=3, zorder=1)
    axes.plot(inside, rows, "o", color=MUTED, markersize=5, label="in-sample")
    axes.plot(nested, rows, "D", color=BLUE, markersize=6, label="nested")
    single = outcome.singles[outcome.best_single]
    name = f"best single run, {outcome.names[outcome.best_single]}"
    axes.axvline(single, color=ORANGE, linewidth=1.5, linestyle=(0, (4, 3)), label=name)
    marks = [" *" if trial.method == outcome.found.method else "" for trial in trials]
    axes.set_yticks(rows, [f"{t.method}{mark}" for t, mark in zip(trials, marks, strict=True)])
    axes.set_ylim(len(trials) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    add_legend(drawn, axes)
    return drawn


def plot_weights(outcome: Outcome) -> Chart:
    """The weights of the runs, a bar each; where targets differ, a mark for each."""
    found, targets = outcome.found, outcome.rows.scale.targets
    order = sorted(range(len(found.kept)), key=lambda at: outcome.singles[found.kept[at]])
    weights = found.weights.values[order]
    drawn, (axes,) = make_panels(1, 0.5 + 0.36 * len(order), x="weight")
    rows = np.arange(len(order))
    axes.barh(rows, weights.mean(axis=1), height=0.62, color=FAINT, label="mean of the targets")
    if np.ptp(weights, axis=1).max() > 1e-9:
        for at, target in enumerate(targets):
            colour, marker = (c[at % len(c)] for c in (FOLD_COLOURS, FOLD_MARKERS))
            axes.plot(weights[:, at], rows, marker, color=colour, markersize=5, label=target)
        add_legend(drawn, axes)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(rows, [outcome.names[found.kept[at]] for at in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    set_title(axes, str(found.method))
    return drawn


def _span(values: Any) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.3f}" if high - low < 5e-4 else f"{low:.3f} to {high:.3f}"


def _text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns in line: the first to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
