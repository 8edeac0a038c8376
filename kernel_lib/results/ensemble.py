"""From run folders to one prediction a row: fold by fold, mean over folds, mean over runs."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernel_lib.artifacts import (
    CONFIG,
    RUN_RECORD,
    TOKENIZER,
    WEIGHTS,
    Run,
    load_weights,
    open_run,
    read_manifest,
)
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results.submission import make_submission, write_submission
from kernel_lib.runtime.device import keep_freed_memory, pick_device, pick_precision
from kernel_lib.runtime.paths import input_folders, input_root
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import load_tokenizer, token_fingerprint
from kernel_lib.training.prediction import predict


@dataclass(frozen=True)
class Member:
    """A run in the ensemble.

    Attributes:
        folds: where each of its folds stands; sessions of one run may be attached side by side.
        task: what it was trained for.
        examples: the encoded test rows.
        pad_id: its tokenizer's.
    """

    folds: dict[int, Run]
    task: RegressionTask
    examples: list[Example]
    pad_id: int


def find_runs(given: Sequence[str]) -> list[Run]:
    """The runs to ensemble, each with at least one finished fold.

    Args:
        given: run folders; none: every folder with a ``run.json`` under the inputs.

    Raises:
        ArtifactError: there is none, or a folder is no run or has no finished fold.
    """
    found = [folder for folder in input_folders() if (folder / RUN_RECORD).is_file()]
    folders = [Path(folder) for folder in given] or found
    if not folders:
        raise ArtifactError(
            f"no run folder ({RUN_RECORD}) under {input_root()}. Attach the training notebook's "
            "output or a dataset made of it, or set runs."
        )
    runs = [open_run(folder) for folder in folders]
    for run in runs:
        if not run.finished_folds():
            raise ArtifactError(f"{run.folder} has no finished fold (fold<n>/manifest.json).")
    return runs


def task_of(run: Run) -> RegressionTask:
    """The task a run was trained for, with the settings it was trained with."""
    if run.record["task"] != RegressionTask.name:
        raise ArtifactError(
            f"{run.folder} is of task {run.record['task']!r}; here "
            f"{RegressionTask.name!r} is predicted."
        )
    return RegressionTask(RegressionSettings.from_dict(run.record["settings"]))


def predict_submission(settings: InferenceSettings) -> Path:
    """Predicts the test rows with all folds of all runs and writes the submission.

    The file is there, valid, from the first fold on, and is replaced by a better one after each.

    Args:
        settings: where runs and data are; everything else is read from the runs.

    Returns:
        The path of the submission.

    Raises:
        KernelLibError: whatever is wrong with runs, data or disk.
    """
    keep_freed_memory()
    runs = find_runs(settings.runs)
    task = task_of(runs[0])
    test, sample = task.read_test(settings.data_dir)
    ids = test[task.settings.id_column].tolist()
    members = [_make_member(folds, test) for folds in _folds_by_run(runs)]
    _check_columns(members)
    for member in members:
        for fold, run in member.folds.items():
            read_manifest(run, fold, check=(WEIGHTS, CONFIG))

    path = Path(settings.submission)
    run_means: list[NDArray[np.float64]] = []
    for member in members:
        fold_sum = np.zeros((len(ids), len(task.settings.target_columns)))
        for count, fold in enumerate(member.folds, start=1):
            fold_sum += _predict_fold(member, fold, settings)
            mean = np.mean([*run_means, fold_sum / count], axis=0)
            frame = make_submission(
                sample,
                ids=ids,
                columns=task.settings.target_columns,
                predictions=task.clip(mean),
            )
            write_submission(
                frame,
                path,
                sample,
                lowest=task.settings.target_min,
                highest=task.settings.target_max,
            )
        run_means.append(fold_sum / len(member.folds))
    return path


def _folds_by_run(runs: Sequence[Run]) -> list[dict[int, Run]]:
    """The folds of each different run, every fold once, however many sessions of it are there."""
    by_id: dict[str, dict[int, Run]] = {}
    for run in runs:
        folds = by_id.setdefault(run.id, {})
        for fold in run.finished_folds():
            if fold in folds:
                print(f"{run.folder}: fold {fold} is also in {folds[fold].folder}; taken once")
            folds.setdefault(fold, run)
    return [dict(sorted(folds.items())) for folds in by_id.values()]


def _make_member(folds: dict[int, Run], test: Any) -> Member:
    run = next(iter(folds.values()))
    task = task_of(run)
    tokenizer = load_tokenizer(run.folder / TOKENIZER)
    found, written = token_fingerprint(tokenizer), run.record["identity"]["tokens"]
    if found != written:
        raise ArtifactError(
            f"the tokenizer in {run.folder / TOKENIZER} gives other ids (fingerprint {found}) than "
            f"in training ({written}): altered, or read differently by this version of tokenizers."
        )
    return Member(folds, task, task.encode(test, tokenizer), int(tokenizer.pad_token_id))


def _check_columns(members: Sequence[Member]) -> None:
    first = members[0]
    for member in members[1:]:
        if member.task.settings.target_columns != first.task.settings.target_columns:
            raise ArtifactError(
                f"one run predicts {', '.join(first.task.settings.target_columns)}, another "
                f"{', '.join(member.task.settings.target_columns)}: they cannot be averaged."
            )


def _predict_fold(member: Member, fold: int, settings: InferenceSettings) -> NDArray[np.float32]:
    """One fold's clipped predictions for all rows, ``(rows, columns)``."""
    run = member.folds[fold]
    folder = run.fold_folder(fold)
    device = pick_device()
    model = member.task.empty_model(folder)
    load_weights(model, folder / WEIGHTS)
    model.to(device)
    batches = -(-len(member.examples) // settings.batch_size)
    with progress_bar(batches, f"{run.folder.name} fold {fold}") as bar:
        predictions = predict(
            model,
            member.examples,
            pad_id=member.pad_id,
            batch_size=settings.batch_size,
            device=device,
            precision=pick_precision(settings.precision, device),
            bar=bar,
        )
    del model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return member.task.clip(predictions)
