"""Executes a notebook file as Kaggle does: a fresh process, top to bottom, in a folder of its own.

    python -m kernel_lib.offline.execute fb3_train build/fb3

The settings that differ from the notebook's come from KERNEL_LIB_SETTINGS.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kernel_lib.errors import DataError, KernelLibError
from kernel_lib.offline.upload.templates import NOTEBOOKS
from kernel_lib.runtime.command import exit_status

# tqdm asks for widgets that only a browser could show.
QUIET = "ignore:IProgress not found"


class NotebookError(KernelLibError):
    """A cell of an executed notebook raised."""


Show = Callable[[str, str], None]
"""Takes what a notebook prints, as it comes: the stream's name and the text."""


def print_stream(stream: str, text: str) -> None:
    """Prints what a notebook prints, progress bars included."""
    print(text, end="", file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)


class _ShowingClient(NotebookClient):
    """Hands on what the notebook prints while it runs."""

    def __init__(self, notebook: nbformat.NotebookNode, show: Show | None, **options: Any) -> None:
        super().__init__(notebook, **options)
        self._show = show

    def output(self, outs: Any, msg: Any, display_id: Any, cell_index: int) -> Any:
        if self._show and msg["msg_type"] == "stream":
            self._show(msg["content"]["name"], msg["content"]["text"])
        return super().output(outs, msg, display_id, cell_index)


def execute_notebook(
    notebook: Path,
    *,
    work_folder: Path,
    executed: Path,
    environment: Mapping[str, str],
    show: Show | None = print_stream,
    cell_timeout_seconds: float | None = None,
) -> nbformat.NotebookNode:
    """Runs a notebook in a kernel of this Python and keeps what it printed.

    Args:
        notebook: the ``.ipynb`` to run; not changed.
        work_folder: the kernel's working directory.
        executed: where the notebook goes with its outputs, also when a cell fails.
        environment: variables added to this process's environment for the kernel.
        show: gets what is printed as it comes; None: nobody does.
        cell_timeout_seconds: longest time for a cell; None: no limit.

    Returns:
        The executed notebook.

    Raises:
        NotebookError: a cell raised; the message is the cell's own error.
    """
    content = nbformat.read(notebook, as_version=4)
    client = _ShowingClient(
        content,
        show,
        timeout=cell_timeout_seconds,
        resources={"metadata": {"path": str(work_folder)}},
    )
    manager: Any = client.create_kernel_manager()
    # The kernel is this very Python, not whatever kernelspec of that name is installed.
    manager.kernel_spec.argv[0] = sys.executable
    manager.kernel_spec.argv.append("--log-level=40")  # errors of the kernel only
    work_folder.mkdir(parents=True, exist_ok=True)
    try:
        client.execute(env={**os.environ, "PYTHONWARNINGS": QUIET, **environment})
    except CellExecutionError as error:
        lines = error.traceback.strip().splitlines() or [str(error)]
        raise NotebookError(
            f"{notebook.name}: {error.ename}: {error.evalue}\n" + "\n".join(lines[-12:])
        ) from None
    finally:
        executed.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(content, executed)
    return content


def run_named(name: str, work_folder: Path) -> None:
    """Executes one of the kit's notebooks in a folder and leaves its executed copy there.

    Raises:
        DataError: there is no notebook of that name.
        NotebookError: a cell raised.
    """
    notebook = NOTEBOOKS / f"{name}.ipynb"
    if not notebook.is_file():
        known = ", ".join(sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")))
        raise DataError(f"there is no notebook {name!r}; there are {known}.")
    execute_notebook(
        notebook,
        work_folder=work_folder,
        executed=work_folder / f"{name}.executed.ipynb",
        environment={},
    )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Execute one of the kit's notebooks.")
    parser.add_argument("name", help="the notebook's name, such as fb3_train")
    parser.add_argument("work_folder", type=Path, help="where it runs and writes")
    options = parser.parse_args()
    return exit_status(lambda: run_named(options.name, options.work_folder.resolve()))


if __name__ == "__main__":
    sys.exit(main())
