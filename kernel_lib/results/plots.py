"""Figures of a run: token lengths, learning curves, predictions against the truth, time.

Each function returns a :class:`Chart`. A notebook shows it when it is the last expression of a
cell; the report embeds :meth:`Chart.png`. Nothing here goes through pyplot: no backend is chosen,
no global style is changed, no figure stays open.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from kernel_lib.errors import DataError
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.text.batches import Example

# Okabe & Ito's colours, which colour-blind readers tell apart too; yellow is too faint for lines.
BLUE, SKY, ORANGE = "#0072B2", "#56B4E9", "#D55E00"
FOLD_COLOURS = (BLUE, ORANGE, "#009E73", "#CC79A7", SKY, "#E69F00", "#222222")
FOLD_MARKERS = "os^DvPX"
INK, MUTED, FAINT, GRID = "#222222", "#5F6368", "#C9CDD2", "#E8EAED"
BOX_STYLE: dict[str, Any] = {
    "boxprops": {"color": BLUE, "linewidth": 1.2},
    "whiskerprops": {"color": BLUE, "linewidth": 1.2},
    "medianprops": {"color": ORANGE, "linewidth": 2},
    "whis": (5, 95),
} | dict.fromkeys(("showfliers", "showcaps", "manage_ticks"), False)
MAX_LEVELS = 12  # up to so many different true values are drawn as the levels of a scale


class Chart(Figure):
    """A figure that shows itself in a notebook, with or without ``%matplotlib inline``.

    IPython shows a plain Figure only once the inline backend is active, which pyplot brings about;
    ``_repr_png_`` is asked in any case, and either way the picture shows once.
    """

    def png(self) -> bytes:
        """The figure as a PNG of 200 dots per inch; the same figure gives the same bytes."""
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=200)
        return buffer.getvalue()

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png(), {"width": round(100 * self.get_figwidth())}


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
    figure, (axes,) = _panels(1, 3.2, x="length (tokens, special ones included)", y="texts")
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
    _title(axes, title, f"{len(lengths):,} texts")
    return figure


def plot_learning_curves(history: list[dict[str, Any]], score_name: str) -> Chart:
    """Training loss and validation score as training goes on, a line a fold.

    Args:
        history: records of evaluations, as the lines of the folds' ``log.jsonl``.
        score_name: which of the records' scores to draw.

    Returns:
        Two panels against the epoch; without lines when the history is empty.
    """
    figure, panels = _panels(2, 3.1, x="epochs done")
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
        _title(axes, title)
    if history:
        _legend(figure, panels[0])
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
    figure, panels = _panels(len(targets), 2.95, x="true value", y="predicted value")
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
        _title(axes, target, f"RMSE {np.sqrt(np.mean((predicted - true) ** 2)):.3f}")
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
    figure, panels = _panels(len(targets), 2.1, x="value", y="share of rows (%)")
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
        _title(axes, target)
    top = max(axes.get_ylim()[1] for axes in panels)
    for axes in panels:
        axes.set_ylim(0, top)
    _legend(figure, panels[0])
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
    figure, (axes,) = _panels(1, 0.25 + 0.32 * len(folds), x=f"training and evaluation ({name})")
    bars = axes.barh(np.arange(len(folds)), seconds / unit, height=0.62, color=BLUE)
    axes.bar_label(bars, [f" {format_seconds(value)}" for value in seconds], color=INK)
    axes.set_yticks(range(len(folds)), [f"fold {entry['fold']}" for entry in folds])
    axes.set(xlim=(0, 1.15 * longest / unit), ylim=(len(folds) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    return figure


def _panels(count: int, height: float, *, x: str, y: str = "") -> tuple[Chart, list[Axes]]:
    """Quiet axes, up to three a row, each row ``height`` inches, with common axis labels."""
    rows, columns = -(-count // 3), min(3, count)
    layout = ConstrainedLayoutEngine(hspace=0.05, wspace=0.04)
    figure = Chart(figsize=(9.0, 0.5 + height * rows), layout=layout, facecolor="white")
    figure.supxlabel(x, fontsize=10, color=MUTED)
    figure.supylabel(y, fontsize=10, color=MUTED)
    panels: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.set(facecolor="white", axisbelow=True)
        axes.grid(color=GRID, linewidth=0.8)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0, colors=MUTED, labelsize=9)
    return figure, panels[:count]


def _title(axes: Axes, text: str, note: str = "") -> None:
    """A panel's name, and a number at the right; ``$`` in a name starts no formula."""
    axes.set_title(text, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.set_title(note, loc="right", fontsize=9, color=MUTED, parse_math=False)


def _legend(figure: Figure, axes: Axes) -> None:
    """One legend above all panels, of what ``axes`` shows."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=8, frameon=False, labelcolor=INK)


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
