"""One run of one notebook as on Kaggle, and what it left behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernel_lib.config import OVERRIDES_VARIABLE
from kernel_lib.errors import DataError
from kernel_lib.offline.rehearsal import batch_run
from kernel_lib.offline.rehearsal.leftovers import open_up, read_lines, remove
from kernel_lib.offline.rehearsal.sandbox import GUARD, HOME, Mount, Outcome, run
from kernel_lib.offline.rehearsal.stage import Source, copy_inputs, refuse_same_place
from kernel_lib.runtime.files import write_json
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE

LIBRARY = Path(__file__).parents[2]
GUARD_FOLDER = Path(__file__).with_name("guard")
PASSED_ON = (
    *("PATH", "TZ", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
# Kaggle puts such values into every run; a notebook must not let them out.
TOKENS = ("KAGGLE_USER_SECRETS_TOKEN", "KAGGLE_DATA_PROXY_TOKEN")
LOG, ATTEMPTS = "log.json", "attempts.jsonl"
SITE = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class KaggleRun:
    """What a run left.

    Attributes:
        outcome: exit status and time.
        working: its ``/kaggle/working``.
        executed: the notebook with its outputs; not there after a kill.
        log: all it printed, in order.
        error: what ended it, in its own words; empty: nothing did, or a kill.
        attempts: what the guard noted: ``kind`` (network, write, hidden) and ``what``.
        unroutable: packets that the kernel could send nowhere.
        tokens: values that were in its environment and must be in none of its outputs.
    """

    outcome: Outcome
    working: Path
    executed: Path
    log: str = ""
    error: str = ""
    attempts: list[dict[str, str]] = field(default_factory=list)
    unroutable: int = 0
    tokens: tuple[str, ...] = ()


def run_notebook(
    notebook: Path,
    sources: Sequence[Source],
    folder: Path,
    *,
    layout: str,
    isolation: str,
    hidden_modules: Mapping[str, str],
    limit_seconds: float,
    settings: str = "",
    rerun: bool = False,
) -> KaggleRun:
    """Executes a notebook on a tree under ``/kaggle``.

    Args:
        notebook: the ``.ipynb``.
        sources: its inputs.
        folder: new; gets ``working/``, ``log.json`` in Kaggle's shape and ``executed.ipynb``.
        layout: how the inputs are mounted.
        isolation: from ``sandbox.best_isolation``.
        hidden_modules: module to distribution: what Kaggle's image lacks.
        limit_seconds: wall clock of the whole notebook.
        settings: JSON that changes the notebook's settings; empty: as it stands.
        rerun: whether to set what Kaggle sets in the scoring run.

    Raises:
        DataError: two inputs would be mounted at one place, or the guard did not start.
    """
    refuse_same_place(sources, layout)
    folder.mkdir(parents=True)
    guarded = isolation == GUARD
    with _box(folder, guarded=guarded) as box:
        inside = _places_in_a_box(box, notebook) if guarded else PLACES
        tokens = tuple(secrets.token_hex(16) for _ in TOKENS)
        environment = {**_environment(inside), **dict(zip(TOKENS, tokens, strict=True))}
        if rerun:
            environment["KAGGLE_IS_COMPETITION_RERUN"] = "1"
        if settings:
            environment[OVERRIDES_VARIABLE] = settings
        if guarded:
            environment[KAGGLE_ROOT_VARIABLE] = str(inside["kaggle"])
            copy_inputs(sources, inside["kaggle"] / "input", layout)
        written = [inside["kaggle"] / "working", inside["kaggle"] / "temp", inside["home"]]
        config = {
            "log": str(inside["out"] / ATTEMPTS),
            "refuse": guarded,
            "may_write": [str(path) for path in (*written, inside["tmp"], "/var/tmp")],
            "hidden": dict(hidden_modules),
            "site_folders": [path for path in sys.path if Path(path).name in SITE],
        }
        write_json(box / "guard.json", config)
        outcome = run(
            [
                *(sys.executable, "-m", batch_run.__name__),
                *(str(inside["notebook"]), str(inside["out"])),
            ],
            isolation=isolation,
            mounts=[] if guarded else list(_mounts(box, notebook, sources, layout)),
            work_folder=str(inside["kaggle"] / "working"),
            environment=environment,
            limit_seconds=limit_seconds,
            scratch=box / "scratch",
        )
        return _collect(box, folder, outcome, tokens, guarded=guarded)


@contextlib.contextmanager
def _box(folder: Path, *, guarded: bool) -> Iterator[Path]:
    """A folder for all that a run needs; removed at the end.

    Without mounts it is not below ``folder``: a notebook must not meet the repository when it
    looks at the folders around it.
    """
    box = Path(tempfile.mkdtemp(prefix="kaggle-", dir=None if guarded else folder))
    try:
        for name in ("kaggle/working", "kaggle/temp", "out", "scratch", "home", "tmp"):
            (box / name).mkdir(parents=True)
        yield box.resolve()
    finally:
        remove(box)


# Where things are for the notebook.
PLACES = {
    "kaggle": Path("/kaggle"),
    "home": Path(HOME),
    "tmp": Path("/tmp"),
    "out": Path("/run/rehearsal/out"),
    "library": Path("/run/rehearsal/library"),
    "guard": Path("/run/rehearsal/guard"),
    "notebook": Path("/run/rehearsal/notebook.ipynb"),
    "config": Path("/run/rehearsal/guard.json"),
}


def _places_in_a_box(box: Path, notebook: Path) -> dict[str, Path]:
    return {
        **{name: box / name for name in ("kaggle", "home", "tmp", "out")},
        "library": LIBRARY.parent,
        "guard": GUARD_FOLDER,
        "notebook": notebook.resolve(),
        "config": box / "guard.json",
    }


def _environment(inside: Mapping[str, Path]) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "HOME": str(inside["home"]),
        "TMPDIR": str(inside["tmp"]),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "PYTHONUSERBASE": str(inside["home"] / ".local"),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "KAGGLE_URL_BASE": "http://127.0.0.1:0",
        "KAGGLE_DATA_PROXY_URL": "http://127.0.0.1:0",
        "PYTHONPATH": str(inside["library"]),
        "KERNEL_LIB_GUARD": str(inside["config"]),
        "KERNEL_LIB_GUARD_FOLDER": str(inside["guard"]),
    }


def _mounts(box: Path, notebook: Path, sources: Sequence[Source], layout: str) -> Iterator[Mount]:
    for source in sources:
        place = f"/kaggle/input/{source.place(layout)}"
        for name, path in source.parts():
            yield Mount(f"{place}/{name}" if name else place, path)
    for name in ("kaggle/working", "kaggle/temp", "tmp"):
        yield Mount(f"/{name}", box / name, writable=True)
    yield Mount(HOME, box / "home", writable=True)
    yield Mount(str(PLACES["out"]), box / "out", writable=True)
    yield Mount(f"{PLACES['library']}/{LIBRARY.name}", LIBRARY)
    yield Mount(str(PLACES["guard"]), GUARD_FOLDER)
    yield Mount(str(PLACES["notebook"]), notebook)
    yield Mount(str(PLACES["config"]), box / "guard.json")


def _collect(
    box: Path, folder: Path, outcome: Outcome, tokens: tuple[str, ...], *, guarded: bool
) -> KaggleRun:
    """Moves what stays into the run's folder."""
    out, working = box / "out", box / "kaggle/working"
    if outcome.status == 0 and not (out / ATTEMPTS).is_file():
        raise DataError(
            "the guard did not start in the notebook's Python, so that nothing would be noted: is "
            "another sitecustomize.py in its way?"
        )
    lines = read_lines(out / batch_run.LOG)
    write_json(folder / LOG, lines)
    if (out / batch_run.EXECUTED).is_file():
        shutil.move(out / batch_run.EXECUTED, folder / batch_run.EXECUTED)
    working.mkdir(exist_ok=True)  # a notebook may have removed its own folder
    open_up(working)
    shutil.move(working, folder / "working")
    result = next(iter(read_lines(out / batch_run.RESULT)), {})
    return KaggleRun(
        outcome=outcome,
        working=folder / "working",
        executed=folder / batch_run.EXECUTED,
        log="".join(line["data"] for line in lines),
        error=result.get("error", ""),
        attempts=read_lines(out / ATTEMPTS),
        # Without namespaces the count is the whole machine's.
        unroutable=0 if guarded else result.get("unroutable", 0),
        tokens=tokens,
    )
