"""Named entities read back as one table, and told in words."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kernel_lib.artifacts import Run, read_oof
from kernel_lib.errors import ArtifactError
from kernel_lib.metrics.entities import entity_scores
from kernel_lib.metrics.entity_errors import type_confusion
from kernel_lib.metrics.entity_lines import format_confusion, format_lines
from kernel_lib.metrics.tags import Span, read_spans, write_tags
from kernel_lib.results.members import best_first, find_runs, gather_members
from kernel_lib.tasks.entity_decoding import are_biases, are_labels, types_of
from kernel_lib.tasks.entity_settings import EntityInferenceSettings
from kernel_lib.text.tables import listed


def count_entities(frame: pd.DataFrame) -> pd.DataFrame:
    """Texts, words and entities of each type, by domain.

    Args:
        frame: columns tokens, tags (lists) and domain.
    """
    found = [Counter(span.type for span in _spans(tags)) for tags in frame["tags"]]
    types = sorted({name for counts in found for name in counts})
    table = [[1, len(tags)] for tags in frame["tags"]]
    for row, counts in zip(table, found, strict=True):
        row += [counts[name] for name in types]
    whole = pd.DataFrame(table, columns=["texts", "words", *types])
    return whole.groupby(frame["domain"].to_numpy()).sum()


def read_tagged_oof(run: Run) -> pd.DataFrame:
    """The out-of-fold tags of a run's finished folds.

    Returns:
        Columns id, fold, domain, and tokens, tags, predicted as lists.

    Raises:
        ArtifactError: no fold is finished, or a file is damaged.
    """
    finished = run.finished_folds()
    if not finished:
        raise ArtifactError(f"{run.folder} has no finished fold yet: run again to go on.")
    frame = pd.concat([read_oof(run, fold) for fold in finished], ignore_index=True)
    try:
        return with_lists(frame).drop(columns="probabilities")
    except (KeyError, ValueError) as error:
        raise ArtifactError(
            f"the out-of-fold tags of {run.folder} are damaged ({error}). Copy it again."
        ) from None


def with_lists(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with tokens, tags and predicted as lists instead of JSON.

    Raises:
        ValueError: a cell is no JSON list.
    """
    for name in ("tokens", "tags", "predicted"):
        lists = [json.loads(text) for text in frame[name]]
        if not all(isinstance(each, list) for each in lists):
            raise ValueError(f"a cell of {name} is no list")
        frame = frame.assign(**{name: _lists(lists, frame)})
    return frame


def _lists(values: Sequence[list[str]], frame: pd.DataFrame) -> pd.Series[Any]:
    """A column of lists, also of lists of one length."""
    return pd.Series(list(values), index=frame.index, dtype=object)


def read_predicted(settings: EntityInferenceSettings) -> pd.DataFrame:
    """What an inference notebook wrote, with tags where the test files have them.

    Args:
        settings: of the notebook.

    Returns:
        As :func:`read_tagged_oof`, in the input's order, without folds.

    Raises:
        ArtifactError: the file of entities has no line for a text.
    """
    task = best_first(gather_members(find_runs(settings.runs)))[0].task
    test = task.read_test(settings).frame
    lines = Path(settings.entities).read_text(encoding="utf-8").split("\n")[:-1]
    rows = {row["id"]: row for row in map(json.loads, lines)}
    if missing := [row_id for row_id in test["id"] if row_id not in rows]:
        raise ArtifactError(
            f"{settings.entities} has no line for text {listed(missing)}: it was written for other "
            "texts. Predict again."
        )
    predicted = []
    for row_id, tokens in zip(test["id"], test["tokens"], strict=True):
        row = rows[row_id]
        found = [Span(e["type"], e["start"], e["end"]) for e in row["entities"]]
        predicted.append(row["tags"] if "tags" in row else write_tags(found, len(tokens)))
    return test.assign(predicted=_lists(predicted, test))


def scores_text(frame: pd.DataFrame) -> str:
    """All scores, a table by type first, and which type was taken for which.

    Args:
        frame: columns tokens, tags and predicted, lists.
    """
    gold, predicted = frame["tags"].tolist(), frame["predicted"].tolist()
    scores = entity_scores(gold, predicted, texts=frame["tokens"].tolist())
    spans = ([_spans(tags) for tags in each] for each in (gold, predicted))
    return f"{format_lines(scores)}\n\n{format_confusion(type_confusion(*spans))}"


def bias_text(run: Run) -> str:
    """In one line: how ready each type is named, as chosen by the out-of-fold texts.

    Raises:
        ArtifactError: the record is damaged there.
    """
    bias, worth = chosen_biases(run)
    if bias is None:
        return "no o_bias is chosen yet: a word is named when that is likelier than no entity"
    parts = [f"{name} {value:+g}" for name, value in bias.items()]
    note = "" if worth is None else f"; strict micro F1 of folds left out of it: {worth:.4f}"
    return f"o_bias {', '.join(parts) or 'of no type'}{note}"


def chosen_biases(run: Run) -> tuple[dict[str, float] | None, float | None]:
    """What a run's record says: the bias of each type, and its F1; None where it says nothing.

    Raises:
        ArtifactError: the record is damaged there.
    """
    bias, worth = run.record.get("o_bias"), run.record.get("o_bias_f1")
    if bias is None:
        return None, None
    resources = run.record.get("resources")
    labels: Any = resources.get("labels") if isinstance(resources, dict) else None
    if not are_labels(labels) or not are_biases(bias, types_of(labels)):
        raise ArtifactError("the o_bias or the labels in run.json are damaged. Copy it again.")
    if not (worth is None or isinstance(worth, float | int)):
        raise ArtifactError("the o_bias_f1 in run.json is damaged. Copy it again.")
    return {name: float(bias.get(name, 0.0)) for name in sorted(types_of(labels))}, worth


def _spans(tags: Sequence[str]) -> list[Span]:
    return read_spans(tags, strict=True)
