"""A run with its weights in half precision: half the upload, and what it costs, measured.

    python -m kernel_lib.runs.half build/fb3/run build/fb3/run-half --data <folder of train.csv>

Weights are rounded to float16 and loaded as float32 again, so inference computes as before.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernel_lib.artifacts import (
    CONFIG,
    LOG,
    MANIFEST,
    OOF,
    RUN_RECORD,
    TOKENIZER,
    WEIGHTS,
    Run,
    load_weights,
    open_run,
    read_manifest,
    read_tensors,
    save_tensors,
)
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.results.training_rows import TrainingRows, read_training_rows
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.device import keep_freed_memory, pick_device, pick_precision
from kernel_lib.runtime.files import read_json, sha256, write_json
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.base import PredictingTask
from kernel_lib.tasks.features import FeatureTask
from kernel_lib.text.batches import Example
from kernel_lib.training.passes import predict_in_passes


@dataclass(frozen=True)
class Change:
    """What rounding did to a fold, both scored on this machine.

    Attributes:
        fold: its number.
        before, after: the score with the weights as they were, and rounded.
        largest: of all changes of a prediction.
    """

    fold: int
    before: float
    after: float
    largest: float


def write_half_copy(folder: Path, target: Path, data_dir: str) -> list[Change]:
    """Writes a copy of a run with float16 weights, and measures what that changes.

    Args:
        folder: the run.
        target: where to; must not be there.
        data_dir: folder of the ``train.csv`` it was trained on; the validation rows are scored.

    Returns:
        A change for each finished fold; also written to each manifest as ``half``.

    Raises:
        ArtifactError: the run is damaged or has no finished fold, a weight does not fit float16,
            or ``target`` is there.
        SettingsError: the run is on frozen features.
        DataError: the data are not those of the run.
    """
    run = open_run(folder)
    if not run.finished_models():
        raise ArtifactError(f"{folder} has no finished fold: there are no weights to copy.")
    if target.exists():
        raise ArtifactError(f"{target} is there already. Remove it, or choose another place.")
    if run.record["task"] == FeatureTask.name:
        raise SettingsError(
            f"{folder} is a run on frozen features, whose arrays are small and computed with in "
            "float64: float16 is for fine-tuned weights. Upload it as it is."
        )
    keep_freed_memory()
    rows = read_training_rows(run, data_dir)
    unfinished = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    changes = []
    try:
        for fold in run.finished_models():
            read_manifest(run, fold, check=(WEIGHTS, CONFIG, OOF))
            _copy_fold(run, fold, unfinished)
        for fold in run.finished_folds():
            changes.append(_measure(run, fold, unfinished, rows))
        for name in ("folds.csv", OOF, "report.html", RUN_RECORD):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, unfinished / name)
        shutil.copytree(folder / TOKENIZER, unfinished / TOKENIZER)
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return changes


def _copy_fold(run: Run, fold: int, target: Path) -> None:
    """Writes a fold, or the model of all rows, with its weights rounded."""
    source, copy = run.fold_folder(fold), target / f"fold{fold}"
    tensors = read_tensors(source / WEIGHTS)
    save_tensors(_rounded(tensors, source / WEIGHTS), copy / WEIGHTS)
    for name in (CONFIG, OOF, LOG):
        shutil.copyfile(source / name, copy / name)
    manifest: dict[str, Any] = read_json(source / MANIFEST)
    manifest["sha256"][WEIGHTS] = sha256(copy / WEIGHTS)
    write_json(copy / MANIFEST, manifest)


def _measure(run: Run, fold: int, target: Path, rows: TrainingRows) -> Change:
    """What rounding did to a fold's predictions; noted in the copy's manifest."""
    source, copy = run.fold_folder(fold), target / f"fold{fold}"
    task, valid, pad_id = rows.task, rows.of_fold(fold), rows.pad_id
    before = _predict(task, source, source / WEIGHTS, valid, pad_id, f"fold {fold} as it is")
    after = _predict(task, source, copy / WEIGHTS, valid, pad_id, f"fold {fold} rounded")

    def score(predictions: NDArray[np.float32]) -> float:
        return task.scores(task.oof_frame(valid, predictions))[task.score_name]

    change = Change(fold, score(before), score(after), task.largest_change(before, after))
    manifest: dict[str, Any] = read_json(copy / MANIFEST)
    manifest["half"] = {"before": change.before, "after": change.after, "largest": change.largest}
    write_json(copy / MANIFEST, manifest)
    return change


def _rounded(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    rounded = {}
    for name, tensor in tensors.items():
        rounded[name] = tensor.half() if tensor.is_floating_point() else tensor
        if not torch.isfinite(rounded[name]).all():
            raise ArtifactError(
                f"{path}: {name} holds values beyond float16 (largest "
                f"{float(tensor.abs().max()):.3g}). Keep this run in float32."
            )
    return rounded


def _predict(
    task: PredictingTask, folder: Path, weights: Path, valid: list[Example], pad_id: int, name: str
) -> NDArray[np.float32]:
    model = task.empty_model(folder)
    load_weights(model, weights)
    device = pick_device()
    with progress_bar(len(valid), name, unit="text") as bar:
        return predict_in_passes(
            task,
            model.to(device),
            valid,
            pad_id=pad_id,
            batch_tokens=task.settings.eval_batch_tokens,
            device=device,
            precision=pick_precision(task.settings.precision, device),
            bar=bar,
        )


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Copy a run with its weights in half precision.")
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data", default="", help="folder of train.csv")
    options = parser.parse_args()

    def work() -> None:
        for change in write_half_copy(options.run, options.target, options.data):
            print(
                f"fold {change.fold}: {change.before:.5f} -> {change.after:.5f} "
                f"({change.after - change.before:+.5f}), no prediction moved by more than "
                f"{change.largest:.5f}"
            )
        print(f"half precision: {options.target}")

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
