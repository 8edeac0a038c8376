"""The sentences of spelling correction, from files in any format to one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.runtime.paths import find_folder
from kernel_lib.tasks.base import Unseen
from kernel_lib.tasks.input_files import draw_rows, find_test, join_files, labels_of
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings
from kernel_lib.text.confusion import ConfusionSet
from kernel_lib.text.sentences import read_sentences, warn_if_traditional

TEST_FILES = ("test.csv", "test.tsv", "test.jsonl", "test.txt")
COLUMNS = ("id", "source", "target", "domain")


def read_train_sentences(settings: SpellingSettings) -> pd.DataFrame:
    """The training sentences: columns id, source, target, domain, all text.

    Raises:
        DataError: a file is missing or damaged, or has rows that do not fit.
    """
    folder = find_folder(
        (*settings.train_files, *settings.confusion_files),
        given=settings.data_dir,
        name=settings.dataset,
        what="training sentences",
    )
    return draw_rows(_read(folder, settings.train_files, settings, needs_target=True), settings)


def read_confusion(settings: SpellingSettings) -> ConfusionSet | None:
    """The confusion set of the settings' files; None where there are none."""
    if not settings.confusion_files:
        return None
    folder = find_folder(
        (*settings.train_files, *settings.confusion_files),
        given=settings.data_dir,
        name=settings.dataset,
        what="confusion sets",
    )
    return ConfusionSet.read([folder / name for name in settings.confusion_files])


def restore_confusion(resources: Any) -> ConfusionSet | None:
    """The confusion set that ``run.json`` kept; None where there was none.

    Raises:
        ArtifactError: it is damaged.
    """
    try:
        if isinstance(resources, dict) and "confusion" not in resources:
            return None
        return ConfusionSet.from_dict(resources["confusion"])
    except (DataError, TypeError) as error:
        raise ArtifactError(f"the confusion set in it is damaged ({error}).") from None


def read_test_sentences(inference: SpellingInferenceSettings, settings: SpellingSettings) -> Unseen:
    """The sentences to correct, with targets where the files have them.

    Raises:
        DataError: as for :func:`read_train_sentences`.
    """
    folder, files, sample = find_test(
        inference.test_files,
        TEST_FILES,
        data_dir=inference.data_dir,
        dataset=settings.dataset,
        what="sentences to correct",
    )
    return Unseen(_read(folder, files, settings, needs_target=False), sample)


def _read(
    folder: Path, files: Sequence[str], settings: SpellingSettings, *, needs_target: bool
) -> pd.DataFrame:
    """All files below each other under the common column names."""
    frames = []
    for name, label in zip(files, labels_of(files), strict=True):
        path = folder / name
        frame = read_sentences(
            path,
            id_column=settings.id_column,
            source_column=settings.source_column,
            target_column=settings.target_column,
            needs_target=needs_target,
        )
        given = (
            settings.id_column,
            settings.source_column,
            settings.target_column,
            settings.domain_column,
        )
        found = {
            ours: frame[theirs]
            for ours, theirs in zip(COLUMNS, given, strict=True)
            if theirs in frame
        }
        columns = pd.DataFrame(found)
        if "domain" not in columns:
            columns["domain"] = label
        group = settings.group_column
        if needs_target and settings.fold_scheme == "grouped" and group not in columns:
            if group not in frame:
                raise DataError(f"{path} has no column {group!r}, the group_column of the folds.")
            columns[group] = frame[group]
        for column in set(columns.columns) & {"source", "target"}:
            warn_if_traditional(columns[column], where=f"{path}, {column}")
        frames.append(columns)
    return join_files(frames, files, "target")
