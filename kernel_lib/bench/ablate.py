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
from pathlib import Path
from typing import Any

import torch

from kernel_lib.bench.ablate_essays import write_essays
from kernel_lib.bench.ablate_plan import BASE_SEEDS, PLOT, RESULTS, TABLE, Ablation
from kernel_lib.bench.ablate_runs import Job, start_process
from kernel_lib.bench.ablate_table import markdown
from kernel_lib.bench.ablate_techniques import chosen, own_techniques, read_techniques
from kernel_lib.bench.run import machine_of
from kernel_lib.errors import SettingsError
from kernel_lib.model.backbone import read_config
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import pick_device
from kernel_lib.tasks.regression import RegressionSettings

PLAIN = {"fgm_epsilon": 0.0}  # FGM is one of the techniques
TRIAL = {"n_folds": 2, "max_length": 64, "learning_rate": 1e-3, "head_learning_rate": 1e-3}
TRIAL_TECHNIQUES = ("fgm", "more_epochs", "layer_decay_1", "pool_mean")


def make_base(data: str, backbone: str, overrides: dict[str, Any]) -> RegressionSettings:
    """The recipe that everything is held against: the kit's defaults without FGM, and changes."""
    named = [name for name in ("data_dir", "backbone", "folds", "output_dir") if name in overrides]
    if named:
        raise SettingsError(
            f"--settings names {', '.join(named)}: give --data, --backbone, --folds and --out."
        )
    if overrides.get("full_data") or overrides.get("debug"):
        raise SettingsError("--settings names full_data or debug: only held-out folds count here.")
    folders = {"data_dir": data, "backbone": backbone}
    return RegressionSettings().replace(**{**PLAIN, **overrides, **folders})


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
        ablation = _ablation(options)
        if options.list:
            for each in ablation.techniques:
                print(f"{each.name:22} {each.about:40} {json.dumps(dict(each.settings))}")
            return
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
    try:
        overrides = json.loads(options.settings)
        seeds, folds = (
            [int(each) for each in text.split(",")] for text in (options.seeds, options.folds)
        )
    except ValueError as error:
        raise SettingsError(
            f"--settings, --seeds or --folds cannot be read ({error}). Write --settings "
            "'{\"epochs\": 2}' --seeds 42,1 --folds 0"
        ) from None
    data, backbone = options.data, options.backbone
    names = [name for name in options.only.split(",") if name]
    if bool(data) != bool(backbone):
        raise SettingsError("--data and --backbone go together; without both, made-up essays.")
    if not data:
        print("no --data: a quick look on made-up essays with a tiny encoder")
        data, backbone = map(str, write_essays(options.out / "material"))
        overrides = {**TRIAL, **overrides}
        names = names or list(TRIAL_TECHNIQUES)
    base = make_base(data, backbone, overrides)
    layers = int(read_config(find_backbone(backbone)).num_hidden_layers)
    techniques = own_techniques(base, layers=layers)
    if options.techniques:
        techniques = read_techniques(options.techniques, techniques)
    if names:
        techniques = chosen(techniques, names)
    return Ablation(
        base,
        techniques,
        seeds=seeds,
        folds=folds,
        out=options.out,
        base_seeds=options.base_seeds,
    )


if __name__ == "__main__":
    sys.exit(main())
