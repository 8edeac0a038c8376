"""A run's record: what it is made of, so that nothing else is mixed into it, and what it scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from kernel_lib import __version__
from kernel_lib.artifacts import (
    FORMAT,
    OOF,
    RUN_RECORD,
    TOKENIZER,
    Run,
    open_run,
    read_manifest,
    read_oof,
    save_record,
    write_csv,
)
from kernel_lib.config import digest
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.runtime.clock import format_seconds
from kernel_lib.runtime.device import versions
from kernel_lib.runtime.files import sha256
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import save_tokenizer, token_fingerprint
from kernel_lib.training.origins import FOLDS, Origins, SoftRows, find_input, folds_by_id
from kernel_lib.training.sessions import differences, is_temporary, join_sessions
from kernel_lib.training.state import RESUME
from kernel_lib.training.task import Task


def open_or_begin(
    task: Task,
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    tokenizer: PreTrainedTokenizerFast,
    backbone: Path,
    origins: Origins | None = None,
) -> Run:
    """The run in ``output_dir``, or a new one, its record and tokenizer written.

    Args:
        task, examples, folds, tokenizer: as for :func:`cross_validate`.
        backbone: folder of the pretrained encoder.
        origins: soft labels that are learned from instead, weights to begin with.

    Raises:
        ArtifactError: the folder holds a run of other settings or data, or the origins are of
            other folds.
        DataError: there are no examples.
    """
    return open_or_begin_with(
        task,
        examples,
        folds,
        tokens=token_fingerprint(tokenizer),
        backbone=backbone_fingerprint(backbone),
        save_tokenizers=lambda run_folder: save_tokenizer(tokenizer, run_folder / TOKENIZER),
        origins=origins,
    )


def open_or_begin_with(
    task: Task,
    examples: Sequence[Example],
    folds: NDArray[np.int64],
    *,
    tokens: str,
    backbone: str,
    save_tokenizers: Callable[[Path], object],
    origins: Origins | None = None,
) -> Run:
    """As :func:`open_or_begin`, for a run with other than one encoder.

    Args:
        task, examples, folds: as for :func:`open_or_begin`.
        tokens: fingerprint of the tokenizers.
        backbone: fingerprint of the encoders.
        save_tokenizers: writes the tokenizers into a new run's folder.
        origins: as for :func:`open_or_begin`.
    """
    settings = task.settings
    folder = settings.run_folder
    if not len(examples):
        raise DataError("there are no rows to train on.")
    identity = {
        "task": task.name,
        "settings": json.loads(json.dumps(settings.result_values())),
        "data": examples_fingerprint(examples),
        "tokens": tokens,
        "folds": digest(folds.tolist()),
        "backbone": backbone,
    }
    resources = task.resources()
    if resources:
        identity["resources"] = digest(resources)
    origins, by_id = origins or Origins(), folds_by_id(examples, folds)
    origins.check(identity, by_id, settings)
    if origins.soft is not None:
        identity["soft labels"] = _soft_fingerprint(origins.soft)
    if origins.start is not None:
        identity["first weights"] = digest(origins.start_fingerprint(settings.n_folds))
    run_id = digest(identity)
    if settings.resume_from and not (folder / RUN_RECORD).exists():
        earlier = [
            open_run(find_input(session, RUN_RECORD, "resume_from"))
            for session in settings.resume_from
        ]
        for session in earlier:
            _check_same(session, run_id, identity)
        join_sessions(earlier, folder)
    if (folder / RUN_RECORD).exists():
        run = open_run(folder)
        if run.id == run_id or _holds_work(run):
            _check_same(run, run_id, identity)
            _remove_leftovers(run)
            run.record.update(settings=settings.to_dict(), versions=versions())
            return run
    save_tokenizers(folder)
    write_csv(pd.DataFrame(by_id.items(), columns=["id", "fold"]), folder / FOLDS)
    record: dict[str, Any] = {
        "format": FORMAT,
        "kernel_lib": __version__,
        "run_id": run_id,
        "task": task.name,
        "settings": settings.to_dict(),
        "identity": identity,
        "versions": versions(),
        "rows": len(by_id),
        **task.facts(examples),
        "resources": resources,
        "score_name": task.score_name,
        "folds": [],
        "pooled": {},
    }
    run = Run(folder, record)
    _remove_leftovers(run)
    save_record(run)
    return run


def _check_same(run: Run, run_id: str, identity: dict[str, Any]) -> None:
    if run.id != run_id:
        raise ArtifactError(
            f"{run.folder} holds another run: {differences(run.record['identity'], identity)}. "
            "Choose another output_dir, or delete this one."
        )


def _holds_work(run: Run) -> bool:
    """Whether anything was trained; a record alone may be replaced."""
    return bool(run.finished_models()) or any(run.folder.glob(f"fold*/{RESUME}"))


def _remove_leftovers(run: Run) -> None:
    """What a killed session left: half-written files, and states of folds that it finished."""
    for path in run.folder.rglob(".*"):
        if is_temporary(path):
            path.unlink()
    for fold in run.finished_models():
        (run.fold_folder(fold) / RESUME).unlink(missing_ok=True)


def with_scores(task: Task, run: Run) -> Run:
    """The run with ``oof.csv`` and the record's scores rebuilt from its finished folds.

    Args:
        task: scores the pooled predictions.
        run: any number of its folds finished.
    """
    finished = run.finished_folds()
    manifests = [read_manifest(run, fold) for fold in finished]
    record = dict(run.record)
    keys = ("fold", "rows", "scores", "seconds", "epoch", "precision")
    record["folds"] = [
        {**{key: manifest[key] for key in keys}, "cost": manifest.get("cost", {})}
        for manifest in manifests
    ]
    others = [fold for fold in run.finished_models() if fold not in finished]
    record["full_data"] = [_of_all_rows(read_manifest(run, fold)) for fold in others]
    if finished:
        oof = pd.concat([read_oof(run, fold) for fold in finished], ignore_index=True)
        write_csv(oof, run.folder / OOF)
        record["pooled"] = {
            "rows": len(oof),
            "scores": task.scores(oof),
            "standard_error": task.standard_error(oof),
            "seconds": sum(manifest["seconds"] for manifest in manifests),
        }
        record.update(task.tune(oof))
    run = Run(run.folder, record)
    save_record(run)
    return run


def _of_all_rows(manifest: dict[str, Any]) -> dict[str, Any]:
    return {key: manifest[key] for key in ("fold", "seconds", "epoch", "precision")}


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


def score_line(run: Run) -> str:
    """The pooled score in one line, or what to do when no fold is finished yet."""
    pooled = run.record["pooled"]
    if not pooled:
        return "no fold is finished yet: run again to go on, with more time or fewer epochs"
    name = run.record["score_name"]
    score, error = pooled["scores"][name], pooled["standard_error"]
    and_full = "; and a model of all rows, not scored" if run.record.get("full_data") else ""
    return (
        f"CV {name} {score:.4f} ± {error:.4f} (standard error), "
        f"{pooled['rows']:,} rows out of fold, {len(run.record['folds'])} folds, "
        f"{format_seconds(pooled['seconds'])}{and_full}"
    )


def examples_fingerprint(examples: Sequence[Example]) -> str:
    """Hash of ids, token ids and targets in order: 16 hexadecimal digits."""
    whole = hashlib.sha256()
    for example in examples:
        target = b"" if example.target is None else example.target.tobytes()
        ids = example.input_ids.astype(np.int64)  # as earlier releases kept them
        for part in (example.id.encode(), ids.tobytes(), target):
            whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]


def _soft_fingerprint(soft: SoftRows) -> str:
    """Hash of what each fold learns from."""
    return digest(
        [[fold, examples_fingerprint(rows)] for fold, rows in sorted(soft.by_fold.items())]
    )


def backbone_fingerprint(folder: Path) -> str:
    """Hash of an encoder's configuration and weight files: 16 hexadecimal digits."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".bin")]
    return digest({path.name: sha256(path) for path in [folder / "config.json", *files]})
