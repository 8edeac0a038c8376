"""All folds of a run: one after the other, each saved as it ends, resumed where it stopped."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from kernel_lib import __version__
from kernel_lib.artifacts import (
    FORMAT,
    OOF,
    RUN_RECORD,
    TOKENIZER,
    WEIGHTS,
    Run,
    finish_fold,
    open_run,
    read_manifest,
    read_oof,
    save_record,
    write_csv,
)
from kernel_lib.config import digest
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.model.backbone import find_backbone
from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.runtime.device import (
    keep_freed_memory,
    pick_device,
    pick_precision,
    seed_everything,
    versions,
)
from kernel_lib.runtime.files import sha256
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import save_tokenizer, token_fingerprint
from kernel_lib.training.loop import FoldResult, FoldTrainer, Machine, Task
from kernel_lib.training.optimizer import groups_table
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
    run = _open_or_begin(task, examples, folds, tokenizer, backbone)
    print(f"run {run.id} in {run.folder}  device {device}  precision {machine.precision.name}")
    tracker = make_tracker(settings.wandb, name=run.id, settings=settings.to_dict())

    for fold in settings.wanted_folds:
        if fold in run.finished_folds():
            manifest = read_manifest(run, fold, check=(WEIGHTS, OOF))
            print(f"fold {fold}: finished before, {task.score_name} {manifest['score']:.4f}")
            continue
        seed_everything(settings.seed + fold)
        train = [e for e, at in zip(examples, folds, strict=True) if at != fold]
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
        )
        if fold == settings.wanted_folds[0]:
            print(groups_table(trainer.groups))
        result = trainer.train()
        if result is None:
            break
        _save_fold(task, run, fold, trainer, result)
        run = _with_scores(task, run)
        del model, trainer, result
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    tracker.finish()
    return _with_scores(task, run)


def score_table(run: Run) -> pd.DataFrame:
    """The finished folds and, last, their pooled out-of-fold predictions; a row each."""
    rows = [
        {
            "fold": entry["fold"],
            "rows": entry["rows"],
            **entry["scores"],
            "time": format_seconds(entry["seconds"]),
        }
        for entry in run.record["folds"]
    ]
    pooled = run.record["pooled"]
    if pooled:
        rows.append(
            {
                "fold": "all",
                "rows": pooled["rows"],
                **pooled["scores"],
                "time": format_seconds(pooled["seconds"]),
            }
        )
    return pd.DataFrame(rows).set_index("fold") if rows else pd.DataFrame()


def examples_fingerprint(examples: Sequence[Example]) -> str:
    """Hash of ids, token ids and targets in order: 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for example in examples:
        target = b"" if example.target is None else example.target.tobytes()
        for part in (example.id.encode(), example.input_ids.tobytes(), target):
            whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]


def _open_or_begin(
    task: Task,
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerFast,
    backbone: Path,
) -> Run:
    settings = task.settings
    folder = Path(settings.output_dir)
    if settings.resume_from and not (folder / RUN_RECORD).exists():
        if not (Path(settings.resume_from) / RUN_RECORD).is_file():
            raise ArtifactError(f"resume_from={settings.resume_from!r} has no {RUN_RECORD}.")
        shutil.copytree(settings.resume_from, folder, dirs_exist_ok=True)
    identity = {
        "task": task.name,
        "settings": json.loads(json.dumps(settings.result_values())),
        "data": examples_fingerprint(examples),
        "tokens": token_fingerprint(tokenizer),
        "folds": digest(folds.tolist()),
        "backbone": _backbone_fingerprint(backbone),
    }
    run_id = digest(identity)
    if (folder / RUN_RECORD).exists():
        run = open_run(folder)
        if run.id != run_id:
            raise ArtifactError(
                f"{folder} holds another run: {_differences(run.record['identity'], identity)}. "
                "Choose another output_dir, or delete this one."
            )
        return run
    if not len(examples):
        raise DataError("there are no rows to train on.")
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(tokenizer, folder / TOKENIZER)
    write_csv(pd.DataFrame({"id": [e.id for e in examples], "fold": folds}), folder / "folds.csv")
    targets = [e.target for e in examples if e.target is not None]
    record: dict[str, Any] = {
        "format": FORMAT,
        "kernel_lib": __version__,
        "run_id": run_id,
        "task": task.name,
        "settings": settings.to_dict(),
        "identity": identity,
        "versions": versions(),
        "rows": len(examples),
        "target_means": np.mean(targets, axis=0, dtype=np.float64).tolist() if targets else [],
        "score_name": task.score_name,
        "folds": [],
        "pooled": {},
    }
    run = Run(folder, record)
    save_record(run)
    return run


def _save_fold(task: Task, run: Run, fold: int, trainer: FoldTrainer, result: FoldResult) -> None:
    backbone: Any = trainer.model.backbone
    summary = {
        "score_name": task.score_name,
        "score": result.scores[task.score_name],
        "scores": result.scores,
        "rows": len(result.oof),
        "epoch": result.history[-1]["epoch"] if result.history else 0,
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


def _with_scores(task: Task, run: Run) -> Run:
    """Rebuilds oof.csv and the record's scores from the finished folds."""
    finished = run.finished_folds()
    manifests = [read_manifest(run, fold) for fold in finished]
    record = dict(run.record)
    keys = ("fold", "rows", "scores", "seconds", "epoch", "precision")
    record["folds"] = [{key: manifest[key] for key in keys} for manifest in manifests]
    if finished:
        oof = pd.concat([read_oof(run, fold) for fold in finished], ignore_index=True)
        write_csv(oof, run.folder / OOF)
        record["pooled"] = {
            "rows": len(oof),
            "scores": task.scores(oof),
            "standard_error": task.standard_error(oof),
            "seconds": sum(manifest["seconds"] for manifest in manifests),
        }
    run = Run(run.folder, record)
    save_record(run)
    return run


def _backbone_fingerprint(folder: Path) -> str:
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin")]
    return digest({path.name: sha256(path) for path in [folder / "config.json", *files]})


def _differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What two identities differ in, the settings by name."""
    parts = [
        f"{name} was {old['settings'].get(name)!r}, is {value!r}"
        for name, value in new["settings"].items()
        if old["settings"].get(name) != value
    ]
    parts += [
        f"other {key}" for key in ("data", "tokens", "folds", "backbone") if old[key] != new[key]
    ]
    return "; ".join(parts) or "another task"
