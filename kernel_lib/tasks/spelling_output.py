"""What spelling correction hands in: corrected sentences, and every change with its probability."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from kernel_lib.errors import SubmissionError
from kernel_lib.runtime.files import replacing, write_text
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.tasks.submission import compare_ids, read_sample
from kernel_lib.text.corrections import Change, apply_changes
from kernel_lib.text.tables import read_table


def write_corrections(
    unseen: Unseen,
    changes: Sequence[Sequence[Change]],
    inference: SpellingInferenceSettings,
    settings: SpellingSettings,
) -> None:
    """Writes ``submission.csv`` and ``corrections.jsonl``, each whole or not at all.

    The submission has the sample's columns and row order, joined by id; without a sample the id
    column, the target column, and the test rows' order. The other file has the test rows' order.

    Args:
        unseen: the test rows, columns id and source.
        changes: of each row.
        inference: names of the files.
        settings: of the run, for the columns.

    Raises:
        SubmissionError: the sample has other columns or ids, or the file cannot be read back as it
            was written.
        ArtifactError: the disk is full or not writable.
    """
    ids, sources = unseen.frame["id"].tolist(), unseen.frame["source"].tolist()
    corrected = [apply_changes(text, made) for text, made in zip(sources, changes, strict=True)]
    columns = [settings.id_column, settings.target_column]
    order = ids
    if unseen.sample is not None:
        sample = read_sample(unseen.sample)
        columns = list(sample.columns)
        if len(columns) != 2:
            raise SubmissionError(
                f"{unseen.sample} has the columns {', '.join(columns)}; corrections need two: the "
                "id and the corrected text."
            )
        compare_ids(unseen.sample, sample[columns[0]], pd.Index(ids))
        order = sample[columns[0]].tolist()
    by_id = dict(zip(ids, corrected, strict=True))
    frame = pd.DataFrame({columns[0]: order, columns[1]: [by_id[row_id] for row_id in order]})
    _write_checked(frame, Path(inference.submission))
    write_text(Path(inference.corrections), _lines(ids, sources, corrected, changes))


def _write_checked(frame: pd.DataFrame, path: Path) -> None:
    """Every cell in quotes, since a text may hold anything, and read back before it counts."""
    with replacing(path) as temporary:
        text = frame.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_ALL)
        temporary.write_text(text, encoding="utf-8", newline="")
        found = read_table(temporary, columns=frame.columns.tolist(), id_column=frame.columns[0])
        wanted, read = (table.to_numpy().tolist() for table in (frame, found))
        pairs = zip_longest(wanted, read, fillvalue=[None])
        wrong = [(one or other)[0] for one, other in pairs if one != other]
        if wrong:
            raise SubmissionError(
                f"{path}: the text of {wrong[0]!r} cannot be kept in a CSV file: it is read back "
                f"as another one ({len(wrong)} such rows)."
            )


def _lines(
    ids: Sequence[str],
    sources: Sequence[str],
    corrected: Sequence[str],
    changes: Sequence[Sequence[Change]],
) -> str:
    """A JSON object a line."""
    lines = []
    for row_id, source, text, made in zip(ids, sources, corrected, changes, strict=True):
        row = {"id": row_id, "source": source, "corrected": text}
        found = [{**vars(change), "probability": round(change.probability, 4)} for change in made]
        lines.append(json.dumps({**row, "changes": found}, ensure_ascii=False) + "\n")
    return "".join(lines)
