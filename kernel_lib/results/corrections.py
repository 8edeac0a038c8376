"""Corrections read back as one table, and told in words."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from kernel_lib.artifacts import Run, read_oof
from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.spelling import spelling_scores
from kernel_lib.metrics.spelling_lines import format_lines
from kernel_lib.results.members import best_first, find_runs, gather_members
from kernel_lib.tasks.decoding import Decoding
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings
from kernel_lib.text.corrections import Change, changes_from_json


def read_corrections(run: Run) -> pd.DataFrame:
    """The out-of-fold corrections of a run's finished folds.

    Returns:
        Columns id, fold, domain, source, target, corrected, and changes (lists of ``Change``).

    Raises:
        ArtifactError: no fold is finished, or a file is damaged.
    """
    finished = run.finished_folds()
    if not finished:
        raise ArtifactError(f"{run.folder} has no finished fold yet: run again to go on.")
    frame = pd.concat([read_oof(run, fold) for fold in finished], ignore_index=True)
    changes = frame["changes"].map(changes_from_json)
    return frame.drop(columns="proposals").assign(changes=changes)


def read_predicted(settings: SpellingInferenceSettings) -> pd.DataFrame:
    """What an inference notebook wrote, with targets where the test files have them.

    Args:
        settings: of the notebook.

    Returns:
        As :func:`read_corrections`, in the input's order, without folds.
    """
    best = best_first(gather_members(find_runs(settings.runs)))[0]
    test = best.task.read_test(settings).frame
    lines = Path(settings.corrections).read_text(encoding="utf-8").split("\n")[:-1]
    rows = {row["id"]: row for row in map(json.loads, lines)}
    found = [rows[row_id] for row_id in test["id"]]
    changes = [[Change(**change) for change in row["changes"]] for row in found]
    return test.assign(
        corrected=[row["corrected"] for row in found],
        changes=pd.Series(changes, index=test.index, dtype=object),
    )


def scores_text(frame: pd.DataFrame) -> str:
    """All scores of corrections, a line a definition.

    Args:
        frame: columns source, target and corrected.
    """
    texts = (frame[name].tolist() for name in ("source", "target", "corrected"))
    return format_lines(spelling_scores(*texts))


def decoding_text(run: Run) -> str:
    """In one line: when a character is changed, as chosen by the out-of-fold sentences.

    Raises:
        ArtifactError: the record is damaged there.
    """
    if not run.record.get("decoding"):
        return "no decoding is chosen yet: a character is changed when another is likelier"
    chosen = Decoding.from_record(run.record["decoding"])
    ways = [
        f"a probability of {chosen.threshold:g} or more",
        "Chinese characters only" if chosen.chinese_only else "any character",
        "within the confusion set" if chosen.confusion_only else "",
        f"{chosen.passes} pass{'es' if chosen.passes > 1 else ''}",
    ]
    worth = run.record.get("decoding_f1")
    note = "" if worth is None else f"; strict correction F1 of folds left out of it: {worth:.4f}"
    return f"changed with {', '.join(way for way in ways if way)}{note}"
