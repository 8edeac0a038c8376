"""The threshold's figure shows the numbers it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.results.spelling_plots import CURVES, plot_threshold


def curve_of(points: int = 5) -> pd.DataFrame:
    at = np.linspace(0, 0.8, points)
    columns = {"threshold": at, "precision": 0.5 + at / 4, "recall": 0.7 - at / 2}
    return pd.DataFrame({**columns, "f1": 0.6 - (at - 0.4) ** 2, "fpr": 0.2 - at / 5})


def lines_of(chart: Any) -> dict[str, Any]:
    (axes,) = chart.axes
    return {str(line.get_label()): line for line in axes.lines}


def test_curves_are_drawn_in_order_of_the_threshold() -> None:
    curve = curve_of()
    lines = lines_of(plot_threshold(curve.iloc[::-1]))
    for column, name, *_ in CURVES:
        np.testing.assert_allclose(
            lines[name].get_xydata(), np.stack([curve["threshold"], 100 * curve[column]], axis=1)
        )


def test_the_chosen_threshold_is_marked_with_its_scores() -> None:
    chart = plot_threshold(curve_of(), 0.4)
    (axes,) = chart.axes
    note = axes.get_title(loc="right")
    assert note == "chosen 0.40: F1 60.0 %, false positives 12.0 %"
    vertical: Any = axes.lines[-1]
    assert list(vertical.get_xdata()) == [0.4, 0.4]
    assert "chosen" in [text.get_text() for text in axes.texts]


def test_nothing_is_claimed_of_a_threshold_that_was_not_tried() -> None:
    (axes,) = plot_threshold(curve_of(), 0.33).axes
    assert axes.get_title(loc="right") == "chosen: 0.33"
    (axes,) = plot_threshold(curve_of()).axes
    assert not axes.texts and len(axes.lines) == len(CURVES)


def test_curves_are_told_apart_without_colour() -> None:
    lines = lines_of(plot_threshold(curve_of())).values()
    assert len({line.get_marker() for line in lines}) == len(CURVES)
    assert len({str(dashes) for *_, dashes in CURVES}) == len(CURVES)


@pytest.mark.parametrize("points", [1, 2, 26, 500])
def test_few_and_many_points_are_drawn(points: int) -> None:
    assert plot_threshold(curve_of(points), 0.0).png().startswith(b"\x89PNG")


def test_a_curve_that_cannot_be_drawn_is_named() -> None:
    with pytest.raises(DataError, match="no column 'recall', 'fpr'"):
        plot_threshold(curve_of().drop(columns=["recall", "fpr"]))
    with pytest.raises(DataError, match="no row"):
        plot_threshold(curve_of().iloc[:0])


def test_no_glyph_needs_a_chinese_font(recwarn: pytest.WarningsRecorder) -> None:
    plot_threshold(curve_of(), 0.4).png()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
