"""Writing that leaves either the whole new file or the old one, and hashing what was written."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from kernel_lib.errors import ArtifactError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; on success it takes ``path``'s place at once.

    A crash, a kill or a full disk inside the block leaves ``path`` as it was and no half file.

    Raises:
        ArtifactError: the disk is full or not writable; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ArtifactError(
            f"could not write {path}: {error.strerror or error}. "
            "What stood there before is untouched; free some space and run again."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically, line ends as they are in ``text``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Reads JSON. Raises ArtifactError when the file is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{path} is missing: not a folder this kit wrote, or incomplete."
        ) from None
    except (ValueError, RecursionError) as error:  # also a number too long, brackets too deep
        raise ArtifactError(f"{path} is not JSON ({error}): damaged? Copy it again.") from None


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def csv_engine(path: Path) -> Literal["c", "python"]:
    """The parser for pandas to read a CSV file with: where it holds a NUL character the slow one,
    since the quick one of pandas 2.2 cuts the text there, without a word."""
    with open(path, "rb") as file:
        holds_nul = any(b"\0" in part for part in iter(lambda: file.read(1 << 20), b""))
    if holds_nul:
        csv.field_size_limit(max(csv.field_size_limit(), path.stat().st_size))
    return "python" if holds_nul else "c"
