"""Command line of the rehearsal: ``python -m kernel_lib.offline.rehearsal fb3_train fb3_infer``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernel_lib.errors import DataError
from kernel_lib.offline.home_tasks import HomeTask, task_of
from kernel_lib.offline.rehearsal import image
from kernel_lib.offline.rehearsal.declare import FEATURES, declare_outputs
from kernel_lib.offline.rehearsal.plan import BOTH, Kernel, Plan
from kernel_lib.offline.rehearsal.rehearse import rehearse, source_notes
from kernel_lib.offline.rehearsal.stage import FLAT, NESTED
from kernel_lib.offline.rehearsal.verdict import verdict
from kernel_lib.offline.upload.package import LIBRARY_SLUG, build_kernel, build_library
from kernel_lib.offline.upload.problems import shown
from kernel_lib.offline.upload.templates import BUILD, choose_owner
from kernel_lib.runtime.command import exit_status

QUICK = '{"debug": true}'
TRAINING = ("_train", FEATURES)  # ends of the names of notebooks that hand in no submission
MADE_UP_TRAIN_ROWS, MADE_UP_TEST_ROWS = 120, 20


def rehearse_named(names: list[str], options: argparse.Namespace) -> None:
    """Builds what would be pushed, rehearses it and prints the verdict.

    Raises:
        DataError: something does not hold; the verdict above says what.
        SettingsError: the notebooks are of several tasks.
    """
    task = task_of(names)
    owner = choose_owner(options.owner)
    build_library(BUILD / "datasets" / LIBRARY_SLUG, owner)
    kernels = []
    for name in names:
        build_kernel(name, BUILD / "kernels" / name, owner)
        kernels.append(Kernel(BUILD / "kernels" / name, predicts=not name.endswith(TRAINING)))
    plan = Plan(
        **_material(task, options),
        datasets=BUILD / "datasets",
        folder=BUILD / "rehearsal",
        layout=options.layout,
        limit_seconds=options.limit_hours * 3600,
        hidden_rows=options.hidden_rows,
        attached=tuple(options.attach),
        whole_test=options.whole_test,
    )
    notes = declare_outputs(kernels)
    passes = rehearse(kernels, plan)
    notes += _notes(kernels, plan, made_up=not options.data)
    print(verdict(passes, plan, notes=notes))
    if any(one.problems for one in passes):
        raise DataError("the rehearsal failed; nothing should be pushed like this.")


def _notes(kernels: list[Kernel], plan: Plan, *, made_up: bool) -> Iterator[str]:
    """What the reader of the verdict should know of the conditions."""
    if made_up:
        yield (
            "the data are made up and few, and the backbone too unless one was given: the times "
            "say nothing of real ones. Before a push that counts, add DATA= and BACKBONE="
        )
    if plan.settings:
        yield f"training ran with {plan.settings}"
    drift = image.differences(image.read_image())
    if drift:
        yield (
            f"other versions than on Kaggle's image ({', '.join(drift)}): make rehearse KAGGLE=1 "
            "has those"
        )
    for kernel in kernels:
        yield from source_notes(kernel)
    yield f"logs, executed notebooks and outputs are in {shown(plan.folder)}"


def _material(task: HomeTask, options: argparse.Namespace) -> dict[str, Any]:
    """Data, backbone and settings: the user's, or all made up."""
    if options.data:
        settings = QUICK if options.settings is None else options.settings
        return {"data": options.data, "backbone": options.backbone, "settings": settings}
    folder = BUILD / "rehearsal-material" / task.name
    data, backbone = folder / "data", options.backbone or folder / "backbone"
    task.write_data(data, MADE_UP_TRAIN_ROWS, MADE_UP_TEST_ROWS)
    if not options.backbone:
        task.write_backbone(backbone, data)
    tiny = json.dumps(task.tiny_settings)
    settings = tiny if options.settings is None else options.settings
    return {"data": data, "backbone": backbone, "settings": settings}


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run notebooks at home as Kaggle would.")
    parser.add_argument("names", nargs="+", help="notebooks in order, such as fb3_train fb3_infer")
    parser.add_argument("--data", type=Path, help="the folder of the data; none: made up")
    parser.add_argument("--backbone", type=Path, help="a pretrained encoder's folder")
    parser.add_argument("--owner", help="your Kaggle name; default: the account on this machine")
    parser.add_argument("--settings", help=f"for training; default with --data: {QUICK}")
    parser.add_argument("--attach", type=Path, nargs="*", default=[], help="finished runs and more")
    parser.add_argument("--whole-test", action="store_true", help="predict the data's own test too")
    parser.add_argument("--layout", choices=(BOTH, NESTED, FLAT), default=BOTH)
    parser.add_argument("--limit-hours", type=float, default=9.0)
    parser.add_argument("--hidden-rows", type=int, default=2_700, help="for the projection")
    options = parser.parse_args()
    return exit_status(lambda: rehearse_named(options.names, options))


if __name__ == "__main__":
    sys.exit(main())
