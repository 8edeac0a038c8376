"""A notebook's two files: the ``.py`` that is edited and the ``.ipynb`` that is pushed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jupytext
import nbformat

from kernel_lib.errors import DataError

SAME_METADATA = ("kernelspec", "kaggle")


def refuse_unlike_pair(notebook: Path) -> None:
    """Raises DataError, which says where they differ, unless both files say the same.

    Which of the two was edited cannot be seen, so neither is made from the other here.

    Args:
        notebook: the ``.ipynb``; without a ``.py`` beside it there is nothing to compare.
    """
    source = notebook.with_suffix(".py")
    if not source.is_file():
        return
    edited, made = jupytext.read(source), nbformat.read(notebook, as_version=4)
    where = _first_difference(edited, made)
    if where:
        raise DataError(
            f"{source.name} and {notebook.name} differ in {where}; what is pushed is the .ipynb. "
            f"If you edited the .py: make notebooks. If you edited the .ipynb: make back "
            f"NB={notebook.stem} FROM=<the .ipynb> WRITE=1"
        )


def _first_difference(edited: Any, made: Any) -> str:
    """In words; empty when there is none."""
    for key in SAME_METADATA:
        if edited.metadata.get(key) != made.metadata.get(key):
            return f"metadata.{key}"
    for number, (ours, theirs) in enumerate(zip(edited.cells, made.cells, strict=False), start=1):
        if _said(ours) != _said(theirs):
            return f"cell {number}"
    if len(edited.cells) != len(made.cells):
        return f"their number of cells ({len(edited.cells)} and {len(made.cells)})"
    return ""


def _said(cell: Any) -> tuple[str, str, list[str]]:
    return cell.cell_type, cell.source, cell.metadata.get("tags", [])
