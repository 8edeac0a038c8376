"""Which files a run reads, and what rows of several are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from kernel_lib.config import TrainingSettings
from kernel_lib.errors import DataError
from kernel_lib.runtime.paths import find_folder, input_folders, input_root

SAMPLE = "sample_submission.csv"


def find_test(
    given: Sequence[str], usual: Sequence[str], *, data_dir: str, dataset: str, what: str
) -> tuple[Path, tuple[str, ...], Path | None]:
    """The folder of the test files, their names in it, and the sample submission if there is one.

    Args:
        given: names from the settings; none: the one of ``usual`` that is there.
        usual: names to look for.
        data_dir: a folder; empty: under the inputs.
        dataset: name of the folder to prefer when several hold the files.
        what: is sought, for the message.

    Raises:
        DataError: there is none, or several.
    """
    files = tuple(given) or (_the_one(usual, data_dir),)
    folder = find_folder(files, given=data_dir, name=dataset, what=what)
    sample = folder / SAMPLE
    return folder, files, sample if sample.is_file() else None


def _the_one(usual: Sequence[str], data_dir: str) -> str:
    folders = [Path(data_dir)] if data_dir else list(input_folders())
    found = [name for name in usual if any((f / name).is_file() for f in folders)]
    if len(found) != 1:
        raise DataError(
            f"{data_dir or input_root()} holds {' and '.join(found) or 'no test file'}: one of "
            f"{', '.join(usual)} is looked for. Set test_files."
        )
    return found[0]


def labels_of(files: Sequence[str]) -> list[str]:
    """What each file is called where its rows stand among others': its stem, if no other has it."""
    stems = [Path(name).stem for name in files]
    return [
        stem if stems.count(stem) == 1 else name for name, stem in zip(files, stems, strict=True)
    ]


def join_files(frames: Sequence[pd.DataFrame], files: Sequence[str], answer: str) -> pd.DataFrame:
    """The rows of several files below each other; ids get the file's label in front.

    Args:
        frames: each with a column id.
        files: their names.
        answer: the column of the truth, left out where not every file has it.
    """
    if len(files) > 1:
        frames = [
            frame.assign(id=f"{label}/" + frame["id"])
            for frame, label in zip(frames, labels_of(files), strict=True)
        ]
    whole = pd.concat(frames, ignore_index=True)
    if answer in whole and whole[answer].isna().any():
        whole = whole.drop(columns=answer)
    return whole


def draw_rows(frame: pd.DataFrame, settings: TrainingSettings) -> pd.DataFrame:
    """As many rows as ``max_rows`` says, drawn with the seed; all of them if it does not."""
    if settings.max_rows and settings.max_rows < len(frame):
        frame = frame.sample(settings.max_rows, random_state=settings.seed)
    return frame.reset_index(drop=True)
