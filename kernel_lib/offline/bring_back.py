"""The way back: a notebook edited on Kaggle, brought into its ``.py`` after a look at the diff.

    python -m kernel_lib.offline.bring_back fb3_train edited.ipynb           # shows the diff
    python -m kernel_lib.offline.bring_back fb3_train edited.ipynb --write   # and keeps it

Only cells come back. Kernelspec and accelerator stay as the repository has them, so that an
editor's own metadata never reaches what is pushed.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from pathlib import Path

import jupytext
import nbformat

from kernel_lib.errors import DataError
from kernel_lib.offline.upload.templates import NOTEBOOKS
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.files import write_text


def edited_source(edited: Path, source: Path) -> str:
    """The ``.py`` text that the edited notebook's cells make under the source's header.

    Args:
        edited: the ``.ipynb`` as downloaded.
        source: the ``.py`` it was once made from.

    Raises:
        DataError: one of them is missing, or ``edited`` is not a notebook.
    """
    for path in (edited, source):
        if not path.is_file():
            raise DataError(f"{path} does not exist.")
    try:
        notebook = nbformat.read(edited, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise DataError(f"{edited} is not a notebook: {error}") from None
    ours = jupytext.read(source)
    for cell in notebook.cells:
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
    while notebook.cells and not notebook.cells[-1].source.strip():
        notebook.cells.pop()  # Kaggle's editor leaves an empty cell at the end
    ours.cells = notebook.cells
    return str(jupytext.writes(ours, fmt="py:percent"))


def bring_back(name: str, edited: Path, *, write: bool) -> None:
    """Shows what an edited notebook would change in its ``.py``, and with ``write`` changes it.

    Raises:
        DataError: as for :func:`edited_source`.
    """
    source = NOTEBOOKS / f"{name}.py"
    text = edited_source(edited, source)
    old = source.read_text(encoding="utf-8")
    diff = difflib.unified_diff(
        old.splitlines(keepends=True),
        text.splitlines(keepends=True),
        fromfile=str(source),
        tofile=str(edited),
    )
    sys.stdout.writelines(diff)
    if old == text:
        print(f"{source} already says what {edited} says")
    elif write:
        write_text(source, text)
        print(f"wrote {source}; now run: make notebooks")
    else:
        print("nothing written; add WRITE=1 (or --write) to keep this")


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Bring an edited notebook back into its .py file.")
    parser.add_argument("name", help="the notebook's name, such as fb3_train")
    parser.add_argument("edited", type=Path, help="the edited .ipynb")
    parser.add_argument("--write", action="store_true", help="keep the change")
    options = parser.parse_args()
    return exit_status(lambda: bring_back(options.name, options.edited, write=options.write))


if __name__ == "__main__":
    sys.exit(main())
