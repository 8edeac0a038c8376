"""What named-entity recognition hands in: tags, spans or words; and every entity it named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib.errors import SubmissionError
from kernel_lib.metrics.tags import Span, read_spans, write_tags
from kernel_lib.runtime.files import write_text
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings
from kernel_lib.tasks.submission import read_header, texts_by_sample, write_texts


def write_entities(
    unseen: Unseen,
    tags: Sequence[Sequence[str]],
    probabilities: Sequence[NDArray[np.float32]],
    labels: Sequence[str],
    inference: EntityInferenceSettings,
    settings: EntitySettings,
) -> None:
    """Writes the submission in the form that was asked for, and every entity with its probability.

    Args:
        unseen: the test texts, columns id and tokens.
        tags: of each text.
        probabilities: ``(words, labels)`` of each text.
        labels: the columns' names.
        inference: form and names of the files.
        settings: of the run, for the columns.

    Raises:
        SubmissionError: the sample has other columns or ids, tags cannot be told apart, or the file
            cannot be read back as it was written.
        ArtifactError: the disk is full or not writable.
    """
    ids, tokens = unseen.frame["id"].tolist(), unseen.frame["tokens"].tolist()
    spans = [read_spans(each, strict=True) for each in tags]
    if inference.form == "tags":
        texts = [_joined(each, labels) for each in tags]
        names = settings.id_column, settings.tags_column
        frame = texts_by_sample(texts, ids, unseen.sample, names)
    elif inference.form == "spans":
        found = [
            (row_id, span.type, " ".join(map(str, range(span.start, span.end))))
            for row_id, each in zip(ids, spans, strict=True)
            for span in each
        ]
        frame = _table(found, (settings.id_column, "class", "predictionstring"), unseen.sample)
    else:
        words = [
            (row_id, str(word), tag)
            for row_id, each in zip(ids, tags, strict=True)
            for word, tag in enumerate(each)
            if tag != "O"
        ]
        numbered = [(str(number), *row) for number, row in enumerate(words)]
        frame = _table(numbered, ("row_id", "document", "token", "label"), unseen.sample)
    write_texts(frame, Path(inference.submission))
    lines = _lines(ids, tokens, tags, spans, probabilities, list(labels))
    write_text(Path(inference.entities), "".join(lines))


def _joined(tags: Sequence[str], labels: Sequence[str]) -> str:
    """A text's tags with blanks between. Raises SubmissionError where a label holds one."""
    blank = [label for label in labels if len(label.split()) != 1]
    if blank:
        raise SubmissionError(
            f'the tag {blank[0]!r} holds a blank, and form="tags" puts blanks between tags: they '
            'could not be told apart. Set form="spans" or form="words".'
        )
    return " ".join(tags)


def _table(
    rows: Sequence[tuple[str, ...]], columns: tuple[str, ...], sample: Path | None
) -> pd.DataFrame:
    """Rows under these names, in the order of the sample; or under other ones that it has in their
    places. Its ids say nothing: a text may have any number of rows."""
    frame = pd.DataFrame(rows, columns=list(columns))
    if sample is None:
        return frame
    header = read_header(sample)
    if len(header) != len(columns):
        raise SubmissionError(
            f"{sample} has the columns {', '.join(header)}; this form of submission has "
            f"{', '.join(columns)}. Set form to the one that the sample shows."
        )
    return frame[header] if set(header) == set(columns) else frame.set_axis(header, axis=1)


def _lines(
    ids: Sequence[str],
    tokens: Sequence[Sequence[str]],
    tags: Sequence[Sequence[str]],
    spans: Sequence[Sequence[Span]],
    probabilities: Sequence[NDArray[np.float32]],
    labels: list[str],
) -> Iterator[str]:
    """A JSON object a text; an entity's probability is the mean of its words' tags'. Tags that the
    entities do not tell, as an I- that continues nothing, stand there as they are."""
    columns = (ids, tokens, tags, spans, probabilities)
    for row_id, words, said, found, shares in zip(*columns, strict=True):
        entities = [
            {
                "type": span.type,
                "start": span.start,
                "end": span.end,
                "words": words[span.start : span.end],
                "probability": round(_probability(span, shares, labels), 4),
            }
            for span in found
        ]
        line = {"id": row_id, "tokens": words, "entities": entities}
        if write_tags(found, len(words)) != list(said):
            line["tags"] = list(said)
        yield json.dumps(line, ensure_ascii=False)
        yield "\n"


def _probability(span: Span, shares: NDArray[np.float32], labels: list[str]) -> float:
    first, inside = labels.index(f"B-{span.type}"), labels.index(f"I-{span.type}")
    words = [shares[span.start, first], *shares[span.start + 1 : span.end, inside]]
    return float(np.mean(words))
