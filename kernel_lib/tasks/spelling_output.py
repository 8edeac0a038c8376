"""What spelling correction hands in: corrected sentences, and every change with its probability."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kernel_lib.runtime.files import write_text
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.tasks.submission import texts_by_sample, write_texts
from kernel_lib.text.corrections import Change, apply_changes


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
    columns = settings.id_column, settings.target_column
    write_texts(texts_by_sample(corrected, ids, unseen.sample, columns), Path(inference.submission))
    write_text(Path(inference.corrections), _lines(ids, sources, corrected, changes))


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
