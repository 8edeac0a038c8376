"""Inside the sandbox: executes a notebook as Kaggle's batch run does.

    python -m kernel_lib.offline.rehearsal.batch_run NOTEBOOK FOLDER

In FOLDER: ``log.jsonl`` grows line by line, so that a killed run leaves what it had printed;
``executed.ipynb`` and ``result.json`` come at the end.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient.exceptions import DeadKernelError

from kernel_lib.offline.execute import NotebookError, execute_notebook, print_stream
from kernel_lib.offline.rehearsal.leftovers import kill_children

EXECUTED, LOG, RESULT = "executed.ipynb", "log.jsonl", "result.json"
PR_SET_CHILD_SUBREAPER = 36
SNMP = ("/proc/self/net/snmp", "/proc/self/net/snmp6")


def run_as_batch(notebook: Path, folder: Path) -> int:
    """Executes the notebook in the current folder; returns the exit status."""
    started = time.monotonic()
    _adopt_orphans()
    # The runner finds this package by PYTHONPATH; the notebook must not.
    environment = {"PYTHONPATH": os.environ.get("KERNEL_LIB_GUARD_FOLDER", "")}
    with open(folder / LOG, "a", encoding="utf-8", buffering=1) as log:

        def show(stream: str, text: str) -> None:
            text = text.encode("utf-8", "replace").decode("utf-8")  # half characters, if any
            seconds = round(time.monotonic() - started, 3)
            log.write(json.dumps({"stream_name": stream, "time": seconds, "data": text}) + "\n")
            print_stream(stream, text)

        error, last_words = "", ""
        try:
            execute_notebook(
                notebook,
                work_folder=Path.cwd(),
                executed=folder / EXECUTED,
                environment=environment,
                show=show,
            )
            error = last_words = _error_that_was_allowed(folder / EXECUTED)
        except NotebookError as problem:
            error, last_words = next(_errors(folder / EXECUTED), str(problem)), str(problem)
        except DeadKernelError:
            error = last_words = (
                f"{notebook.name}: the notebook's Python died: killed, perhaps for want of memory, "
                "or a crash in native code"
            )
        except Exception as problem:  # whatever it is, the notebook did not run to its end
            error = last_words = f"{notebook.name}: {type(problem).__name__}: {problem}"
        finally:
            kill_children(os.getpid())
            result = {"error": error, "unroutable": sum(_unroutable_packets())}
            (folder / RESULT).write_text(json.dumps(result), encoding="utf-8")
        if error:
            show("stderr", f"{last_words}\n")
    return 1 if error else 0


def _errors(executed: Path) -> Iterator[str]:
    """What the cells raised, with their numbers."""
    for number, cell in enumerate(nbformat.read(executed, as_version=4).cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                yield f"cell {number}: {output.ename}: {output.evalue}"


def _error_that_was_allowed(executed: Path) -> str:
    """The error of a cell tagged ``raises-exception``: Kaggle's papermill ends with it all the
    same, unless it is an exit with status 0."""
    for error in _errors(executed):
        if not error.endswith((": SystemExit: ", ": SystemExit: 0")):
            return f"{error} (the tag raises-exception is no help on Kaggle: catch it in the cell)"
    return ""


def _adopt_orphans() -> None:
    """What the notebook leaves running becomes this process's child, so that it can be ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _unroutable_packets() -> Iterator[int]:
    """Packets that found no way out: the kernel counts them whatever program sent them."""
    for path in SNMP:
        try:
            lines = [line.split() for line in Path(path).read_text(encoding="ascii").splitlines()]
        except OSError:  # no IPv6, or no Linux
            continue
        if path.endswith("6"):
            yield from (int(line[1]) for line in lines if line[:1] == ["Ip6OutNoRoutes"])
        else:
            names, values = (line for line in lines if line[:1] == ["Ip:"])
            yield int(dict(zip(names, values, strict=True))["OutNoRoutes"])


if __name__ == "__main__":
    sys.exit(run_as_batch(Path(sys.argv[1]), Path(sys.argv[2])))
