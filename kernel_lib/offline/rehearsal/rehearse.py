"""The rehearsal of a push: every notebook in turn, two tests for the one that predicts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pandas as pd

from kernel_lib.offline.rehearsal import image
from kernel_lib.offline.rehearsal.checks import Check, check_run
from kernel_lib.offline.rehearsal.hidden import SAMPLE, TEST, TRAIN, write_hidden, write_public
from kernel_lib.offline.rehearsal.kaggle_run import run_notebook
from kernel_lib.offline.rehearsal.leftovers import remove
from kernel_lib.offline.rehearsal.plan import BOTH, Kernel, Pass, Plan
from kernel_lib.offline.rehearsal.stage import FLAT, NESTED, find_sources
from kernel_lib.offline.rehearsal.submission import check_submission
from kernel_lib.offline.rehearsal.verdict import verdict as verdict
from kernel_lib.offline.upload.metadata import check_kernel

_MOUNT_PATH = re.compile(r"""["']/kaggle/input/\w""")


@dataclass(frozen=True)
class _Test:
    """A test set to run a notebook on; its files stand before those among the data."""

    title: str
    files: dict[str, Path]
    rows: int
    layout: str
    rerun: bool


def rehearse(kernels: Sequence[Kernel], plan: Plan) -> list[Pass]:
    """Runs the notebooks in order, each with the outputs of those before it; stops at a failure.

    Raises:
        DataError: an input that a notebook asks for is not there, or the data make no test.
    """
    remove(plan.folder)
    plan.folder.mkdir(parents=True)
    lacking = image.hidden_modules(image.read_image())
    tests = _make_tests(plan)
    outputs: dict[str, Path] = {}
    passes: list[Pass] = []
    for kernel in kernels:
        if any(one.problems for one in passes):
            passes.append(Pass(f"{kernel.title}: not run", 0.0, 0, []))
            continue
        rules = "; ".join(map(str, check_kernel(kernel.folder)))
        check = Check("Kaggle's rules", rules, "mend its template in datasets_meta/")
        passes.append(Pass(f"{kernel.title}: metadata", 0.0, 0, [check]))
        if rules:
            continue
        for test in tests if kernel.predicts else tests[1:2]:
            one, working = _run(kernel, test, plan, lacking, outputs)
            passes.append(one)
        outputs[kernel.slug] = working
    return passes


def _run(
    kernel: Kernel,
    test: _Test,
    plan: Plan,
    lacking: Mapping[str, str],
    outputs: Mapping[str, Path],
) -> tuple[Pass, Path]:
    """One pass, and the folder of what the notebook wrote."""
    layout = test.layout if plan.layout == BOTH else plan.layout
    words = f"{test.title}, {test.rows} rows, " if kernel.predicts else ""
    title = f"{kernel.slug}: {words}{layout} mounts"
    print(f"\n--- {title}", flush=True)
    sources = find_sources(
        kernel.metadata,
        data=plan.data,
        backbone=plan.backbone,
        datasets=plan.datasets,
        outputs=outputs,
        instead=test.files,
        attached=plan.attached if kernel.predicts else (),
    )
    run = run_notebook(
        kernel.notebook,
        sources,
        plan.folder / (f"{kernel.slug}-{test.title.split()[0]}" if words else kernel.slug),
        layout=layout,
        isolation=plan.isolation,
        hidden_modules=lacking,
        limit_seconds=plan.limit_seconds,
        settings="" if kernel.predicts else plan.settings,
        rerun=test.rerun and kernel.predicts and bool(kernel.metadata.get("competition_sources")),
    )
    checks = check_run(run, limit_seconds=plan.limit_seconds)
    if kernel.predicts and checks[0].passed:
        checks += check_submission(
            run.working, test.files[SAMPLE], plan.data / TRAIN, test=test.files[TEST]
        )
    rows = test.rows if kernel.predicts else 0
    return Pass(title, run.outcome.seconds, rows, checks), run.working


def _make_tests(plan: Plan) -> list[_Test]:
    """The public test, the hidden one and, if it is wanted, the data's own as it is."""
    folders = [plan.folder / name for name in ("data-public", "data-hidden")]
    counts = [write_public(plan.data, folders[0]), write_hidden(plan.data, folders[1])]
    public, hidden = [{name: folder / name for name in (TEST, SAMPLE)} for folder in folders]
    tests = [
        _Test("public test", public, counts[0], FLAT, rerun=False),
        _Test("hidden test", hidden, counts[1], NESTED, rerun=True),
    ]
    if plan.whole_test:
        files = {name: (plan.data / name).resolve() for name in (TEST, SAMPLE)}
        rows = len(pd.read_csv(files[TEST], usecols=[0], dtype=str))
        tests.append(_Test("whole test", files, rows, NESTED, rerun=True))
    return tests


def source_notes(kernel: Kernel) -> list[str]:
    """What can be said of a notebook's text without running it: paths of one mount layout."""
    found = []
    for number, cell in enumerate(nbformat.read(kernel.notebook, as_version=4).cells, start=1):
        if cell.cell_type == "code" and _MOUNT_PATH.search(cell.source):
            found.append(
                f"{kernel.notebook.name}, cell {number} names a path under /kaggle/input: Kaggle "
                "mounts inputs in two layouts; look for files instead"
            )
    return found
