"""A folder for upload, whole or not at all, with nothing in it that does not belong there."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.offline.upload.account import refuse_secrets


@contextlib.contextmanager
def staged(folder: Path, *, kinds: Collection[str]) -> Iterator[Path]:
    """Gives an empty folder beside ``folder``; on success it takes ``folder``'s place.

    After an error inside, or a kill, ``folder`` is what it was, or in a kill's worst moment absent.

    Args:
        folder: what is to be built.
        kinds: the suffixes that its files may have; a whole name for files without one.

    Raises:
        DataError: a file of another kind, hidden, or with one of the user's keys in it.
        ArtifactError: the disk is full or not writable.
    """
    for leftover in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)  # of a build that was killed
    unique = uuid.uuid4().hex[:8]
    new = folder.with_name(f".{folder.name}.{unique}.new.tmp")
    old = folder.with_name(f".{folder.name}.{unique}.old.tmp")
    try:
        new.mkdir(parents=True)
        yield new
        _refuse_other_kinds(new, kinds, folder.name)
        refuse_secrets(new)
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    except OSError as error:
        raise ArtifactError(
            f"could not build {folder}: {error.strerror or error} ({error.filename}). "
            "What stood there before is untouched; mend that and run again."
        ) from error
    finally:
        for temporary in (new, old):
            shutil.rmtree(temporary, ignore_errors=True)


def place(source: Path, target: Path) -> None:
    """Puts a file there: as a hard link where the disk can, else as a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)  # the file itself, where a cache keeps links to it
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


def write_metadata(path: Path, values: dict[str, Any]) -> None:
    """Writes metadata as ASCII: the kaggle client reads it in the machine's own encoding."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="ascii")


def _refuse_other_kinds(folder: Path, kinds: Collection[str], title: str) -> None:
    """Raises DataError when something in a folder is not a plain, visible file of some kinds."""
    for path in sorted(folder.rglob("*")):
        hidden = path.name.startswith((".", "__pycache__"))
        if path.is_symlink() or hidden:
            fits = False
        else:
            fits = path.is_dir() or (path.suffix or path.name) in kinds
        if not fits:
            raise DataError(
                f"{path.relative_to(folder)} has no place in {title}, which takes only visible "
                f"files of the kinds {', '.join(sorted(kinds))}. Remove it where it was found."
            )
