"""What is attached to a notebook, and where Kaggle mounts it, from the metadata to be pushed."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.offline.upload.templates import (
    DATASET,
    dataset_slug,
    placeholders,
    template_path,
)

NESTED, FLAT = "nested", "flat"
DATA_SUFFIX = "-data"
GIVE_DATA = "give DATA=, the folder of its files"
LINKED_BYTES = 64 * 2**20
KINDS = {
    "competition_sources": "competition",
    "dataset_sources": "dataset",
    "kernel_sources": "notebook",
    "model_sources": "model",
}


@dataclass(frozen=True)
class Source:
    """An input of a notebook.

    Attributes:
        kind: competition, dataset, notebook or model.
        name: as the metadata spells it: a slug, ``owner/slug``, or a model's longer path.
        folder: the files that stand in for it here.
        instead: other files that are shown in place of some of them, by name.
    """

    kind: str
    name: str
    folder: Path
    instead: Mapping[str, Path] = field(default_factory=dict)

    def place(self, layout: str) -> str:
        """Its folder under ``/kaggle/input``, in one of the two layouts that Kaggle uses.

        Example: the dataset ``me/kernel-lib`` is ``datasets/me/kernel-lib`` or ``kernel-lib``. A
        model's framework is written small, whatever the metadata has: ``PyTorch`` is ``pytorch``.
        """
        parts = self.name.split("/")
        if self.kind == "model" and len(parts) > 2:
            parts[2] = parts[2].lower()
        if layout == NESTED:
            return "/".join([f"{self.kind}s", *parts])
        return "/".join(parts if self.kind == "competition" else parts[1:])

    def parts(self) -> Iterator[tuple[str, Path]]:
        """What to show, as path below its place and file or folder here, parents first.

        One folder as a rule. A link that leads out of it would lead nowhere on the other side, as
        in the cache of a hub: a folder with links in it is given piece by piece.
        """
        pieces = [
            ("" if name == "." else name, path)
            for name, path in _pieces(self.folder, Path(), (self.folder.resolve(),))
            if name not in self.instead
        ]
        yield from pieces
        yield from self.instead.items()


def _pieces(folder: Path, below: Path, around: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """A folder as a whole if it holds no link, else what is in it."""
    if not _holds_link(folder):
        yield str(below), folder
        return
    for path in sorted(folder.iterdir()):
        real = path.resolve()
        if path.is_dir() and real not in around:  # a link to a folder around it has no end
            yield from _pieces(real, below / path.name, (*around, real))
        elif path.is_file():
            yield str(below / path.name), real


def _holds_link(folder: Path) -> bool:
    return any(
        os.path.islink(os.path.join(parent, name))
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    )


def copy_inputs(sources: Sequence[Source], target: Path, layout: str) -> None:
    """Puts inputs into a folder, read-only: where nothing can be mounted. Large files become links,
    since gigabytes take their time.

    Args:
        sources: the inputs.
        target: stands for ``/kaggle/input``; made.
        layout: where in it they go.
    """
    target.mkdir(parents=True)
    for source in sources:
        for name, path in source.parts():
            place = target / source.place(layout) / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.parent.chmod(0o755)  # copied from a folder that may be read-only
            if path.is_dir():
                shutil.copytree(path, place, copy_function=_copy, ignore=_no_plain_files)
            else:
                place.unlink(missing_ok=True)
                _copy(path, place)
    for parent, _, files in os.walk(target):
        for place in (Path(parent), *(Path(parent, name) for name in files)):
            if not place.is_symlink():
                place.chmod(0o555 if place.is_dir() else 0o444)


def _copy(source: str | Path, target: str | Path) -> None:
    if os.path.getsize(source) > LINKED_BYTES:
        os.symlink(source, target)
    else:
        shutil.copyfile(source, target)


def _no_plain_files(folder: str, names: list[str]) -> list[str]:
    """Sockets and the like, which cannot be copied."""
    return [
        name for name in names if not Path(folder, name).is_dir() | Path(folder, name).is_file()
    ]


def refuse_same_place(sources: Sequence[Source], layout: str) -> None:
    """Raises DataError when two inputs would be mounted as one folder, or one inside another."""
    places = [(source.place(layout), f"{source.kind} {source.name}") for source in sources]
    for (place, first), (other, second) in itertools.permutations(places, 2):
        if f"{other}/".startswith(f"{place}/"):
            raise DataError(
                f"the {first} and the {second} would both be mounted at {place} ({layout} "
                "layout): rename one, or rehearse with LAYOUT=nested alone."
            )


def declared(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and name of every input that a kernel's metadata asks for; versions are left off,
    but for a model's, which is part of its path."""
    found = []
    for key, kind in KINDS.items():
        for name in metadata.get(key, []):
            parts = name.split("/")
            whole = name if kind == "model" else "/".join(parts[:2])
            found.append((kind, whole))
    return found


