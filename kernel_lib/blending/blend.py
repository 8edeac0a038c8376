"""One blend of several runs: how to weigh them, found on their out-of-fold predictions.

    python -m kernel_lib.blending.blend build/base/run build/svr/run --out build/blend

Writes ``blend.json``, which inference reads, and ``blend.html``. Every choice goes by scores of
rows that the weights were not learned from (``search``).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from kernel_lib.blending.methods import METHODS, NAMES, WEIGHING, Method
from kernel_lib.blending.outcome import Outcome, examine, to_blend
from kernel_lib.blending.rows import read_rows
from kernel_lib.blending.search import Splitting
from kernel_lib.blending.view import print_outcome, write_page
from kernel_lib.errors import SettingsError
from kernel_lib.results.blend_file import BLEND
from kernel_lib.runtime.command import exit_status

AUTO = "auto"
PAGE = "blend.html"


def blend_runs(
    folders: Sequence[Path],
    target: Path,
    *,
    method: str = AUTO,
    per_target: bool = False,
    keep_all: bool = False,
    splitting: Splitting | None = None,
) -> Outcome:
    """Finds the best blend of some runs and writes it.

    Args:
        folders: run folders; several sessions of one run count as one.
        target: folder for ``blend.json`` and ``blend.html``.
        method: one of ``NAMES``, or "auto": the simplest of those that score best.
        per_target: weights of their own for each target, with one of ``WEIGHING``.
        keep_all: drop no run.
        splitting: of the rows; by default 3 times 5 parts.

    Raises:
        SettingsError: the method is unknown or has no weights for each target, or the runs are of
            a task that is not blended, or there are more parts than rows allow.
        ArtifactError, DataError: as :func:`read_rows`, or a file cannot be written.
    """
    methods = METHODS
    if method != AUTO:
        if method not in NAMES:
            raise SettingsError(f"method={method!r} is not known: {', '.join((AUTO, *NAMES))}.")
        if per_target and method not in WEIGHING:
            raise SettingsError(f"{method} has no weights, so none for each target.")
        methods = (Method(method, per_target),)
    elif per_target:
        methods = tuple(each for each in METHODS if each.per_target)
    outcome = examine(read_rows(folders), methods, splitting or Splitting(), keep_all=keep_all)
    to_blend(outcome).write(target / BLEND)
    write_page(outcome, target / PAGE)
    return outcome


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Find the weights of several runs.")
    parser.add_argument("runs", type=Path, nargs="+", help="their run folders")
    parser.add_argument("--out", type=Path, required=True, help="folder for blend.json, blend.html")
    parser.add_argument("--method", choices=(AUTO, *NAMES), default=AUTO)
    parser.add_argument("--per-target", action="store_true", help="weights for each target")
    parser.add_argument("--keep-all", action="store_true", help="drop no run")
    default = Splitting()
    parser.add_argument("--parts", type=int, default=default.parts, help="of the nested CV")
    parser.add_argument("--repeats", type=int, default=default.repeats, help="of the nested CV")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the nested CV")
    options = parser.parse_args()

    def work() -> None:
        print_outcome(
            blend_runs(
                options.runs,
                options.out,
                method=options.method,
                per_target=options.per_target,
                keep_all=options.keep_all,
                splitting=Splitting(options.parts, options.repeats, options.seed),
            )
        )
        print(f"blend  {options.out / BLEND}\npage   {options.out / PAGE}")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
