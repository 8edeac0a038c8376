"""Compares this kit with other ways to do the same work, and writes table, record and plot.

python -m kernel_lib.bench [--device cuda] [--data FOLDER] [--backbone FOLDER] [--run FOLDER]
                           [--quick] [--layers N] [--rounds N] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import sys

from kernel_lib.bench.run import PLOT, RESULTS, TABLE, run_bench
from kernel_lib.bench.settings import for_device
from kernel_lib.bench.table import markdown
from kernel_lib.runtime.command import exit_status


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--data", default="", help="folder of FB3's train.csv")
    parser.add_argument("--backbone", default="", help="a pretrained encoder to measure as well")
    parser.add_argument("--run", default="", help="a finished run, predicted in all precisions")
    parser.add_argument("--quick", action="store_true", help="about a minute, for a first look")
    parser.add_argument("--layers", type=int, help="of the encoder with random weights")
    parser.add_argument("--rounds", type=int, help="how often everything is timed")
    parser.add_argument("--out", default="build/bench", help="folder of what is written")
    options = parser.parse_args()

    def work() -> None:
        folders = {name: getattr(options, name) for name in ("data", "backbone", "run", "out")}
        settings = for_device(options.device, quick=options.quick).resized(
            layers=options.layers, **folders
        )
        if options.rounds is not None:
            settings = settings.resized(rounds=options.rounds)
        print(markdown(run_bench(settings)))
        print("\n".join(f"{settings.out}/{name}" for name in (TABLE, RESULTS, PLOT)))

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
