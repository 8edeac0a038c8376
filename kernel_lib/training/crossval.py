"""All folds of a run: one after the other, each saved as it ends, resumed where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from kernel_lib.artifacts import OOF, WEIGHTS, Run, finish_fold, read_manifest
from kernel_lib.config import TrainingSettings
from kernel_lib.model.location import find_backbone
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import (
    keep_freed_memory,
    pick_device,
    pick_precision,
    seed_everything,
)
from kernel_lib.text.batches import Example
from kernel_lib.training.forecast import GO_ON, reason_not_to_begin
from kernel_lib.training.loop import FoldTrainer
from kernel_lib.training.memory import release_memory
from kernel_lib.training.optimizer import groups_table
from kernel_lib.training.record import open_or_begin, with_scores
from kernel_lib.training.state import RESUME, read_progress
from kernel_lib.training.task import FoldResult, Machine, Task
from kernel_lib.training.tracking import make_tracker


def cross_validate(
    task: Task,
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerFast,
    *,
    clock: Clock | None = None,
) -> Run:
    """Trains the wanted folds that are not finished yet; run it again to go on where it stopped.

    A fold that does not fit in what is left of the time budget is not begun, going by what the
    folds before it took; one that turns out not to fit is stopped in time, with its state saved.

    Args:
        task: with the settings.
        examples: all rows, with targets.
        folds: the fold of each row, ``(rows,)``.
        tokenizer: that made the examples; saved with the run.
        clock: the time budget; by default it begins now.

    Returns:
        The run, its record filled with the scores so far.

    Raises:
        ArtifactError: ``output_dir`` holds a run of other settings or data.
        KernelLibError: whatever is wrong with settings, backbone or disk.
    """
    settings = task.settings
    clock = clock or Clock(settings.time_budget_seconds)
    keep_freed_memory()
    device = pick_device()
    machine = Machine(device, pick_precision(settings.precision, device), clock)
    backbone = find_backbone(settings.backbone)
    run = open_or_begin(task, examples, folds, tokenizer, backbone)
    print(f"run {run.id} in {run.folder}  device {device}  precision {machine.precision.name}")
    tracker = make_tracker(settings.wandb, name=run.id, settings=settings.to_dict())
    longest_seconds = 0.0
    for fold in settings.wanted_folds:
        if fold in run.finished_folds():
            manifest = read_manifest(run, fold, check=(WEIGHTS, OOF))
            print(f"fold {fold}: finished before, {task.score_name} {manifest['score']:.4f}")
            continue
        train = [e for e, at in zip(examples, folds, strict=True) if at != fold]
        reason = reason_not_to_begin(
            run,
            read_progress(run.fold_folder(fold) / RESUME, run.id),
            batches_per_epoch=-(-len(train) // settings.batch_size),
            epochs=settings.epochs,
            longest_seconds=longest_seconds,
            clock=clock,
        )
        if reason:
            print(f"fold {fold}: not begun, {reason}; {GO_ON}")
            break
        seed_everything(settings.seed + fold)
        model = task.build_model(backbone, tokenizer, train)
        trainer = FoldTrainer(
            task,
            model,
            run=run,
            fold=fold,
            train=train,
            valid=[e for e, at in zip(examples, folds, strict=True) if at == fold],
            pad_id=int(tokenizer.pad_token_id),
            machine=machine,
            tracker=tracker,
            folds_to_finish=0 if longest_seconds else _count_unfinished(run, settings),
        )
        if fold == settings.wanted_folds[0]:
            print(groups_table(trainer.groups))
        result = trainer.train()
        if result is None:
            break
        _save_fold(task, run, fold, trainer, result)
        longest_seconds = max(longest_seconds, result.seconds)
        run = with_scores(task, run)
        del model, trainer, result
        release_memory(device)
    tracker.finish()
    return with_scores(task, run)


def _count_unfinished(run: Run, settings: TrainingSettings) -> int:
    return len(set(settings.wanted_folds) - set(run.finished_folds()))


def _save_fold(task: Task, run: Run, fold: int, trainer: FoldTrainer, result: FoldResult) -> None:
    backbone: Any = trainer.model.backbone
    summary: dict[str, Any] = {
        "score_name": task.score_name,
        "score": result.scores[task.score_name],
        "scores": result.scores,
        "rows": len(result.oof),
        "epoch": result.epoch,
        "seconds": round(result.seconds, 1),
        "precision": trainer.machine.precision.name,
    }
    oof = result.oof.copy()
    oof.insert(1, "fold", fold)
    finish_fold(
        run,
        fold,
        model=trainer.model,
        backbone_config=json.loads(backbone.config.to_json_string(use_diff=False)),
        oof=oof,
        log="".join(json.dumps(record) + "\n" for record in result.history),
        summary=summary,
    )
    trainer.resume_path.unlink(missing_ok=True)
