"""All folds of a run on frozen features: the features once, then a fit a fold, each saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel_lib.artifacts import OOF, WEIGHTS, Run, finish_fold, read_manifest
from kernel_lib.model.row_models import RowModel
from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.runtime.device import keep_freed_memory, pick_device, pick_precision
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.tasks.feature_fits import Features, predict_rows
from kernel_lib.tasks.features import FeatureTask
from kernel_lib.text.batches import Example
from kernel_lib.training.forecast import GO_ON
from kernel_lib.training.prediction import TimeIsUp
from kernel_lib.training.record import open_or_begin_with, with_scores


def cross_validate_features(
    task: FeatureTask,
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    *,
    clock: Clock | None = None,
) -> Run:
    """Fits the wanted folds that are not finished yet; run it again to go on where it stopped.

    Finished folds are kept between sessions, features are not.

    Args:
        task: with the settings.
        examples: all rows, with targets.
        folds: the fold of each row, ``(rows,)``: those of the fine-tuned runs, if the seed is.
        clock: the time budget; by default it begins now.

    Returns:
        The run, its record filled with the scores so far.

    Raises:
        ArtifactError: ``output_dir`` holds a run of other settings or data.
        KernelLibError: whatever is wrong with settings, encoders or disk.
    """
    settings = task.settings
    clock = clock or Clock(settings.time_budget_seconds)
    task.open_encoders()
    tokens, weights = task.fingerprints()
    run = open_or_begin_with(
        task,
        examples,
        folds,
        tokens=tokens,
        backbone=weights,
        save_tokenizers=task.save_tokenizers,
    )
    keep_freed_memory()
    device = pick_device()
    print(f"run {run.id} in {run.folder}  device {device}  method {settings.method}")
    if settings.names_without_effect:
        print(f"without effect on frozen features: {', '.join(settings.names_without_effect)}")
    waiting = [fold for fold in settings.wanted_folds if not _is_finished(run, fold, task)]
    began = time.monotonic()
    try:
        if waiting:
            features = task.features(
                examples, device=device, batch_tokens=settings.eval_batch_tokens, clock=clock
            )
            shared = (time.monotonic() - began) / len(waiting)
            print(f"features of {len(features):,} texts: {_described(features)}")
            precision = pick_precision(settings.precision, device).name
            work = _Folds(task, run, examples, folds, features, shared, precision)
            work.fit(waiting, clock)
    except TimeIsUp:
        print(
            f"folds {', '.join(map(str, waiting))}: not begun, the time budget is used up; run "
            "again with more time"
        )
    return with_scores(task, run)


def _is_finished(run: Run, fold: int, task: FeatureTask) -> bool:
    """Whether it needs no fit; says so."""
    if fold not in run.finished_folds():
        return False
    manifest = read_manifest(run, fold, check=(WEIGHTS, OOF))
    print(f"fold {fold}: finished before, {task.score_name} {manifest['score']:.4f}")
    return True


def _described(features: Features) -> str:
    parts = [f"{features.dense.shape[1] - features.counted:,} of encoders"]
    parts += [f"{features.counted} counted"]
    if features.counts is not None:
        parts[0] = f"{len(features.counts.names):,} different n-grams"
    return ", ".join(parts)


class _Folds:
    """Fits folds and saves them.

    Args:
        task, run, examples, folds: of the run.
        features: of all examples.
        shared_seconds: a fold's share of what the features took.
        precision: that the encoders computed in.
    """

    def __init__(
        self,
        task: FeatureTask,
        run: Run,
        examples: Sequence[Example],
        folds: NDArray[np.int64],
        features: Features,
        shared_seconds: float,
        precision: str,
    ) -> None:
        self._task, self._run, self._examples, self._folds = task, run, examples, folds
        self._features, self._shared, self._precision = features, shared_seconds, precision

    def fit(self, waiting: Sequence[int], clock: Clock) -> None:
        """One after the other, as long as the clock holds another like the longest so far."""
        longest = 0.0
        with progress_bar(len(waiting), "fit", unit="fold") as bar:
            for fold in waiting:
                if not clock.allows(longest):
                    left = format_seconds(max(0.0, clock.left_seconds))
                    bar.write(f"fold {fold}: not begun, {left} are left; {GO_ON}")
                    return
                began = time.monotonic()
                score = self._fit(fold)
                longest = max(longest, time.monotonic() - began)
                bar.write(f"fold {fold}: {self._task.score_name} {score:.4f}")
                bar.update()

    def _fit(self, fold: int) -> float:
        began = time.monotonic()
        task, rows = self._task, np.flatnonzero(self._folds == fold)
        model = task.fit(self._features, self._examples, np.flatnonzero(self._folds != fold))
        predictions = predict_rows(model, self._features, rows).astype(np.float32)
        oof = task.oof_frame([self._examples[row] for row in rows.tolist()], predictions)
        scores = task.scores(oof)
        oof.insert(1, "fold", fold)
        self._save(fold, model, oof, scores, self._shared + time.monotonic() - began)
        return scores[task.score_name]

    def _save(
        self, fold: int, model: RowModel, oof: Any, scores: dict[str, float], seconds: float
    ) -> None:
        name = self._task.score_name
        finish_fold(
            self._run,
            fold,
            model=model,
            backbone_config=model.config,
            oof=oof,
            log="",
            summary={
                "score_name": name,
                "score": scores[name],
                "scores": scores,
                "rows": len(oof),
                "epoch": 0.0,
                "seconds": round(seconds, 1),
                "precision": self._precision,
            },
        )
