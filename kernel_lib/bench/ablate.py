"""Which techniques pay: each against the base recipe, on the same folds and seeds.

python -m kernel_lib.bench.ablate --data FOLDER --backbone FOLDER [--settings '{"epochs": 2}']
    [--only fgm,ema] [--seeds 42,1] [--folds 0] [--techniques FILE.json] [--processes 2]
    [--out build/ablate] [--table-only] [--list]
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kernel_lib.bench.ablate_essays import write_essays
from kernel_lib.bench.ablate_plan import BASE_SEEDS, PLOT, RESULTS, TABLE, Ablation
from kernel_lib.bench.ablate_runs import Job, start_process
from kernel_lib.bench.ablate_table import markdown
from kernel_lib.bench.ablate_techniques import (
    Technique,
    chosen,
    own_techniques,
    read_techniques,
)
from kernel_lib.bench.run import machine_of
from kernel_lib.errors import SettingsError
from kernel_lib.model.backbone import read_config
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import pick_device
from kernel_lib.tasks.regression import RegressionSettings

TRIAL = {"n_folds": 2, "max_length": 64, "learning_rate": 1e-3, "head_learning_rate": 1e-3}
LAYERS = 12  # where techniques are listed without an encoder
TRIAL_TECHNIQUES = ("fgm", "more_epochs", "layer_decay_1", "pool_mean")


def make_base(data: str, backbone: str, overrides: dict[str, Any]) -> RegressionSettings:
    """The recipe that everything is held against: the kit's defaults, and changes."""
    named = [name for name in ("data_dir", "backbone", "folds", "output_dir") if name in overrides]
    if named:
        raise SettingsError(
            f"--settings names {', '.join(named)}: give --data, --backbone, --folds and --out."
        )
    if overrides.get("full_data") or overrides.get("debug"):
        raise SettingsError("--settings names full_data or debug: only held-out folds count here.")
    if overrides.get("keep") == "best":
        raise SettingsError(
            '--settings names keep="best": it selects on the fold that it reports, so no '
            'difference would mean anything. Leave it out; as a technique it is "keep_best".'
        )
    folders = {"data_dir": data, "backbone": backbone}
    return RegressionSettings().replace(**{**overrides, **folders})


def make_machine() -> dict[str, Any]:
    """What is measured on, for the record."""
    return machine_of(pick_device()) | {"gpus": torch.cuda.device_count()}


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make ablate", description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="", help="folder of train.csv; none: made-up essays")
    parser.add_argument("--backbone", default="", help="folder of the pretrained encoder")
    parser.add_argument("--out", type=Path, default=Path("build/ablate"))
    parser.add_argument("--settings", default="{}", help="JSON: changes of the base recipe")
    parser.add_argument("--techniques", type=Path, help="JSON: techniques instead of the kit's own")
    parser.add_argument("--only", default="", help="names, with commas")
    parser.add_argument("--seeds", default="42", help="with commas")
    parser.add_argument(
        "--base-seeds", type=int, default=BASE_SEEDS, help="of the base, with one seed"
    )
    parser.add_argument("--folds", default="0", help="with commas")
    parser.add_argument("--processes", type=int, default=1, help="runs side by side")
    parser.add_argument("--keep-weights", action="store_true", help="of every run; they are large")
    parser.add_argument("--table-only", action="store_true", help="of the runs that are there")
    parser.add_argument("--list", action="store_true", help="show the techniques and end")
    options = parser.parse_args()

    def work() -> None:
        if options.list:
            for each in _listed(options):
                print(f"{each.name:22} {each.about:40} {json.dumps(dict(each.settings))}")
            return
        ablation = _ablation(options)
        if not options.table_only:
            start = functools.partial(
                _start, make_machine(), options.keep_weights, max(1, options.processes)
            )
            try:
                ablation.run(start, processes=max(1, options.processes))
            except BaseException:  # also Ctrl-C: what is there makes a table
                ablation.write()
                raise
        print(markdown(ablation.write()))
        print("\n" + "\n".join(f"{options.out}/{name}" for name in (TABLE, RESULTS, PLOT)))

    return exit_status(work)


def _start(machine: dict[str, Any], keeps: bool, processes: int, job: Job, slot: int) -> Any:
    return start_process(job, machine=machine, keeps_weights=keeps, slot=slot, processes=processes)


def _ablation(options: argparse.Namespace) -> Ablation:
    """What the command line asks for. Raises SettingsError when it is wrong."""
    overrides, (seeds, folds) = _overrides(options), _numbers(options)
    data, backbone = options.data, options.backbone
    few: tuple[str, ...] = ()
    if not data:
        print("no --data: a quick look on made-up essays with a tiny encoder")
        data, backbone = map(str, write_essays(options.out / "material"))
        overrides, few = {**TRIAL, **overrides}, TRIAL_TECHNIQUES
    base = make_base(data, backbone, overrides)
    return Ablation(
        base,
        _techniques(options, base, few),
        seeds=seeds,
        folds=folds,
        out=options.out,
        base_seeds=options.base_seeds,
    )


def _listed(options: argparse.Namespace) -> list[Technique]:
    """The techniques that could be tried; nothing is written, and no data are needed."""
    return _techniques(options, make_base(options.data, options.backbone, _overrides(options)))


def _techniques(
    options: argparse.Namespace, base: RegressionSettings, few: Sequence[str] = ()
) -> list[Technique]:
    """Those that are asked for: by ``--only``, else by a file, else ``few``, else all."""
    layers = LAYERS
    if base.backbone:
        layers = int(read_config(find_backbone(base.backbone)).num_hidden_layers)
    techniques = own_techniques(base, layers=layers)
    if options.techniques:
        techniques, few = read_techniques(options.techniques, techniques), ()
    names = [name for name in options.only.split(",") if name] or few
    return chosen(techniques, names) if names else techniques


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The changes of the base recipe."""
    if bool(options.data) != bool(options.backbone):
        raise SettingsError("--data and --backbone go together; without both, made-up essays.")
    try:
        overrides = json.loads(options.settings)
        if not isinstance(overrides, dict):
            raise ValueError(f"{options.settings} is no JSON object")
    except ValueError as error:
        raise SettingsError(
            f"--settings cannot be read ({error}). Write --settings '{{\"epochs\": 2}}'"
        ) from None
    return overrides


def _numbers(options: argparse.Namespace) -> tuple[list[int], list[int]]:
    """Seeds and folds."""
    try:
        seeds, folds = (
            [int(each) for each in text.split(",")] for text in (options.seeds, options.folds)
        )
    except ValueError as error:
        raise SettingsError(
            f"--seeds or --folds cannot be read ({error}). Write --seeds 42,1 --folds 0"
        ) from None
    return seeds, folds


if __name__ == "__main__":
    sys.exit(main())
