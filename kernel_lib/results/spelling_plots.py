"""A figure of a spelling corrector: what the threshold for changing a character does."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kernel_lib.errors import DataError
from kernel_lib.results.chart import (
    BLUE,
    FOLD_COLOURS,
    INK,
    MUTED,
    ORANGE,
    Chart,
    add_legend,
    make_panels,
    set_title,
)

GREEN, PINK = FOLD_COLOURS[2], FOLD_COLOURS[3]
# Column, name, colour, marker, dashes: told apart without colour too.
CURVES = (
    ("f1", "F1", BLUE, "o", "-"),
    ("precision", "precision", GREEN, "s", (0, (5, 2))),
    ("recall", "recall", PINK, "^", (0, (2, 1.5))),
    ("fpr", "false positive rate", ORANGE, "D", (0, (5, 2, 1, 2))),
)


def plot_threshold(curve: pd.DataFrame, chosen: float | None = None) -> Chart:
    """Strict correction and the false positive rate, against the threshold for a change.

    A character is changed where the model's probability of the new one reaches the threshold. The
    higher it is, the fewer right sentences are touched, and the fewer errors are mended.

    Args:
        curve: with columns ``threshold``, ``precision``, ``recall``, ``f1`` and ``fpr``, all from 0
            to 1; a row a threshold, in any order.
        chosen: the threshold in use, marked; None marks none.

    Returns:
        One panel.

    Raises:
        DataError: a column is missing, or there is no row.
    """
    needed = ["threshold", *(column for column, *_ in CURVES)]
    if missing := [name for name in needed if name not in curve]:
        raise DataError(f"the curve has no column {', '.join(map(repr, missing))}.")
    if curve.empty:
        raise DataError("the curve has no row, so there is no threshold to draw.")
    curve = curve.sort_values("threshold", kind="stable")
    at = curve["threshold"].to_numpy(dtype=np.float64)
    figure, (axes,) = make_panels(1, 3.3, x="threshold", y="share (%)")
    marked = len(at) <= 25  # more markers than that run into one another
    for column, name, colour, marker, dashes in CURVES:
        axes.plot(
            at,
            100 * curve[column].to_numpy(dtype=np.float64),
            color=colour,
            linestyle=dashes,
            linewidth=2.4 if column == "f1" else 1.6,
            marker=marker,
            markersize=4.5,
            markevery=1 if marked else len(at) // 12,
            label=name,
        )
    span = max(float(at[-1] - at[0]), 0.02)
    axes.set(xlim=(at[0] - 0.02 * span, at[-1] + 0.02 * span), ylim=(-2, 104))
    title = "strict correction"
    note = f"thresholds {at[0]:.2f} to {at[-1]:.2f}"
    if chosen is not None:
        axes.axvline(chosen, color=INK, linewidth=1, zorder=1)
        near = curve.iloc[int(np.abs(at - chosen).argmin())]
        if abs(near["threshold"] - chosen) < 1e-6:
            note = (
                f"chosen {chosen:.2f}: F1 {100 * near['f1']:.1f} %, "
                f"false positives {100 * near['fpr']:.1f} %"
            )
        else:
            note = f"chosen: {chosen:.2f}"
        left = chosen > (at[0] + at[-1]) / 2
        axes.annotate(
            "chosen",
            (chosen, 103),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            color=MUTED,
            fontsize=9,
        )
    set_title(axes, title, note)
    add_legend(figure, axes)
    return figure
