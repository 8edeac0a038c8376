"""One run of ``make ablate``: a recipe, a seed, a fold, in a process of its own.

python -m kernel_lib.bench.ablate_runs FOLDER/request.json
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernel_lib import __version__
from kernel_lib.artifacts import OOF, WEIGHTS, read_manifest, read_oof, write_csv
from kernel_lib.config import digest
from kernel_lib.errors import ArtifactError, DataError, TrainingError
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import pick_device, versions
from kernel_lib.runtime.files import csv_engine, read_json, sha256, write_json, write_text
from kernel_lib.runtime.peak_memory import PeakMemory
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from kernel_lib.text.tokenizer import build_tokenizer
from kernel_lib.training.crossval import cross_validate

REQUEST, RESULT, FAILURE, LOG = "request.json", "result.json", "failure.txt", "log.txt"
RUN = "run"


@dataclass(frozen=True)
class Job:
    """A run that is to be there.

    Attributes:
        name: of the technique.
        settings: of the run: one seed, one fold, and ``output_dir`` inside ``folder``.
        split_seed: of rows and folds, the same for all seeds.
        recipe: names the settings, the data and the encoder; not seed and fold.
        folder: what belongs to it.
    """

    name: str
    settings: RegressionSettings
    split_seed: int
    recipe: str
    folder: Path

    @property
    def seed(self) -> int:
        """Of the training."""
        return self.settings.seed

    @property
    def fold(self) -> int:
        """The one that is held out."""
        return self.settings.folds[0]

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}, fold {self.fold}"

    @property
    def is_finished(self) -> bool:
        """Whether its result is there."""
        return (self.folder / RESULT).is_file()


@dataclass(frozen=True)
class Trained:
    """A finished run as the table needs it.

    Attributes:
        name: of the technique it was made for.
        recipe: as in :class:`Job`.
        seed, fold: its own.
        score: of the held-out fold.
        seconds: of training and evaluation.
        peak_bytes: of memory, beyond what the process had before; None: not known here.
        ids: of the held-out rows, sorted.
        true, predicted: targets in that order, ``(rows, targets)``.
        record: all that the run wrote down.
    """

    name: str
    recipe: str
    seed: int
    fold: int
    score: float
    seconds: float
    peak_bytes: int | None
    ids: tuple[str, ...]
    true: NDArray[np.float64]
    predicted: NDArray[np.float64]
    record: dict[str, Any]


def make_job(
    name: str,
    settings: RegressionSettings,
    *,
    seed: int,
    fold: int,
    split_seed: int,
    runs: Path,
) -> Job:
    """The run of a recipe for a seed and a fold, in the folder where it is or would be.

    Raises:
        DataError, BackboneError: the data or the encoder are not there.
    """
    recipe = recipe_of(settings, split_seed)
    ending = f"seed{seed}-fold{fold}-{recipe}"
    found = sorted(runs.glob(f"*-{ending}"))  # under another name it is the same run
    folder = found[0] if found else runs / f"{name}-{ending}"
    own = settings.replace(seed=seed, folds=(fold,), output_dir=str(folder / RUN), devices=1)
    return Job(name, own, split_seed, recipe, folder)


def recipe_of(settings: RegressionSettings, split_seed: int) -> str:
    """Names all that a result depends on except seed and fold: settings, data, encoder."""
    values = settings.result_values() | {"seed": split_seed}
    material = _material(settings.data_dir, settings.backbone)
    others = [
        _contents(Path(path)) for path in (settings.init_from, settings.pseudo_labels) if path
    ]
    return digest({"settings": values, "material": material, "others": others})


@functools.cache
def _material(data_dir: str, backbone: str) -> dict[str, str]:
    train = Path(data_dir) / "train.csv"
    if not train.is_file():
        raise DataError(f"{train} is missing. Give the folder of the competition's files (--data).")
    encoder = find_backbone(backbone)
    files = [path for path in sorted(encoder.iterdir()) if path.suffix in (".safetensors", ".bin")]
    return {path.name: sha256(path) for path in (train, encoder / "config.json", *files)}


def _contents(path: Path) -> dict[str, str]:
    """What a run or a table of labels is known by."""
    files = [path] if path.is_file() else [*path.glob("*.json"), *path.glob("*.csv")]
    return {file.name: sha256(file) for file in sorted(files)} or {"name": str(path)}


def train_run(job: Job, *, machine: dict[str, Any], keeps_weights: bool = False) -> None:
    """Trains a run, going on where an earlier process stopped, and writes its result.

    Args:
        job: which one.
        machine: what is said of it in the result.
        keeps_weights: leave them in the run folder; the table has no need for them.

    Raises:
        TrainingError: the time budget of the settings ended it; run again.
        KernelLibError: whatever is wrong with settings, data or encoder.
    """
    memory = PeakMemory(pick_device())
    split = RegressionTask(job.settings.replace(seed=job.split_seed))
    frame = split.read_train()
    folds = split.folds(frame)
    task = RegressionTask(job.settings)
    encoder = find_backbone(job.settings.backbone)
    tokenizer = build_tokenizer(encoder, keep_newlines=job.settings.keep_newlines)
    run = cross_validate(task, task.encode(frame, tokenizer), folds, tokenizer)
    if job.fold not in run.finished_folds():
        raise TrainingError(
            f"fold {job.fold} did not fit in time_budget_seconds={job.settings.time_budget_seconds}"
            "; run again to go on."
        )
    manifest = read_manifest(run, job.fold)
    write_csv(read_oof(run, job.fold), job.folder / OOF)
    result = {
        "name": job.name,
        "recipe": job.recipe,
        "seed": job.seed,
        "fold": job.fold,
        "split_seed": job.split_seed,
        "run_id": run.id,
        "score": manifest["score"],
        "scores": manifest["scores"],
        "rows": manifest["rows"],
        "seconds": manifest["seconds"],
        "peak_bytes": memory.grown_bytes(),
        "precision": manifest["precision"],
        "settings": job.settings.to_dict(),
        "kernel_lib": __version__,
        "versions": versions(),
        "machine": machine,
    }
    write_json(job.folder / RESULT, result)
    (job.folder / FAILURE).unlink(missing_ok=True)
    if not keeps_weights:
        (run.fold_folder(job.fold) / WEIGHTS).unlink(missing_ok=True)


def start_process(
    job: Job, *, machine: dict[str, Any], keeps_weights: bool, slot: int, processes: int
) -> subprocess.Popen[bytes]:
    """Begins a run in a process of its own; what it prints goes to ``log.txt`` in its folder.

    Args:
        job: which run.
        machine, keeps_weights: as for :func:`train_run`.
        slot: which of the runs side by side it is, from 0.
        processes: how many there are; they share the cores, and take turns on the GPUs.
    """
    request = {
        "name": job.name,
        "settings": job.settings.to_dict(),
        "split_seed": job.split_seed,
        "recipe": job.recipe,
        "folder": str(job.folder),
        "machine": machine,
        "keeps_weights": keeps_weights,
    }
    write_json(job.folder / REQUEST, request)
    environment = dict(os.environ)
    library = str(Path(__file__).parents[2])
    paths = [library, *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    if processes > 1:
        cores = int(environment.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
        environment["OMP_NUM_THREADS"] = str(max(1, cores // processes))
        gpus = machine.get("gpus", 0)
        if gpus > 1:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
    command = [sys.executable, "-m", "kernel_lib.bench.ablate_runs", str(job.folder / REQUEST)]
    with open(job.folder / LOG, "ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def note_failure(job: Job, status: int) -> str:
    """Writes down why a run ended without a result, and returns it: the last line it printed."""
    cause = "a signal ended it (-9: most often a full memory)" if status < 0 else ""
    try:
        lines = (job.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line.strip() for line in lines if line.strip()]
    text = f"status {status}: {cause}" if cause else (said[-1] if said else f"status {status}")
    write_text(job.folder / FAILURE, text + "\n")
    return text


def read_trained(folder: Path) -> Trained:
    """A finished run. Raises ArtifactError when its files are damaged."""
    record = read_json(folder / RESULT)
    path = folder / OOF
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, engine=csv_engine(path))
        frame = frame.sort_values(frame.columns[0], kind="stable")
        names = [name.removeprefix("true_") for name in map(str, frame) if name.startswith("true_")]
        true, predicted = (
            frame[[f"{kind}_{name}" for name in names]].astype(float).to_numpy(np.float64)
            for kind in ("true", "pred")
        )
        if len(frame) != record["rows"]:
            raise ValueError(f"{path.name} holds {len(frame)} of {record['rows']} rows")
        return Trained(
            name=str(record["name"]),
            recipe=str(record["recipe"]),
            seed=int(record["seed"]),
            fold=int(record["fold"]),
            score=float(record["score"]),
            seconds=float(record["seconds"]),
            peak_bytes=record["peak_bytes"],
            ids=tuple(frame.iloc[:, 0]),
            true=true,
            predicted=predicted,
            record=record,
        )
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise ArtifactError(f"{folder} is damaged ({error}). Delete it to train it anew.") from None


def main() -> int:
    """Trains the run of a request; returns the exit status."""

    def work() -> None:
        request = read_json(Path(sys.argv[1]))
        job = Job(
            request["name"],
            RegressionSettings.from_dict(request["settings"]),
            request["split_seed"],
            request["recipe"],
            Path(request["folder"]),
        )
        train_run(job, machine=request["machine"], keeps_weights=request["keeps_weights"])

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
