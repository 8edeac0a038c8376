"""Finding things on Kaggle and at home.

Kaggle mounts inputs as ``/kaggle/input/<slug>`` in some sessions and as
``/kaggle/input/<kind>/<owner>/<slug>`` in others, so nothing here relies on a depth: a folder is
known by its name and by the files in it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kernel_lib.errors import DataError

KAGGLE_ROOT_VARIABLE = "KERNEL_LIB_KAGGLE_ROOT"
INPUT_DEPTH = 7  # models/<owner>/<model>/<framework>/<variation>/<version> is six levels deep


def kaggle_root() -> Path:
    """``/kaggle``, or the stand-in that the environment names (tests and rehearsals use one)."""
    return Path(os.environ.get(KAGGLE_ROOT_VARIABLE, "/kaggle"))


def input_root() -> Path:
    """Where Kaggle mounts what is attached to a notebook."""
    return kaggle_root() / "input"


def input_folders() -> Iterator[Path]:
    """Every folder under the inputs, shallow ones first, hidden ones left out."""
    level = [input_root()]
    for _ in range(INPUT_DEPTH):
        level = [
            child
            for folder in level
            if folder.is_dir()
            for child in sorted(folder.iterdir())
            if child.is_dir() and not child.name.startswith((".", "__"))
        ]
        yield from level


def find_folder(files: Sequence[str], *, given: str = "", name: str = "", what: str) -> Path:
    """The folder that holds ``files``.

    Args:
        files: names that must all stand in it; one without a suffix may be a folder's.
        given: a path from the settings; when set, only this is looked at.
        name: a folder name to prefer when several folders hold the files.
        what: what is sought, for the error message.

    Raises:
        DataError: no folder holds the files, or several do and none bears ``name``.
    """
    if given:
        folder = Path(given)
        missing = [file for file in files if not _is_there(folder / file)]
        if missing:
            state = "has no " + ", ".join(missing) if folder.is_dir() else "does not exist"
            raise DataError(
                f"{what}: the folder {folder} {state}. Set data_dir to the folder of "
                f"{', '.join(files)}."
            )
        return folder
    holding = [
        folder for folder in input_folders() if all(_is_there(folder / file) for file in files)
    ]
    named = [folder for folder in holding if folder.name == name]
    if len(named) == 1 or len(holding) == 1:
        return (named or holding)[0]
    if not holding:
        raise DataError(
            f"{what}: no folder under {input_root()} holds {', '.join(files)}. On Kaggle attach "
            "the competition as an input; elsewhere set data_dir."
        )
    listed = ", ".join(str(folder) for folder in named or holding)
    raise DataError(f"{what}: several folders hold {', '.join(files)}: {listed}. Set data_dir.")


def _is_there(path: Path) -> bool:
    return path.is_file() or (not path.suffix and path.is_dir())
