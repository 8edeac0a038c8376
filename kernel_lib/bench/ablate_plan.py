"""The runs that an experiment table wants: which are missing, making them, and what is there."""

from __future__ import annotations

import datetime
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kernel_lib.bench.ablate_plot import plot_differences
from kernel_lib.bench.ablate_runs import (
    FAILURE,
    LOG,
    RESULT,
    Job,
    Trained,
    make_job,
    note_failure,
    read_trained,
)
from kernel_lib.bench.ablate_table import make_record, markdown
from kernel_lib.bench.ablate_techniques import BASE, Technique, changed
from kernel_lib.errors import SettingsError, TrainingError
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.runtime.files import replacing, write_json, write_text
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.regression import RegressionSettings

RESULTS, TABLE, PLOT, RUNS = "results.json", "table.md", "ablate.png", "runs"
BASE_SEEDS = 3  # where there is one seed only, so that the training noise is known
Start = Callable[[Job, int], Any]
"""Begins a run as one of so many; gives something with ``poll``, ``terminate`` and ``wait``."""


class Ablation:
    """The runs that are wanted, and the table of those that are there.

    Args:
        base: the recipe that everything is held against, with ``data_dir`` and ``backbone``.
        techniques: without the base.
        seeds: of the training.
        folds: to hold out.
        out: folder of everything.
        base_seeds: how many seeds the base has where ``seeds`` is a single one.
    """

    def __init__(
        self,
        base: RegressionSettings,
        techniques: Sequence[Technique],
        *,
        seeds: Sequence[int],
        folds: Sequence[int],
        out: Path,
        base_seeds: int = BASE_SEEDS,
    ) -> None:
        if not seeds or not folds:
            raise SettingsError("there must be at least one seed and one fold.")
        self.techniques, self.out, self.failures = list(techniques), out, dict[str, str]()
        self._base, self._folds = base, folds
        extra = [seed for seed in range(1, base_seeds + 1) if seed not in seeds]
        extra = extra[: base_seeds - 1] if len(seeds) == 1 else []
        self._recipes: dict[str, str] = {}
        self.jobs = self._jobs(BASE, base, [*seeds, *extra])
        by_seed: list[list[Job]] = [[] for _ in seeds]
        wanted = set[str]()
        for technique in techniques:
            try:
                settings = changed(base, technique)
            except SettingsError as error:
                self.failures[technique.name] = str(error)
                continue
            jobs = self._jobs(technique.name, settings, seeds)
            recipe = self._recipes[technique.name]
            if recipe == self._recipes[BASE]:
                del self._recipes[technique.name]
                self.failures[technique.name] = "no result depends on what it changes."
            elif recipe not in wanted:  # else its runs are those of a technique before it
                wanted.add(recipe)
                for at, seed in enumerate(seeds):
                    by_seed[at] += [job for job in jobs if job.seed == seed]
        for jobs in by_seed:  # all techniques with the first seed come before those with the second
            self.jobs += jobs

    def run(self, start: Start, *, processes: int = 1, pause: float = 0.2) -> None:
        """Makes the runs that are not there yet, and the table anew after each.

        A technique that fails is not tried with other seeds; the others go on.

        Args:
            start: begins a run.
            processes: how many run side by side.
            pause: seconds between two looks at them.

        Raises:
            TrainingError: the base failed.
        """
        waiting = deque(job for job in self.jobs if not job.is_finished)
        slots: dict[int, tuple[Job, Any]] = {}
        begun, here, failed = time.monotonic(), 0, set[str]()
        total = len(self.jobs)
        with progress_bar(total, "ablate", done=total - len(waiting), unit="run") as bar:
            try:
                while waiting or slots:
                    while waiting and len(slots) < processes:
                        job = waiting.popleft()
                        if job.name in failed:
                            bar.update(1)
                            continue
                        slot = next(slot for slot in range(processes) if slot not in slots)
                        slots[slot] = job, start(job, slot)
                        bar.set_postfix_str("; ".join(str(job) for job, _ in slots.values()))
                    ended = {slot: each for slot, each in slots.items() if _has_ended(each[1])}
                    if not ended:
                        time.sleep(pause)
                        continue
                    for slot, (job, process) in ended.items():
                        del slots[slot]
                        here += 1
                        bar.update(1)
                        text = self._outcome(job, process.poll())
                        if not job.is_finished:
                            failed.add(job.name)
                        left = len(waiting) + len(slots)
                        seconds = (time.monotonic() - begun) / here * left
                        bar.write(f"{job}: {text}; {_left(left, seconds)}")
                    self.write(draws=False)
            finally:
                for _, process in slots.values():
                    process.terminate()
                for _, process in slots.values():
                    process.wait()

    def record(self) -> dict[str, Any]:
        """All that is there now, of any seed and fold, ready for JSON."""
        folders = sorted(self.out.glob(f"{RUNS}/*/{RESULT}"))
        trained = {
            (run.recipe, run.seed, run.fold): run  # of several only one counts
            for run in (read_trained(path.parent) for path in folders)
        }
        runs: dict[str, list[Trained]] = {
            name: [run for run in trained.values() if run.recipe == recipe]
            for name, recipe in self._recipes.items()
        }
        failures = self._noted_failures() | self.failures
        return {
            "made": datetime.datetime.now().isoformat(timespec="seconds"),
            **make_record(self.techniques, runs, failures),
        }

    def write(self, *, draws: bool = True) -> dict[str, Any]:
        """Writes record and table, and the picture too if ``draws``; returns the record."""
        record = self.record()
        write_json(self.out / RESULTS, record)
        write_text(self.out / TABLE, markdown(record) + "\n")
        if draws:
            with replacing(self.out / PLOT) as temporary:
                temporary.write_bytes(plot_differences(record).png())
        return record

    def _jobs(self, name: str, settings: RegressionSettings, seeds: Sequence[int]) -> list[Job]:
        made = [
            make_job(
                name,
                settings,
                seed=seed,
                fold=fold,
                split_seed=self._base.seed,
                runs=self.out / RUNS,
            )
            for seed in seeds
            for fold in self._folds
        ]
        self._recipes[name] = made[0].recipe
        return made

    def _outcome(self, job: Job, status: int) -> str:
        """How a run ended, in words."""
        if job.is_finished:
            found = read_trained(job.folder)
            return f"mcrmse {found.score:.4f}, {format_seconds(found.seconds)}"
        text = note_failure(job, status)
        if job.name == BASE:
            raise TrainingError(
                f"{job} failed, and there is nothing without it: {text}. See {job.folder / LOG}."
            )
        return f"failed: {text}"

    def _noted_failures(self) -> dict[str, str]:
        """Why runs have no result, as an earlier process or this one noted it."""
        noted: dict[str, str] = {}
        for job in self.jobs:
            if (job.folder / FAILURE).is_file() and not job.is_finished:
                text = (job.folder / FAILURE).read_text(encoding="utf-8").strip()
                noted |= {n: text for n, recipe in self._recipes.items() if recipe == job.recipe}
        return noted


def _has_ended(process: Any) -> bool:
    return process.poll() is not None


def _left(runs: int, seconds: float) -> str:
    if not runs:
        return "all done"
    return f"{runs} run{'s' * (runs > 1)} to go, about {format_seconds(seconds)}"
