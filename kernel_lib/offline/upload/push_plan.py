"""What a push sends, in which order, after a check of all of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from kernel_lib.config import nearest
from kernel_lib.errors import DataError
from kernel_lib.offline.upload.account import refuse_secrets
from kernel_lib.offline.upload.metadata import built_folders, check_dataset
from kernel_lib.runtime.files import read_json


@dataclass(frozen=True)
class Parcel:
    """A folder of the build that becomes a dataset or a notebook on Kaggle."""

    folder: Path
    metadata: dict[str, Any]

    @property
    def ref(self) -> str:
        """Its name on Kaggle, ``owner/slug``."""
        return str(self.metadata["id"])


@dataclass(frozen=True)
class Plan:
    """What is sent, in this order.

    Attributes:
        datasets: the library, the wheels, the backbones, the weights.
        kernels: the notebooks, each after those whose output it reads.
        later: the notebooks among them whose turn comes when a run that this push starts has ended.
        elsewhere: datasets of the owner's that the notebooks read and this push does not send, each
            with where it stands here; None: it is not built here.
    """

    datasets: list[Parcel]
    kernels: list[Parcel]
    later: list[Parcel]
    elsewhere: dict[str, Path | None]


def make_plan(build: Path, only: Sequence[str] = (), *, notebooks: Sequence[str] = ()) -> Plan:
    """Checks the wanted folders of the build and puts them in order.

    Args:
        build: what ``make dataset`` wrote, with ``datasets/`` and ``kernels/``.
        only: names of folders or slugs; empty: all.
        notebooks: of the notebooks only these; empty: all.

    Raises:
        DataError: nothing is there, an unknown name, metadata that Kaggle would refuse, a key or
            token in a file, or notebooks that read each other in a circle.
    """
    checks = built_folders(build)
    known = {_plain(folder.name): folder for folder in checks}
    if not known:
        raise DataError(f"nothing to push in {build}. Run: make dataset")
    for name in (*only, *notebooks):
        if _plain(name) not in known:
            raise DataError(
                f"nothing in {build} is called {name!r}: {nearest(_plain(name), list(known))}"
            )
    wanted = sorted({known[_plain(name)] for name in only} or checks)
    if notebooks:
        chosen = {known[_plain(name)] for name in notebooks}
        wanted = [folder for folder in wanted if _is_dataset(folder, checks) or folder in chosen]
    if problems := [problem for folder in wanted for problem in checks[folder](folder)]:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise DataError(f"nothing was sent; to correct first:\n{listed}")
    for folder in wanted:
        refuse_secrets(folder)
    datasets = [folder for folder in wanted if _is_dataset(folder, checks)]
    kernels = _in_order(
        [
            Parcel(folder, read_json(folder / "kernel-metadata.json"))
            for folder in wanted
            if folder not in datasets
        ]
    )
    running = {kernel.ref for kernel in kernels}
    return Plan(
        datasets=[
            Parcel(folder, read_json(folder / "dataset-metadata.json"))
            for folder in sorted(datasets, key=_rank)
        ],
        kernels=kernels,
        later=[kernel for kernel in kernels if sources_of(kernel) & running],
        elsewhere=_elsewhere(kernels, datasets, build),
    )


def _is_dataset(folder: Path, checks: Mapping[Path, Any]) -> bool:
    return checks[folder] is check_dataset


def _elsewhere(
    kernels: Sequence[Parcel], datasets: Sequence[Path], build: Path
) -> dict[str, Path | None]:
    sent = {folder.name for folder in datasets}
    found: dict[str, Path | None] = {}
    for kernel in kernels:
        owner = kernel.ref.split("/")[0]
        for ref in datasets_of(kernel):
            slug = ref.split("/")[1]
            if ref.startswith(f"{owner}/") and slug not in sent:
                folder = build / "datasets" / slug
                found[ref] = folder if folder.is_dir() else None
    return found


def _plain(name: str) -> str:
    return name.rpartition("/")[2].replace("_", "-")


def _rank(folder: Path) -> int:
    """The library first, the heavy weights last."""
    kinds = ("kernel_lib/__init__.py", "*.whl", "config.json")
    return next((rank for rank, kind in enumerate(kinds) if any(folder.glob(kind))), len(kinds))


def datasets_of(kernel: Parcel) -> list[str]:
    """The datasets that it reads, without their versions."""
    return ["/".join(s.split("/")[:2]) for s in kernel.metadata.get("dataset_sources", [])]


def sources_of(kernel: Parcel) -> set[str]:
    """The other notebooks whose output it reads, without their versions.

    One that goes on from its own last version names itself: it waits for nothing.
    """
    named = {"/".join(s.split("/")[:2]) for s in kernel.metadata.get("kernel_sources", [])}
    return named - {kernel.ref}


def _in_order(kernels: list[Parcel]) -> list[Parcel]:
    by_ref = {kernel.ref: kernel for kernel in kernels}
    graph = {ref: sorted(sources_of(kernel) & by_ref.keys()) for ref, kernel in by_ref.items()}
    try:
        return [by_ref[ref] for ref in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        circle = " reads ".join(reversed(error.args[1]))
        raise DataError(f"notebooks read each other's output: {circle}.") from None