def find_sources(
    metadata: Mapping[str, Any],
    *,
    data: Path,
    backbone: Path | None,
    datasets: Path,
    outputs: Mapping[str, Path],
    instead: Mapping[str, Path] | None = None,
    attached: Sequence[Path] = (),
) -> list[Source]:
    """A folder here for every input that the metadata asks for.

    Args:
        metadata: of the kernel.
        data: stands in for any competition; without one, for the first dataset whose name ends in
            ``-data``.
        backbone: stands in for a model, and for a dataset that was not built here, but not for
            those that have a template of their own.
        datasets: folder of the built datasets, one a slug.
        outputs: working folders of notebooks that were run before, by slug.
        instead: the test's files, shown in place of those among the data.
        attached: further folders, shown as datasets; with any, a notebook that was not run before
            is left out, since they hold what it would have written.

    Raises:
        DataError: nothing here stands in for one of them.
    """
    found = []
    inputs = declared(metadata)
    data_source = data_among(inputs)
    for kind, name in inputs:
        slug = name.rpartition("/")[2] if kind != "model" else name
        is_data = kind == "competition" or (kind, name) == data_source
        ours = kind == "dataset" and has_template(slug)
        candidates: dict[str, list[Path | None]] = {
            "competition": [data],
            "dataset": [data] if is_data else [datasets / slug, None if ours else backbone],
            "notebook": [outputs.get(slug)],
            "model": [backbone],
        }
        folder = next((path for path in candidates[kind] if path and path.is_dir()), None)
        if folder is None and kind == "notebook" and attached:
            continue
        if folder is None:
            cure = {
                "competition": GIVE_DATA,
                "dataset": GIVE_DATA
                if is_data
                else f"run make dataset, which makes {datasets / slug}"
                + ("" if ours else ", or give BACKBONE="),
                "notebook": "rehearse that notebook too, before this one: NB='<train> <infer>', or "
                "give ATTACH=, folders of finished runs",
                "model": "give BACKBONE=",
            }[kind]
            raise DataError(
                f"{metadata['id']} reads the {kind} {name}, and nothing here stands in for it: "
                f"{cure}."
            )
        changed = instead or {} if is_data else {}
        found.append(Source(kind, name, folder.resolve(), changed))
    owner = str(metadata["id"]).partition("/")[0]
    return [*found, *(_attached(folder, owner) for folder in attached)]


def _attached(folder: Path, owner: str) -> Source:
    """A folder as a dataset of its name; a run folder that is called ``run``, of its parent's."""
    whole = folder.resolve()
    if not whole.is_dir():
        raise DataError(f"ATTACH= names {folder}: there is no such folder.")
    name = whole.parent.name if whole.name == "run" else whole.name
    try:
        return Source("dataset", f"{owner}/{dataset_slug(name)}", whole)
    except SettingsError as error:
        raise DataError(f"ATTACH= names {folder}. Rename it: {error}") from None


def data_among(inputs: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """Which of the declared inputs holds the data: a competition, else the first dataset whose
    name ends in ``-data``; None: none of them does."""
    competitions = [one for one in inputs if one[0] == "competition"]
    datasets = [one for one in inputs if one[0] == "dataset" and one[1].endswith(DATA_SUFFIX)]
    return next(iter(competitions or datasets), None)


def has_template(slug: str) -> bool:
    """Whether a dataset is one that the kit makes itself, under its own name."""
    name = slug + DATASET
    return template_path(name).is_file() and "SLUG" not in placeholders(name)
