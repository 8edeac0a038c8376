"""One run folder of several: folds that were trained in different notebooks, joined.

    python -m kernel_lib.runs.merge download/a/run download/b/run --out build/run

All must be of one run: the same settings, data, folds, tokenizer and backbone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from kernel_lib.artifacts import CONFIG, OOF, WEIGHTS, Run, open_run, read_manifest
from kernel_lib.errors import ArtifactError
from kernel_lib.results.members import task_of
from kernel_lib.results.report import write_report
from kernel_lib.runtime.command import exit_status
from kernel_lib.training.record import score_line, with_scores
from kernel_lib.training.sessions import check_same_run, join_sessions


def merge_runs(folders: Sequence[Path], target: Path) -> Run:
    """Makes one run folder of several sessions of a run; these stay as they are.

    Args:
        folders: their run folders.
        target: where to; must not be there. It appears whole, with scores and report, or not.

    Returns:
        The joined run.

    Raises:
        ArtifactError: they are not of one run, one is damaged, a fold is finished in two of them
            with different weights, or ``target`` is there.
    """
    if target.exists():
        raise ArtifactError(f"{target} is there already. Remove it, or choose another place.")
    sessions = [open_run(folder) for folder in folders]
    check_same_run(sessions)
    for run in sessions:
        for fold in run.finished_models():
            read_manifest(run, fold, check=(WEIGHTS, CONFIG, OOF))
    unfinished = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        join_sessions(sessions, unfinished)
        joined = _with_all_folds(open_run(unfinished), sessions)
        task = task_of(joined)
        joined = with_scores(task, joined)
        if joined.finished_folds():
            write_report(joined)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return Run(target, joined.record)


def _with_all_folds(joined: Run, sessions: Sequence[Run]) -> Run:
    """The run with the setting ``folds`` as if one session had been asked for all of them."""
    wanted = {fold for run in sessions for fold in task_of(run).settings.wanted_models}
    settings = task_of(joined).settings
    full_data = settings.n_folds in wanted
    folds = () if wanted >= set(range(settings.n_folds)) else tuple(sorted(wanted))
    changed = settings.replace(folds=folds, full_data=full_data, resume_from=()).to_dict()
    return Run(joined.folder, {**joined.record, "settings": changed})


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Join sessions of a run in one run folder.")
    parser.add_argument("runs", type=Path, nargs="+", help="their run folders")
    parser.add_argument("--out", type=Path, required=True, help="the run folder to make")
    options = parser.parse_args()

    def work() -> None:
        run = merge_runs(options.runs, options.out)
        folds = ", ".join(map(str, run.finished_folds())) or "none"
        and_full = ", and the model of all rows" if run.record["full_data"] else ""
        print(f"{run.folder}: folds {folds} of {run.record['settings']['n_folds']}{and_full}")
        print(score_line(run))

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
