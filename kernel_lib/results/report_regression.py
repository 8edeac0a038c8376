"""The report's part of a regression task: what its predictions look like."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pandas as pd

from kernel_lib.artifacts import Run
from kernel_lib.results import plots
from kernel_lib.results.report_page import figure


def read_oof(text: str) -> pd.DataFrame:
    """``oof.csv``, its numbers as numbers."""
    return pd.read_csv(io.StringIO(text))


def warnings(oof: pd.DataFrame) -> Iterator[str]:
    """Targets that the model predicts worse than their mean does."""
    for target in _targets(oof):
        true, predicted = oof[f"true_{target}"], oof[f"pred_{target}"]
        rmse, spread = float(((predicted - true) ** 2).mean() ** 0.5), float(true.std(ddof=0))
        if rmse > spread:
            yield f"{target}: RMSE {rmse:.3f}; always predicting the mean: {spread:.3f}."


def sections(run: Run, oof: pd.DataFrame) -> Iterator[str]:
    """Two figures; nothing where the table has no pair of ``true_`` and ``pred_`` columns."""
    targets = _targets(oof)
    if not targets:
        return
    yield figure(
        "Predicted against true",
        plots.plot_predicted_against_true(oof, targets),
        "Out-of-fold predictions; on the dashed line they equal the truth. Boxes hold the "
        "middle half of a level's rows, with a bar at the median; whiskers reach from the 5th "
        "to the 95th percentile.",
    )
    yield figure(
        "Distribution of scores",
        plots.plot_score_distribution(oof, targets),
        "True values and out-of-fold predictions, counted in the same bins.",
    )


def _targets(oof: pd.DataFrame) -> list[str]:
    columns = [str(column) for column in oof.columns]
    true = [column.removeprefix("true_") for column in columns if column.startswith("true_")]
    return [name for name in true if f"pred_{name}" in columns]
