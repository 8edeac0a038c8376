"""The figures show the numbers they were given."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

from kernel_lib.errors import DataError
from kernel_lib.results.plots import (
    ORANGE,
    Chart,
    plot_learning_curves,
    plot_predicted_against_true,
    plot_score_distribution,
    plot_time,
    plot_token_lengths,
)
from kernel_lib.text.batches import Example


def examples_of(lengths: Sequence[int]) -> list[Example]:
    return [Example(str(i), np.zeros(n, dtype=np.int64)) for i, n in enumerate(lengths)]


def record(fold: int, epoch: float, loss: float, score: float) -> dict[str, Any]:
    return {"fold": fold, "epoch": epoch, "train_loss": loss, "scores": {"mcrmse": score, "a": 9.0}}


def oof_of(rows: int = 60, targets: Sequence[str] = ("a", "b", "c", "d")) -> pd.DataFrame:
    random = np.random.default_rng(3)
    columns = {}
    for name in targets:
        columns[f"true_{name}"] = random.integers(2, 11, rows) / 2
        columns[f"pred_{name}"] = np.clip(
            columns[f"true_{name}"] + random.normal(0, 0.4, rows), 1, 5
        )
    return pd.DataFrame(columns)


def titles(chart: Chart) -> list[str]:
    return [axes.get_title(loc="left") for axes in chart.axes]


def lines_labelled(axes: Axes, word: str) -> dict[str, Any]:
    return {str(x.get_label()): x for x in axes.lines if str(x.get_label()).startswith(word)}


def test_share_at_the_cap_is_named_and_drawn() -> None:
    chart = plot_token_lengths(examples_of([10, 20, 30, 40, 50, 64, 64, 64]), 64)
    (axes,) = chart.axes
    assert titles(chart) == ["38 % of texts reach the cap of 64 tokens"]
    bars: Any = axes.patches
    orange = [bar for bar in bars if to_hex(bar.get_facecolor()).upper() == ORANGE]
    assert sum(bar.get_height() for bar in orange) == 3
    assert sum(bar.get_height() for bar in bars) == 8
    assert max(bar.get_x() + bar.get_width() for bar in bars) == pytest.approx(64.5, abs=0.2)


@pytest.mark.parametrize(
    ("at_cap", "rows", "words"),
    [
        (0, 10, "No text reaches the cap of 64 tokens; the longest has 30"),
        (10, 10, "100 % of texts reach"),
        (1, 3911, "0.03 % of texts reach"),
        (3910, 3911, "99.97 % of texts reach"),
    ],
)
def test_a_few_are_not_none_and_most_are_not_all(at_cap: int, rows: int, words: str) -> None:
    chart = plot_token_lengths(examples_of([64] * at_cap + [30] * (rows - at_cap)), 64)
    assert titles(chart)[0].startswith(words)


def test_median_and_90th_percentile_are_marked_where_they_are() -> None:
    chart = plot_token_lengths(examples_of(range(1, 102)), 1000)
    (axes,) = chart.axes
    assert [np.asarray(line.get_xdata())[0] for line in axes.lines] == [51, 91]
    assert [text.get_text().strip() for text in axes.texts] == ["median 51", "90th percentile 91"]


@pytest.mark.parametrize("lengths", [[3], [1, 2], [512] * 5, range(1, 900)])
def test_every_text_is_in_a_bar(lengths: Sequence[int]) -> None:
    chart = plot_token_lengths(examples_of(lengths), 512)
    bars: Any = chart.axes[0].patches
    assert sum(bar.get_height() for bar in bars) == len(lengths)
    assert chart.png().startswith(b"\x89PNG")


def test_no_examples_is_an_error_with_words() -> None:
    with pytest.raises(DataError, match="no examples"):
        plot_token_lengths([], 512)


def test_learning_curves_have_a_line_a_fold_with_its_numbers() -> None:
    history = [record(0, 1, 0.5, 0.48), record(2, 1, 0.6, 0.49), record(0, 2, 0.3, 0.46)]
    chart = plot_learning_curves(history, "mcrmse")
    loss, score = chart.axes
    assert set(lines_labelled(loss, "fold")) == {"fold 0", "fold 2"}
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 0.5], [2, 0.3]])
    np.testing.assert_array_equal(score.lines[0].get_xydata(), [[1, 0.48], [2, 0.46]])
    np.testing.assert_array_equal(score.lines[1].get_xydata(), [[1, 0.49]])
    assert titles(chart)[1] == "validation mcrmse"
    (legend,) = chart.legends
    assert [text.get_text() for text in legend.get_texts()] == ["fold 0", "fold 2"]


def test_learning_curves_without_history_are_empty_axes() -> None:
    chart = plot_learning_curves([], "mcrmse")
    assert [len(axes.lines) for axes in chart.axes] == [0, 0]
    assert chart.png()


def test_folds_are_told_apart_without_colour() -> None:
    chart = plot_learning_curves([record(fold, 1, 0.5, 0.5) for fold in range(7)], "mcrmse")
    assert len({line.get_marker() for line in chart.axes[0].lines}) == 7


def test_predictions_on_a_scale_get_points_boxes_and_diagonal() -> None:
    oof = oof_of()
    chart = plot_predicted_against_true(oof, ["a", "b", "c", "d"])
    assert titles(chart) == ["a", "b", "c", "d"]
    axes: Any = chart.axes[0]
    points = axes.lines[0].get_xydata()
    np.testing.assert_array_equal(points[:, 1], oof["pred_a"])
    np.testing.assert_allclose(points[:, 0], oof["true_a"], atol=0.3 * 0.5)  # jitter stays near
    medians = {
        line.get_xdata().mean(): line.get_ydata()[0]
        for line in axes.lines
        if to_hex(line.get_color()).upper() == ORANGE
    }
    expected = oof.groupby("true_a")["pred_a"].median()
    assert medians == pytest.approx(expected.to_dict())
    (low, same_low), (high, same_high) = np.asarray(axes.lines[-1].get_xydata()).tolist()
    assert low == same_low < high == same_high
    rmse = np.sqrt(((oof["true_a"] - oof["pred_a"]) ** 2).mean())
    assert axes.get_title(loc="right") == f"RMSE {rmse:.3f}"


def test_targets_of_one_scale_share_it() -> None:
    oof = oof_of()
    oof["true_b"] = oof["true_b"].clip(2, 4)
    oof["pred_b"] = oof["pred_b"].clip(2, 4)
    first, second = plot_predicted_against_true(oof, ["a", "b"]).axes
    assert first.get_xlim() == second.get_xlim() == second.get_ylim()


def test_continuous_targets_get_points_and_diagonal_only() -> None:
    true = np.linspace(0, 700, 50)
    oof = pd.DataFrame({"true_a": true, "pred_a": true + 1})
    (axes,) = plot_predicted_against_true(oof, ["a"]).axes
    assert len(axes.lines) == 2
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), oof.to_numpy())


@pytest.mark.parametrize("plot", [plot_predicted_against_true, plot_score_distribution])
def test_degenerate_predictions_are_drawn(plot: Any) -> None:
    for true, predicted in (([3.0, 3.0], [3.0, 3.0]), ([3.0], [2.5]), ([0, 0.001, 900], [5, 5, 5])):
        assert plot(pd.DataFrame({"true_a": true, "pred_a": predicted}), ["a"]).png()


def test_a_name_with_dollars_is_no_formula() -> None:
    oof = oof_of(targets=["$\\frac{$"])
    for plot in (plot_predicted_against_true, plot_score_distribution):
        chart = plot(oof, ["$\\frac{$"])
        assert titles(chart) == ["$\\frac{$"]
        assert chart.png()


def test_distribution_counts_all_rows_about_the_levels() -> None:
    oof = pd.DataFrame({"true_a": [1.0, 1.5, 1.5, 3.0], "pred_a": [1.2, 1.3, 2.9, 3.0]})
    (axes,) = plot_score_distribution(oof, ["a"]).axes
    patches: Any = axes.patches
    *bars, outline = patches
    heights = {round(bar.get_x() + bar.get_width() / 2, 6): bar.get_height() for bar in bars}
    assert heights == pytest.approx({1.0: 25, 1.5: 50, 2.0: 0, 2.5: 0, 3.0: 25})
    steps = [tuple(point) for point in outline.get_xy()]
    assert (0.75, 25.0) in steps and (1.25, 25.0) in steps  # 1.2 is nearest to 1
    assert (2.75, 50.0) in steps and (3.25, 50.0) in steps  # 2.9 and 3.0


def test_distribution_of_continuous_values_counts_all_rows() -> None:
    random = np.random.default_rng(0)
    oof = pd.DataFrame({"true_a": random.normal(0, 1, 200), "pred_a": random.normal(0, 3, 200)})
    (axes,) = plot_score_distribution(oof, ["a"]).axes
    bars: list[Any] = [patch for patch in axes.patches if hasattr(patch, "get_height")]
    assert len(bars) == 20
    assert sum(bar.get_height() for bar in bars) == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "unit", "width"), [(90, "s", 90), (600, "min", 10), (9000, "h", 2.5)]
)
def test_time_has_a_bar_a_fold_in_fitting_units(seconds: float, unit: str, width: float) -> None:
    chart = plot_time([{"fold": 1, "seconds": seconds}, {"fold": 3, "seconds": seconds / 2}])
    (axes,) = chart.axes
    bars: Any = axes.patches
    assert [bar.get_width() for bar in bars] == pytest.approx([width, width / 2])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fold 1", "fold 3"]
    assert chart.get_supxlabel().endswith(f"({unit})")


def test_charts_show_themselves_once_in_a_notebook() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    chart = plot_time([{"fold": 0, "seconds": 3}])
    data, metadata = formatters.DisplayFormatter().format(chart)
    assert set(data) == {"text/plain", "image/png"}
    assert data["image/png"].startswith(b"\x89PNG")
    assert metadata == {"image/png": {"width": 900}}


def test_figures_are_reproducible_and_leave_pyplot_alone() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    oof = oof_of()
    first, second = (plot_predicted_against_true(oof, ["a"]).png() for _ in range(2))
    assert first == second
    assert dict(matplotlib.rcParams) == before


def test_a_dark_style_of_the_user_does_not_leak_in() -> None:
    import matplotlib
    from matplotlib.image import imread

    dark: Any = {"figure.facecolor": "black", "axes.facecolor": "black", "text.color": "white"}
    with matplotlib.rc_context(dark):
        chart = plot_token_lengths(examples_of([10, 20, 30]), 512)
        pixels = imread(io.BytesIO(chart.png()))
    assert pixels[0, 0, :3].min() == 1.0
    assert all(to_hex(text.get_color()) == "#222222" for text in chart.axes[0].texts)
