"""What is uploaded: the datasets and the notebooks' folders, made under ``build/``.

    python -m kernel_lib.offline.upload.package dataset [--backbone FOLDER [--name NAME]]
    python -m kernel_lib.offline.upload.package weights --run FOLDER [--name NAME]
    python -m kernel_lib.offline.upload.package kernels [--name fb3_train]

Each folder is made whole or not at all, from what is listed here and nothing else, and is searched
for the user's own keys. What was made is then checked against Kaggle's rules.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from kernel_lib import __version__
from kernel_lib.errors import DataError, SettingsError
from kernel_lib.offline.pairs import refuse_unlike_pair
from kernel_lib.offline.upload import dataset_rules, kernel_rules, templates
from kernel_lib.offline.upload.metadata import built_folders, check_notebook, report
from kernel_lib.offline.upload.model_datasets import build_backbone as build_backbone
from kernel_lib.offline.upload.model_datasets import build_weights, default_name
from kernel_lib.offline.upload.problems import shown
from kernel_lib.offline.upload.staging import staged, write_metadata
from kernel_lib.offline.upload.templates import choose_owner, dataset_slug, render
from kernel_lib.offline.upload.wheel_dataset import build_wheels
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.files import sha256, write_json
from kernel_lib.runtime.release import RELEASE_RECORD

LIBRARY = Path(__file__).parents[2]
LIBRARY_SLUG, WHEELS_SLUG = "kernel-lib", "kernel-lib-wheels"
LAPTOP_ONLY = ("offline", "bench", "blending", "runs")  # what no notebook on Kaggle reads
GIT_TIMEOUT_SECONDS = 30.0


def build_library(folder: Path, owner: str, *, source: Path = LIBRARY) -> None:
    """Makes the dataset of the library: the package without its laptop's side, and the licence.

    ``kernel_lib/RELEASE.json`` says which version and commit it is, whether files were changed
    since that commit, and the SHA-256 of each. Two builds of one commit are equal byte for byte.

    Args:
        folder: what is built.
        owner: the Kaggle name.
        source: the package's folder.

    Raises:
        DataError: the package holds something that has no place in the dataset.
        ArtifactError: the disk is full.
    """
    with staged(folder, kinds=(".py", ".json", "LICENSE")) as new:
        package = new / source.name
        names = sorted(_shipped(source))
        for name in names:
            (package / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, package / name)
        commit, changed = _commit_of(source, names)
        record = {
            "version": __version__,
            "commit": commit,
            "changed": changed,
            "files": {name: sha256(package / name) for name in names},
        }
        write_json(package / RELEASE_RECORD, record)
        if (source.parent / "LICENSE").is_file():
            shutil.copyfile(source.parent / "LICENSE", new / "LICENSE")
        values = render("kernel-lib.dataset", owner=owner)
        write_metadata(new / dataset_rules.METADATA, values)


def _shipped(source: Path) -> Iterator[str]:
    """The package's files that travel, by their path in it; hidden ones and caches do not."""
    for path in source.rglob("*"):
        name = path.relative_to(source)
        skipped = name.parts[0] in LAPTOP_ONLY or "__pycache__" in name.parts
        hidden = any(part.startswith(".") for part in name.parts)
        if not (skipped or hidden or path.is_dir() or name.as_posix() == RELEASE_RECORD):
            yield name.as_posix()


