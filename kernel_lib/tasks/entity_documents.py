"""Texts of words with tags: from files in any format to one table, and from it to windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from kernel_lib.errors import DataError
from kernel_lib.metrics.tags import Scheme
from kernel_lib.runtime.paths import find_folder
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.entity_settings import EntityInferenceSettings, EntitySettings
from kernel_lib.tasks.input_files import draw_rows, find_test, join_files, labels_of
from kernel_lib.text.batches import IGNORE, Example
from kernel_lib.text.folds import make_folds
from kernel_lib.text.tables import listed
from kernel_lib.text.tagged import read_tagged
from kernel_lib.text.words import NO_WORD, encode_word_lists

TEST_FILES = ("test.csv", "test.jsonl", "test.json", "test.conll")


def read_train_documents(settings: EntitySettings) -> pd.DataFrame:
    """The training texts: columns id, tokens, tags (lists), domain, and the files' others.

    Raises:
        DataError: a file is missing or damaged, or has tags that do not fit.
    """
    folder = find_folder(
        settings.train_files,
        given=settings.data_dir,
        name=settings.dataset,
        what="training texts",
    )
    return draw_rows(_read(folder, settings.train_files, settings, needs_tags=True), settings)


def read_test_documents(inference: EntityInferenceSettings, settings: EntitySettings) -> Unseen:
    """The texts to read, with tags where all the files have them.

    Raises:
        DataError: as for :func:`read_train_documents`.
    """
    folder, files, sample = find_test(
        inference.test_files,
        TEST_FILES,
        data_dir=inference.data_dir,
        dataset=settings.dataset,
        what="test texts",
    )
    return Unseen(_read(folder, files, settings, needs_tags=False), sample)


def _read(
    folder: Path, files: Sequence[str], settings: EntitySettings, *, needs_tags: bool
) -> pd.DataFrame:
    """All files below each other."""
    frames = []
    scheme: Scheme = settings.scheme  # type: ignore[assignment]  # one of its choices
    for name, label in zip(files, labels_of(files), strict=True):
        path = folder / name
        frame = read_tagged(
            path,
            id_column=settings.id_column,
            tokens_column=settings.tokens_column,
            tags_column=settings.tags_column,
            needs_tags=needs_tags,
            scheme=scheme,
        )
        if "domain" not in frame:
            frame["domain"] = label
        # A text without one has None, or NaN beside numbers.
        frame["domain"] = [str(v) if v is not None and v == v else "" for v in frame["domain"]]
        if needs_tags and settings.fold_scheme == "grouped" and settings.group_column not in frame:
            raise DataError(
                f"{path} has no column {settings.group_column!r}, the group_column of the folds."
            )
        frames.append(frame)
    return join_files(frames, files, "tags")


def unknown_tags(frame: pd.DataFrame, labels: Sequence[str]) -> str:
    """Which of the texts' tags are none of the labels, in words; empty if all are."""
    if "tags" not in frame:
        return ""
    places: dict[str, list[str]] = {}
    for row_id, tags in zip(frame["id"], frame["tags"], strict=True):
        for word, tag in enumerate(tags, start=1):
            if tag not in labels:
                places.setdefault(tag, []).append(f"{row_id}, word {word}")
    return "; ".join(f"{tag} ({listed(where)})" for tag, where in sorted(places.items()))


def make_document_folds(
    frame: pd.DataFrame, types: Sequence[str], settings: EntitySettings
) -> NDArray[np.int64]:
    """The fold of each text, ``(texts,)``; schemes that stratify see which types it has.

    Raises:
        DataError: there are too few texts or groups.
    """
    # Numbers for names: a type may be called as a column of the file is.
    there = {
        str(number): [float(f"B-{name}" in tags) for tags in frame["tags"]]
        for number, name in enumerate(types)
    }
    rows = pd.DataFrame(there, index=frame.index)
    if settings.fold_scheme == "grouped":
        rows["group"] = frame[settings.group_column]
    return make_folds(
        rows,
        scheme=settings.fold_scheme,
        n_folds=settings.n_folds,
        seed=settings.seed,
        target_columns=tuple(there),
        group_column="group",
    )


def encode_documents(
    frame: pd.DataFrame,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    settings: EntitySettings,
) -> list[Example]:
    """The windows of each text, in the frame's order; targets at words' first tokens.

    A model takes word 0 for the text's beginning, and that word may have no token, as a blank has
    none. So ``Example.words`` counts from the first word with one; ``origin["lead"]`` is how many
    come before.

    Args:
        frame: columns id, tokens, domain and, where they are known, tags.
        tokenizer: of the run.
        labels: the columns' names; a word whose tag is none of them has no target.
        settings: for ``max_length``, ``window_overlap`` and ``special_tokens``.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    tags = frame["tags"] if "tags" in frame else [None] * len(frame)
    texts = encode_word_lists(
        tokenizer,
        frame["tokens"].tolist(),
        max_length=settings.max_length,
        overlap=settings.window_overlap,
        special_tokens=settings.special_tokens,
    )
    examples = []
    rows = zip(frame["id"], frame["tokens"], tags, frame["domain"], texts, strict=True)
    for row, (row_id, tokens, given, domain, windows) in enumerate(rows):
        origin = {"tokens": tokens, "tags": given, "domain": domain}
        there = windows[0].words[windows[0].words >= 0]
        lead = int(there[0]) if len(there) else 0
        wanted = (
            None
            if given is None
            else np.array([numbers.get(tag, IGNORE) for tag in given], dtype=np.int32)
        )
        for window in windows:
            ids, words = window.input_ids, window.words
            if not len(ids):  # an encoder cannot read nothing
                ids, words = np.array([[tokenizer.cls_token_id], [NO_WORD]], dtype=np.int32)
            examples.append(
                Example(
                    f"{row_id}@{window.start}" if window.start else row_id,
                    ids,
                    None if wanted is None else _targets(words, wanted),
                    words=np.where(words >= 0, words - lead, words),
                    row=row,
                    start=window.start,
                    origin={
                        **({} if window.start else origin),
                        "stop": window.stop,
                        "lead": lead,
                    },
                )
            )
    return examples


def first_places(words: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where a word's first token in its window stands."""
    before = np.concatenate([[-1], words[:-1]])
    first: NDArray[np.bool_] = (words >= 0) & (words != before)
    return first


def _targets(words: NDArray[np.int32], wanted: NDArray[np.int32]) -> NDArray[np.int32]:
    first = first_places(words)
    targets = np.full(len(words), IGNORE, dtype=np.int32)
    targets[first] = wanted[words[first]]
    return targets
