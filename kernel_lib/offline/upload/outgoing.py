"""What a folder of the build sends to Kaggle, and a list of its contents that goes along.

The list tells the next push whether Kaggle has the same files already: weights are gigabytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kernel_lib.runtime.files import sha256, write_text

# In the form of the sha256sum command: `sha256sum -c CONTENTS.sha256` checks an attached dataset.
CONTENTS = "CONTENTS.sha256"
NOT_SENT = ("dataset-metadata.json", "kernel-metadata.json")


@dataclass(frozen=True)
class Entry:
    """What stands at the top of a folder: a file, or a sub-folder, which travels as a zip file.

    Attributes:
        name: on the way.
        files: how many there are.
        size_bytes: of all of them, before any packing.
    """

    name: str
    files: int
    size_bytes: int

    def __str__(self) -> str:
        size = f"{self.size_bytes / 1e6:10.3f} MB  {self.name}"
        folder = self.name.removesuffix(".zip")
        return size if folder == self.name else f"{size}  ({folder}/, {self.files} files)"


def dataset_entries(folder: Path) -> list[Entry]:
    """What the kaggle command sends of a dataset's folder, in order of names."""
    entries = []
    for path in sorted(folder.iterdir()):
        if path.name in NOT_SENT:
            continue
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        name = path.name if path.is_file() else f"{path.name}.zip"
        entries.append(Entry(name, len(files), sum(file.stat().st_size for file in files)))
    return entries


def write_contents(folder: Path) -> bytes:
    """Lists a dataset's files with their hashes in ``CONTENTS.sha256``; returns the list."""
    files = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in (*NOT_SENT, CONTENTS)
    )
    text = "".join(f"{sha256(folder / name)}  {name}\n" for name in files)
    write_text(folder / CONTENTS, text)
    return text.encode()


def listed_files(contents: bytes) -> set[str]:
    """The paths that a list of contents names, and its own."""
    return {line.split("  ", 1)[1] for line in contents.decode().splitlines()} | {CONTENTS}
