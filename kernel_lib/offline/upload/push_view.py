"""What a push would send, for a reader before it is sent."""

from __future__ import annotations

import re
from pathlib import Path

from kernel_lib.offline.upload.kaggle_client import (
    command_line,
    create_arguments,
    push_arguments,
    status_arguments,
    version_arguments,
)
from kernel_lib.offline.upload.outgoing import dataset_entries
from kernel_lib.offline.upload.push_plan import Parcel, Plan, datasets_of, sources_of

SUBMISSION = "submission.csv"


def show(plan: Plan, message: str) -> None:
    """Prints what would be sent and every command that would send it."""
    if plan.datasets:
        print("datasets:")
    for dataset in plan.datasets:
        print(f"{dataset.ref}, from {dataset.folder}")
        for entry in dataset_entries(dataset.folder):
            print(f"  {entry}")
        for name, arguments in (
            ("is it there?", status_arguments(dataset.ref)),
            ("if not", create_arguments(dataset.folder)),
            ("if it is, with other files", version_arguments(dataset.folder, message)),
            ("until it is ready", status_arguments(dataset.ref)),
        ):
            print(f"  $ {command_line(arguments)}  # {name}")
    if plan.kernels:
        print("notebooks; each begins to run as it is pushed:")
    for kernel in plan.kernels:
        print(f"{kernel.ref}, from {kernel.folder}")
        code = kernel.folder / kernel.metadata["code_file"]
        print(f"  {code.stat().st_size / 1e6:10.3f} MB  {code.name}")
        if kernel in plan.later:
            print(f"  not now: {turn(kernel, plan)}")
        for ref in datasets_of(kernel):
            if ref in plan.elsewhere:
                print(f"  reads {ref}: {_whereabouts(ref, plan.elsewhere[ref])}")
        print(f"  $ {command_line(push_arguments(kernel.folder))}")
        show_next_steps(kernel, "VERSION", message)


def _whereabouts(ref: str, folder: Path | None) -> str:
    if folder is not None:
        return f"this push does not send {folder}, so it must be on Kaggle already"
    return f"not built here, so it must be on Kaggle already; else {how_to_make(ref)}"


def how_to_make(ref: str) -> str:
    """What to do about a dataset that is nowhere.

    Args:
        ref: its name on Kaggle, ``owner/slug``.
    """
    slug = ref.split("/")[1]
    return (
        f"upload its files as a dataset called {slug} (www.kaggle.com/datasets/new); for an "
        f"encoder: make dataset BACKBONE=<its folder> NAME={slug}"
    )


def turn(kernel: Parcel, plan: Plan) -> str:
    """When a notebook can be pushed that reads what another has yet to write."""
    others = sorted(sources_of(kernel) & {other.ref for other in plan.kernels})
    return (
        f"it reads the output of {', '.join(others)}, which this push starts. When that has "
        f"ended: make push GO=1 ONLY={kernel.folder.name}"
    )


def show_next_steps(kernel: Parcel, version: int | str, message: str) -> None:
    """Prints how to watch a pushed notebook, and how to submit it if it writes a submission."""
    steps = [["kernels", "status", kernel.ref], ["kernels", "logs", kernel.ref, "--follow"]]
    code = (kernel.folder / kernel.metadata["code_file"]).read_text(encoding="utf-8")
    competitions = kernel.metadata.get("competition_sources", [])
    if competitions and re.search(rf"(?<!sample_){SUBMISSION}", code):
        options = ["-k", kernel.ref, "-v", str(version), "-f", SUBMISSION, "-m", message]
        steps.append(["competitions", "submit", competitions[0], *options])
    print("  while it runs, and when its status is COMPLETE:")
    for step in steps:
        print(f"  $ {command_line(step)}")
