"""The metadata checker: everything that goes to Kaggle, before anything goes.

    python -m kernel_lib.offline.upload.metadata [--owner NAME]

It reads the templates, the notebooks, and what stands in ``build/``; nothing is sent or changed.
Every problem is one line: file, key, value, rule.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from kernel_lib.errors import DataError
from kernel_lib.offline.upload import dataset_rules, kernel_rules, templates
from kernel_lib.offline.upload.account import OWNER_UNKNOWN, check_owner, find_owner
from kernel_lib.offline.upload.problems import Problem, read_values
from kernel_lib.offline.upload.template_rules import check_templates
from kernel_lib.offline.upload.templates import DATASET, KERNEL, template_names, template_path
from kernel_lib.runtime.command import exit_status


def needs_dir_mode(folder: Path) -> bool:
    """Whether a dataset has sub-folders: without ``--dir-mode zip`` the client leaves them out."""
    return any(path.is_dir() for path in folder.iterdir())


def check_dataset(folder: Path) -> list[Problem]:
    """What Kaggle would refuse, drop or change in a dataset folder."""
    found = read_values(folder / dataset_rules.METADATA)
    if found.readable:
        dataset_rules.inspect_dataset(found, folder)
    return found.problems


def check_kernel(folder: Path) -> list[Problem]:
    """What Kaggle would refuse, drop or change in a notebook's folder, the notebook included."""
    found = read_values(folder / kernel_rules.METADATA)
    if not found.readable:
        return found.problems
    kernel_rules.inspect_kernel(found, folder)
    code_file = found.values.get("code_file")
    for path in sorted(folder.iterdir()):
        if path.name not in (kernel_rules.METADATA, code_file):
            found.report("", f"{path.name}: a push takes the code_file and nothing else; remove it")
    if isinstance(code_file, str) and (folder / code_file).suffix == ".ipynb":
        notebook = folder / code_file
        if notebook.is_file():
            found.problems += kernel_rules.inspect_notebook(notebook, found.values).problems
    return found.problems


def check_notebook(path: Path) -> list[Problem]:
    """What in a notebook contradicts its template, is on the internet, or should not be committed.

    Args:
        path: the ``.ipynb``; its template is the one of the same name, if there is one.
    """
    template = template_path(path.stem + KERNEL)
    kernel = read_values(template).values if template.is_file() else None
    return kernel_rules.inspect_notebook(path, kernel).problems


def built_folders(build: Path) -> dict[Path, Callable[[Path], list[Problem]]]:
    """The folders ready for upload, and what checks them; half-built ones left out."""
    return {
        folder: check
        for kind, check in (("datasets", check_dataset), ("kernels", check_kernel))
        for folder in sorted((build / kind).glob("[!.]*"))
        if folder.is_dir()
    }


def check_owners(folders: Iterable[Path], owner: str | None) -> list[Problem]:
    """Which folders still carry the stand-in's name although the user's is known.

    Args:
        folders: what was built.
        owner: the user's Kaggle name; None: the others of the folders may tell it.
    """
    names = (dataset_rules.METADATA, kernel_rules.METADATA)
    files = [folder / name for folder in folders for name in names if (folder / name).is_file()]
    inspected = [read_values(path) for path in files]
    ids = [str(found.values.get("id")) for found in inspected]
    owners = {own_id.partition("/")[0] for own_id in ids} - {OWNER_UNKNOWN, "None"}
    if not owner and not owners:
        return []
    wanted = owner or min(owners)
    return [
        Problem(found.file, "id", own_id, f"has no Kaggle name yet: build it for {wanted!r}")
        for found, own_id in zip(inspected, ids, strict=True)
        if own_id.startswith(f"{OWNER_UNKNOWN}/")
    ]


def check_all(owner: str | None) -> None:
    """Checks everything and prints each problem, or one line when there is none.

    Args:
        owner: the Kaggle name to fill in; None: the account's on this machine.

    Raises:
        DataError: there are problems.
        SettingsError: no user could be called that.
    """
    owner = owner or find_owner()
    notebooks = sorted(templates.NOTEBOOKS.glob("*.ipynb"))
    folders = built_folders(templates.BUILD)
    problems = check_templates(check_owner(owner or OWNER_UNKNOWN))
    for path in notebooks:
        problems += check_notebook(path)
    for folder, check in folders.items():
        problems += check(folder)
    problems += check_owners(folders, owner)
    count = len(template_names(DATASET) + template_names(KERNEL)) + len(notebooks) + len(folders)
    report(problems, count)


def report(problems: list[Problem], count: int) -> None:
    """Prints the problems, or one line. Raises DataError when there are any."""
    for problem in problems:
        print(problem)
    what = "file or folder" if count == 1 else "files and folders"
    if problems:
        few = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise DataError(f"{few} in {count} {what}, named above.")
    print(f"{count} {what} checked, no problem")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Check what would go to Kaggle.")
    parser.add_argument("--owner", help="your Kaggle name; default: the account on this machine")
    options = parser.parse_args()
    return exit_status(lambda: check_all(options.owner))


if __name__ == "__main__":
    sys.exit(main())