def _commit_of(source: Path, shipped: list[str]) -> tuple[str | None, bool]:
    """The commit that the package was checked out from, and whether what travels differs from it.

    None outside git, and in a repository of which the package is no part.
    """
    listed = _git(source, "ls-files", "-z")
    commit = _git(source, "rev-parse", "HEAD")
    if not listed or not commit:
        return None, False
    tracked = {n for n in listed.split("\0") if n and n.split("/")[0] not in LAPTOP_ONLY}
    left_out = [f":(exclude){room}" for room in LAPTOP_ONLY]
    different = _git(source, "diff", "--name-only", "HEAD", "--", ".", *left_out)
    return commit, different != "" or tracked != set(shipped)


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None without git, a repository, or an answer in time."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def build_kernel(name: str, folder: Path, owner: str) -> None:
    """Makes the folder that is pushed for a notebook: the notebook and its metadata.

    Args:
        name: the notebook's, such as ``fb3_train``.
        folder: what is built.
        owner: the Kaggle name.

    Raises:
        DataError: there is no such template or notebook, or it has outputs, is not offline, or is
            not what its ``.py`` says.
    """
    values = render(f"{name}{templates.KERNEL}", owner=owner)
    notebook = templates.NOTEBOOKS / f"{name}.ipynb"
    problems = check_notebook(notebook)
    if problems:
        raise DataError("\n  ".join(["a notebook cannot go up like this:", *map(str, problems)]))
    refuse_unlike_pair(notebook)
    with staged(folder, kinds=(".ipynb", ".json")) as new:
        shutil.copyfile(notebook, new / notebook.name)
        write_metadata(new / kernel_rules.METADATA, values)


def package_datasets(owner: str, backbone: Path | None, name: str | None) -> list[Path]:
    """Builds the library, the wheels and, if given, a backbone; a line for each."""
    if name is not None and backbone is None:
        raise SettingsError(f"NAME={name!r} is the backbone's: add BACKBONE=<its folder>.")
    datasets = templates.BUILD / "datasets"
    jobs: dict[Path, Callable[[Path], None]] = {
        datasets / LIBRARY_SLUG: lambda folder: build_library(folder, owner),
        datasets / WHEELS_SLUG: lambda folder: build_wheels(folder, owner),
    }
    if backbone is not None:
        source, title = backbone, name or backbone.resolve().name
        jobs[datasets / dataset_slug(title)] = lambda folder: build_backbone(
            source, folder, owner, title
        )
    for folder, build in jobs.items():
        build(folder)
        _print_folder(folder)
    return list(jobs)


def package_weights(owner: str, run: Path | None, name: str | None) -> list[Path]:
    """Builds the dataset of a run folder."""
    if run is None:
        raise SettingsError("which run? Add RUN=<the run folder that training wrote>.")
    name = name or default_name(run)
    folder = templates.BUILD / "datasets" / dataset_slug(name)
    build_weights(run, folder, owner, name)
    _print_folder(folder)
    return [folder]


def package_kernels(owner: str, name: str | None) -> list[Path]:
    """Builds the folders of all notebooks that have a template, or of one."""
    built = []
    for kernel in [name] if name else templates.kernel_names():
        folder = templates.BUILD / "kernels" / kernel
        build_kernel(kernel, folder, owner)
        _print_folder(folder)
        built.append(folder)
    return built


def _print_folder(folder: Path) -> None:
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    files = "1 file " if len(sizes) == 1 else f"{len(sizes)} files"
    print(f"{sum(sizes) / 1e6:10.3f} MB  {files:>10}  {shown(folder)}")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make what is uploaded to Kaggle.")
    parser.add_argument("what", choices=("dataset", "weights", "kernels"))
    parser.add_argument("--owner", help="your Kaggle name; default: the account on this machine")
    parser.add_argument("--backbone", type=Path, help="a pretrained encoder's folder")
    parser.add_argument("--run", type=Path, help="a run folder, for its weights")
    parser.add_argument("--name", help="of the backbone's or weights' dataset, or the one notebook")
    options = parser.parse_args()

    def work() -> None:
        owner = choose_owner(options.owner)
        if options.what == "dataset":
            built = package_datasets(owner, options.backbone, options.name)
        elif options.what == "weights":
            built = package_weights(owner, options.run, options.name)
        else:
            built = package_kernels(owner, options.name)
        checks = built_folders(templates.BUILD)
        report([problem for folder in built for problem in checks[folder](folder)], len(built))

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
