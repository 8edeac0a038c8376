"""The results in one picture: the ways side by side, attention by length, growing inference."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from kernel_lib.bench.cells import PASSES
from kernel_lib.bench.table import best_seconds, measured_on, rows_of
from kernel_lib.bench.ways import FAST, KIT, REFERENCE, STOCK, TRAINER
from kernel_lib.results.chart import BLUE, FAINT, GRID, INK, MUTED, ORANGE, SKY, Chart, set_title

COLOURS = {KIT: SKY, REFERENCE: "#A9AFB6", TRAINER: "#E8B48A"}
BEST = "kit"  # the way that is drawn in the kit's own blue
BOTTOM_HEIGHT = 3.6  # inches
DASHED = (0, (4, 3))


def plot_results(results: dict[str, Any]) -> Chart:
    """What a run measured.

    Args:
        results: as ``run_bench`` gives them.

    Returns:
        A row of three panels for each model that ran on texts (training, inference, memory), and
        one for attention by length, the share of the limit, and growing inference.
    """
    parts = results["end_to_end"]
    heights = [0.75 + 0.42 * len(part["ways"]) for part in parts]
    figure = Chart(
        figsize=(12.0, sum(heights) + BOTTOM_HEIGHT),
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
        facecolor="white",
    )
    figure.suptitle(measured_on(results), x=0.01, ha="left", fontsize=9, color=MUTED)
    rows: Any = figure.subfigures(len(parts) + 1, 1, height_ratios=[*heights, BOTTOM_HEIGHT])
    for row, part in zip(rows, parts, strict=False):
        _draw_ways(_three_panels(row), part)
    gain, share, growth = _three_panels(rows[-1])
    _draw_gain(gain, results)
    _draw_share(share, results)
    _draw_growth(growth, results)
    return figure


def _three_panels(figure: SubFigure) -> list[Axes]:
    figure.set_facecolor("white")
    panels: list[Axes] = list(figure.subplots(1, 3, squeeze=False).flat)
    for axes in panels:
        _quiet(axes)
    return panels


def _quiet(axes: Axes) -> None:
    axes.set(facecolor="white", axisbelow=True)
    axes.grid(color=GRID, linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=MUTED, labelsize=9)


def _draw_ways(panels: list[Axes], part: dict[str, Any]) -> None:
    """Bars of every way, in the table's order; in training two, with FGM and without."""
    ways = [way for way in part["ways"].values() if "error" not in way]
    titles = ("training, tokens/s", "inference, tokens/s", "peak memory in training, GB")
    labels = [way["label"] for way in ways]
    for axes, title in zip(panels, titles, strict=True):
        axes.set(ylim=(len(ways) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(_thousands))
        axes.set_yticks(range(len(ways)), labels if axes is panels[0] else [""] * len(ways))
        set_title(axes, title)
    for tick in panels[0].get_yticklabels():
        tick.set(color=INK, fontsize=10)
    base = ways[0] if ways and ways[0]["method"] == REFERENCE else {}
    for place, way in enumerate(ways):
        colour = BLUE if way["name"] == BEST else COLOURS[way["method"]]
        plain, fgm, inference = (way[name] for name in ("training", "training_fgm", "inference"))
        if fgm:
            upper, lower = place - 0.2, place + 0.2
            text = f"{_gain(fgm, base.get('training_fgm'))} with FGM"
            _bar(panels[0], upper, fgm["tokens_per_second"], colour, text, height=0.36)
        else:
            lower = place
        text = f"{_gain(plain, base.get('training'))}{'' if fgm else '; it has no FGM'}"
        _bar(panels[0], lower, plain["tokens_per_second"], colour, text, height=0.36, alpha=0.45)
        text = _gain(inference, base.get("inference"))
        _bar(panels[1], place, inference["tokens_per_second"], colour, text)
        peak = (fgm or plain)["peak_bytes"]
        if peak is not None:
            _bar(panels[2], place, peak / 1e9, colour, f"{peak / 1e9:.1f}")
    for axes, room in zip(panels, (1.4, 1.2, 1.2), strict=True):
        bars: Any = axes.patches
        axes.set_xlim(0, room * max((bar.get_width() for bar in bars), default=1))
    panels[1].set_xlabel(part["job"], fontsize=9, color=MUTED)


def _bar(
    axes: Axes,
    place: float,
    value: float,
    colour: str,
    text: str,
    *,
    height: float = 0.62,
    alpha: float = 1.0,
) -> None:
    axes.barh(place, value, height=height, color=colour, alpha=alpha)
    axes.text(value, place, f" {text}", va="center", color=INK, fontsize=8 if alpha < 1 else 9)


def _gain(phase: dict[str, Any], base: dict[str, Any] | None) -> str:
    """How many times as quick as the first way."""
    return f"{phase['tokens_per_second'] / base['tokens_per_second']:.1f}x" if base else ""


def _draw_gain(axes: Axes, results: dict[str, Any]) -> None:
    """How many times as quick the fast attention makes the encoder, by length."""
    set_title(axes, "fast attention: times as quick as stock")
    axes.axhline(1, color=INK, linewidth=1)
    drawn = [1.0]
    for passes, precision, points in _series(results):
        gains = [stock / fast for _, stock, fast in points]
        axes.plot(
            [record["length"] for record, *_ in points],
            gains,
            color=ORANGE if precision == "float32" else BLUE,
            linestyle="-" if passes == PASSES[1] else DASHED,
            marker="o",
            markersize=4,
            label=f"{precision}, {passes.replace('_', ' + ')}",
        )
        drawn += gains
    axes.set_ylim(min(0.8, 0.9 * min(drawn)), max(1.3, 1.05 * max(drawn)))
    _by_length(axes, results)


def _draw_share(axes: Axes, results: dict[str, Any]) -> None:
    """What share of the measured limit the encoder's arithmetic reaches, forward only."""
    set_title(axes, "share of the limit, forward (%)")
    drawn: list[float] = []
    for passes, precision, points in _series(results):
        limit = results["limits"].get(precision)
        if passes != PASSES[0] or not limit:
            continue
        xs = [record["length"] for record, *_ in points]
        colour = ORANGE if precision == "float32" else BLUE
        for at, name, style in ((2, FAST, "-"), (1, STOCK, DASHED)):
            ys = [100 * point[0]["flops"] / point[at] / limit for point in points]
            drawn += ys
            label = f"{precision}, {name}"
            axes.plot(xs, ys, color=colour, linestyle=style, marker="o", markersize=4, label=label)
    axes.set_ylim(0, max([100, *(1.05 * share for share in drawn)]))
    _by_length(axes, results)


def _draw_growth(axes: Axes, results: dict[str, Any]) -> None:
    """Seconds and memory of growing inference, on scales where proportion is a straight line."""
    set_title(axes, "inference on ever more texts")
    axes.set_xlabel("texts", fontsize=9, color=MUTED)
    found = [each for each in results["growth"] if not isinstance(each, str)]
    if not found:
        return
    rows = [each["rows"] for each in found]
    a_row = found[-1]["seconds"] / rows[-1]
    ideal = [a_row * count for count in rows]
    axes.plot(rows, ideal, color=FAINT, linewidth=5, label="in proportion", zorder=1)
    style: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 4, "label": "seconds"}
    axes.plot(rows, [each["seconds"] for each in found], **style)
    known = [each for each in found if each["peak_bytes"]]
    style = {"color": ORANGE, "marker": "s", "markersize": 4, "label": "MB beyond the texts"}
    megabytes = [each["peak_bytes"] / 1e6 for each in known]
    axes.plot([each["rows"] for each in known], megabytes, **style)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(rows, [f"{count:,}" for count in rows])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, handlelength=3)


def _series(results: dict[str, Any]) -> list[tuple[str, str, list[tuple[Any, float, float]]]]:
    """Of each pass and precision: every length's record with the stock and the fast time."""
    points: dict[tuple[str, str], list[tuple[Any, float, float]]] = {}
    for record, passes, precision in rows_of(results["cells"]):
        times = [best_seconds(record, each, precision, passes) for each in (STOCK, FAST)]
        if all(isinstance(each, float) for each in times):
            points.setdefault((passes, precision), []).append((record, times[0], times[1]))
    return [(*key, found) for key, found in points.items()]


def _by_length(axes: Axes, results: dict[str, Any]) -> None:
    lengths = [record["length"] for record in results["cells"] if not isinstance(record, str)]
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.set_xlabel("tokens a row", fontsize=9, color=MUTED)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, handlelength=3)


def _thousands(value: float, _: object) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
