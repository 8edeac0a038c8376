"""Figures of a run: token lengths, learning curves, predictions against the truth, time.

Each function returns a :class:`Chart`. A notebook shows it when it is the last expression of a
cell; the report embeds :meth:`Chart.png`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kernel_lib.errors import DataError
from kernel_lib.results.chart import (
    BLUE,
    FAINT,
    FOLD_COLOURS,
    FOLD_MARKERS,
    INK,
    MUTED,
    ORANGE,
    SKY,
    Chart,
    add_legend,
    make_panels,
    set_title,
)
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.text.batches import Example

BOX_STYLE: dict[str, Any] = {
    "boxprops": {"color": BLUE, "linewidth": 1.2},
    "whiskerprops": {"color": BLUE, "linewidth": 1.2},
    "medianprops": {"color": ORANGE, "linewidth": 2},
    "whis": (5, 95),
} | dict.fromkeys(("showfliers", "showcaps", "manage_ticks"), False)
MAX_LEVELS = 12  # up to so many different true values are drawn as the levels of a scale


def plot_token_lengths(examples: Sequence[Example], max_length: int) -> Chart:
    """How long the texts are in tokens, and how many reach the cap.

    The examples are cut already: a text of ``max_length`` tokens cannot be told from a longer one.

    Args:
        examples: encoded texts.
        max_length: the cap they were encoded with, in tokens.

    Returns:
        A histogram with median and 90th percentile; its title names the share at the cap.

    Raises:
        DataError: there is no example.
    """
    if not examples:
        raise DataError("there are no examples, so there are no token lengths to draw.")
    lengths = np.array([len(example.input_ids) for example in examples])
    at_cap, longest = lengths >= max_length, int(lengths.max())
    figure, (axes,) = make_panels(1, 3.2, x="length (tokens, special ones included)", y="texts")
    # Edges from the longest down, so that the cap ends a bar; few, lest that bar dwarf the others.
    width = -(-longest // 24)
    edges = np.arange(longest + 0.5, -width, -width)[::-1].tolist()
    parts, colours = [lengths[~at_cap], lengths[at_cap]], [BLUE, ORANGE]
    counts, _, _ = axes.hist(parts, edges, stacked=True, color=colours, rwidth=0.94)
    top = float(np.max(counts))
    middle, high = np.percentile(lengths, [50, 90])
    for value, name, reach in ((middle, "median", 1.1), (high, "90th percentile", 1.25)):
        axes.plot([value, value], [0, reach * top], color=INK, linewidth=1)
        axes.text(value, reach * top, f"{name} {value:,.0f} ", ha="right", va="top", color=INK)
    axes.set(xlim=(0, 1.02 * longest), ylim=(0, 1.3 * top))
    share = 100 * float(at_cap.mean())
    decimals = 0 if 1 <= share <= 99 or share == 100 else 2  # a few are not none, nor are most all
    title = f"{share:.{decimals}f} % of texts reach the cap of {max_length:,} tokens"
    if not share:
        title = f"No text reaches the cap of {max_length:,} tokens; the longest has {longest:,}"
    set_title(axes, title, f"{len(lengths):,} texts")
    return figure


def plot_learning_curves(history: list[dict[str, Any]], score_name: str) -> Chart:
    """Training loss and validation score as training goes on, a line a fold.

    Args:
        history: records of evaluations, as the lines of the folds' ``log.jsonl``.
        score_name: which of the records' scores to draw.

    Returns:
        Two panels against the epoch; without lines when the history is empty.
    """
    figure, panels = make_panels(2, 3.1, x="epochs done")
    series = {
        "training loss, mean since the last evaluation": [e["train_loss"] for e in history],
        f"validation {score_name}": [e["scores"][score_name] for e in history],
    }
    folds = np.array([entry["fold"] for entry in history], dtype=np.int64)
    epochs = np.array([entry["epoch"] for entry in history], dtype=np.float64)
    for axes, (title, values) in zip(panels, series.items(), strict=True):
        for fold in np.unique(folds).tolist():
            axes.plot(
                epochs[folds == fold],
                np.array(values)[folds == fold],
                color=FOLD_COLOURS[fold % len(FOLD_COLOURS)],
                marker=FOLD_MARKERS[fold % len(FOLD_MARKERS)],
                markersize=5,
                label=f"fold {fold}",
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0, 1.05 * float(epochs.max(initial=0)) or 1)
        set_title(axes, title)
    if history:
        add_legend(figure, panels[0])
    return figure


def plot_predicted_against_true(oof: pd.DataFrame, targets: Sequence[str]) -> Chart:
    """Out-of-fold predictions against the truth, a panel a target.

    A scale of up to 12 levels gets its rows jittered under boxes: the middle half, a bar at the
    median, whiskers from the 5th to the 95th percentile. The dashed line: prediction is truth.

    Args:
        oof: with columns ``true_<target>`` and ``pred_<target>``.
        targets: their names, at least one.

    Returns:
        Panels, three a row, on one scale if the targets have the same levels.
    """
    figure, panels = make_panels(len(targets), 2.95, x="true value", y="predicted value")
    random = np.random.default_rng(0)
    for axes, target, values in zip(panels, targets, _scaled(oof, targets), strict=True):
        true, predicted, levels, step, ends = values
        shown = true + random.uniform(-0.3, 0.3, len(true)) * step
        alpha = float(np.clip(300 / len(true), 0.1, 0.7))
        axes.plot(shown, predicted, "o", color=SKY, alpha=alpha, markersize=3, markeredgewidth=0)
        if len(levels):
            groups = [predicted[true == level] for level in levels]
            axes.boxplot(groups, positions=levels, widths=0.55 * step, **BOX_STYLE)
        axes.plot(ends, ends, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=4)
        margin = max(0.5 * step, 0.05 * (ends[1] - ends[0]))
        limits = (ends[0] - margin, ends[1] + margin)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.locator_params(nbins=6)
        set_title(axes, target, f"RMSE {np.sqrt(np.mean((predicted - true) ** 2)):.3f}")
    return figure


def plot_score_distribution(oof: pd.DataFrame, targets: Sequence[str]) -> Chart:
    """How true and predicted values are distributed, counted in the same bins, a panel a target.

    A scale of up to 12 levels gets a bin about each, another 20. An unsure model predicts a
    narrower distribution than the true one.

    Args:
        oof: with columns ``true_<target>`` and ``pred_<target>``.
        targets: their names, at least one.

    Returns:
        Panels, three a row.
    """
    figure, panels = make_panels(len(targets), 2.1, x="value", y="share of rows (%)")
    for axes, target, values in zip(panels, targets, _scaled(oof, targets), strict=True):
        true, predicted, levels, step, ends = values
        edges = np.linspace(ends[0], ends[1], 21).tolist()
        if len(levels):
            first, last = (round((end - levels[0]) / step) for end in ends)
            if last - first <= 40:  # not so when two levels lie close and others far apart
                edges = (levels[0] + step * (np.arange(first, last + 2) - 0.5)).tolist()
        weights = np.full(len(true), 100 / len(true))
        axes.hist(true, edges, weights=weights, color=FAINT, rwidth=0.9, label="true")
        outline: dict[str, Any] = {"histtype": "step", "color": BLUE, "linewidth": 1.8}
        axes.hist(predicted, edges, weights=weights, label="predicted", **outline)
        set_title(axes, target)
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, top)
    add_legend(figure, panels[0])
    return figure


def plot_time(folds: list[dict[str, Any]]) -> Chart:
    """How long each fold took.

    Args:
        folds: with ``fold`` and ``seconds``, as the run's record has them.

    Returns:
        A bar a fold, the first on top.
    """
    seconds = np.array([entry["seconds"] for entry in folds], dtype=np.float64)
    longest = float(seconds.max(initial=1))
    unit, name = (1, "s") if longest < 120 else (60, "min") if longest < 7200 else (3600, "h")
    figure, (axes,) = make_panels(
        1, 0.25 + 0.32 * len(folds), x=f"training and evaluation ({name})"
    )
    bars = axes.barh(np.arange(len(folds)), seconds / unit, height=0.62, color=BLUE)
    axes.bar_label(bars, [f" {format_seconds(value)}" for value in seconds], color=INK)
    axes.set_yticks(range(len(folds)), [f"fold {entry['fold']}" for entry in folds])
    axes.set(xlim=(0, 1.15 * longest / unit), ylim=(len(folds) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    return figure


def _scaled(oof: pd.DataFrame, targets: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Of each target: true and predicted values, the scale's levels and step, lowest and highest.

    The last three are common to all targets when together these have few levels.
    """
    pairs = [[oof[f"{kind}_{name}"].to_numpy() for kind in ("true", "pred")] for name in targets]
    together = [np.concatenate(parts) for parts in zip(*pairs, strict=True)]
    common = len(_levels(together[0])[0]) > 0
    for pair in pairs:
        drawn = together if common else pair
        yield *pair, *_levels(drawn[0]), (float(np.min(drawn)), float(np.max(drawn)))


def _levels(values: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """The levels of a scale and its smallest step; none and 0 for a continuous one."""
    levels = np.unique(values)
    if len(levels) > MAX_LEVELS:
        return levels[:0], 0.0
    return levels, float(np.diff(levels).min()) if len(levels) > 1 else 1.0
