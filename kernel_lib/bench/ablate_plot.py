"""The differences of ``make ablate`` in one picture, with their 95 % intervals."""

from __future__ import annotations

from typing import Any

from matplotlib.layout_engine import ConstrainedLayoutEngine

from kernel_lib.bench.ablate_errors import ALIKE, HELPS, HURTS, NOTHING
from kernel_lib.bench.ablate_table import about_machine
from kernel_lib.results.chart import BLUE, FAINT, GRID, INK, MUTED, ORANGE, Chart, set_title

COLOURS = {HELPS: BLUE, HURTS: ORANGE, NOTHING: INK}


def plot_differences(record: dict[str, Any]) -> Chart:
    """A line a technique: difference and interval, the best at the top, time and memory beside it.

    Args:
        record: as ``make_record`` gives it.
    """
    found = [each for each in record["techniques"] if "verdict" in each]
    found.sort(key=lambda each: each["difference"])
    figure = Chart(
        figsize=(9.0, 1.1 + 0.24 * max(3, len(found))),
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
        facecolor="white",
    )
    title = about_machine(record["base"]) if record["base"]["runs"] else "nothing measured yet"
    figure.suptitle(title, x=0.01, ha="left", fontsize=9, color=MUTED)
    axes = figure.subplots()
    axes.set(facecolor="white", axisbelow=True, ylim=(len(found) - 0.4, -0.6))
    axes.grid(color=GRID, linewidth=0.8, axis="x")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, colors=MUTED, labelsize=9)
    axes.axvspan(-ALIKE, ALIKE, color=GRID, alpha=0.6, linewidth=0)
    axes.axvline(0, color=FAINT, linewidth=1)
    for place, each in enumerate(found):
        colour = COLOURS.get(each["verdict"], MUTED)
        axes.errorbar(
            each["difference"],
            place,
            xerr=each["quantile"] * each["error"],
            fmt="o",
            color=colour,
            markersize=4,
            linewidth=1.4,
        )
        memory = "" if each["memory"] is None else f", memory {each['memory']:.1f}x"
        axes.text(
            1.01,
            place,
            f"time {each['time']:.1f}x{memory}",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8,
            color=MUTED,
        )
    axes.set_yticks(range(len(found)), [each["name"] for each in found])
    for tick, each in zip(axes.get_yticklabels(), found, strict=True):
        tick.set(color=COLOURS.get(each["verdict"], MUTED))
    score = record["base"]["score"]
    note = f"base: {score:.4f}" if score is not None else ""
    set_title(axes, "change of the MCRMSE with 95 % interval; left is better", note)
    return figure
