"""The run folder: what training leaves, what a weights dataset holds, what inference reads.

    run.json      settings, versions, fingerprints, scores, seconds
    folds.csv     id, fold
    oof.csv       id, fold, and what the task predicted: true_<target>, pred_<target>, or texts
    tokenizer/    tokenizer.json and its config, built at training time
    fold0/        model.safetensors, config.json, oof.csv, log.jsonl, and last of all manifest.json
    report.html

Every file is written whole or not at all. A fold is finished when its manifest is there; the
manifest names the run the weights belong to and their SHA-256. Nothing is pickled.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.files import (
    csv_engine,
    read_json,
    replacing,
    sha256,
    write_json,
    write_text,
)

WEIGHTS, CONFIG, MANIFEST, OOF, LOG = (
    "model.safetensors",
    "config.json",
    "manifest.json",
    "oof.csv",
    "log.jsonl",
)
RUN_RECORD = "run.json"
TOKENIZER = "tokenizer"
FORMAT = 1


@dataclass(frozen=True)
class Run:
    """A run folder and its record.

    Attributes:
        folder: where it stands.
        record: the content of ``run.json``.
    """

    folder: Path
    record: dict[str, Any]

    @property
    def id(self) -> str:
        """Identifies settings, data, tokenizer and backbone: equal ids, equal computation."""
        return str(self.record["run_id"])

    def fold_folder(self, fold: int) -> Path:
        """Where a fold's files stand."""
        return self.folder / f"fold{fold}"

    def finished_models(self) -> list[int]:
        """The folds whose manifest is there, in order; last the model of all rows, if it is."""
        found = self.folder.glob(f"fold*/{MANIFEST}")
        numbers = (path.parent.name.removeprefix("fold") for path in found)
        return sorted(int(number) for number in numbers if number.isdecimal())

    def finished_folds(self) -> list[int]:
        """Those of them that were scored on rows they had not seen: all but the model of all rows,
        whose number is ``n_folds``."""
        all_rows = self.record["settings"].get("n_folds")
        return [fold for fold in self.finished_models() if fold != all_rows]


def open_run(folder: Path) -> Run:
    """Reads a run folder's record.

    Raises:
        ArtifactError: it is no run folder, or one of a newer layout.
    """
    record = read_json(folder / RUN_RECORD)
    if not _is_record(record):
        raise ArtifactError(
            f"{folder / RUN_RECORD} is not a record this version reads (format {FORMAT}). "
            "Use the kernel_lib that wrote it."
        )
    return Run(folder, record)


def _is_record(record: Any) -> bool:
    """Whether everything that is read from ``run.json`` is of the type it was written with."""

    def is_number(value: Any) -> bool:
        return isinstance(value, float | int)

    needed = {"run_id": str, "task": str, "settings": dict, "identity": dict, "folds": list}
    optional = {"pooled": dict, "target_means": list, "versions": dict, "full_data": list}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return False
    if any(not isinstance(record.get(name), kind) for name, kind in needed.items()):
        return False
    if any(not isinstance(record.get(name, kind()), kind) for name, kind in optional.items()):
        return False
    scores = record.get("pooled", {}).get("scores", {})
    entries = [*record["folds"], *record.get("full_data", [])]
    return (
        all(isinstance(entry, dict) and is_number(entry.get("fold")) for entry in entries)
        and isinstance(scores, dict)
        and all(map(is_number, (*scores.values(), *record.get("target_means", []))))
    )


def save_record(run: Run) -> None:
    """Writes ``run.json``."""
    write_json(run.folder / RUN_RECORD, run.record)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes a table atomically; floats so that reading them gives the same float back, and texts
    in quotes where they hold line ends of any kind."""
    texts = frame.select_dtypes(exclude="number")
    returns = any(texts[name].astype(str).str.contains("\r").any() for name in texts)
    quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
    write_text(path, frame.to_csv(index=False, lineterminator="\n", quoting=quoting))


def save_tensors(
    tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Writes a safetensors file atomically. Raises ArtifactError when the disk is full."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # its own class, also for a full disk
            raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Reads a safetensors file. Raises ArtifactError when it is missing or damaged."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Copy the whole run folder.") from None
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}). Copy it again.") from None


def finish_fold(
    run: Run,
    fold: int,
    *,
    model: nn.Module,
    backbone_config: dict[str, Any],
    oof: pd.DataFrame,
    log: str,
    summary: dict[str, Any],
) -> None:
    """Writes all files of a fold; the manifest comes last and makes it count.

    Args:
        run: the run.
        fold: its number.
        model: whose weights are kept.
        backbone_config: the encoder's configuration.
        oof: this fold's out-of-fold predictions, with ids.
        log: lines of JSON, one an evaluation.
        summary: score, epoch, seconds, for the manifest.
    """
    folder = run.fold_folder(fold)
    save_tensors(model.state_dict(), folder / WEIGHTS)
    write_json(folder / CONFIG, backbone_config)
    write_csv(oof, folder / OOF)
    write_text(folder / LOG, log)
    manifest = {
        "run_id": run.id,
        "fold": fold,
        "sha256": {name: sha256(folder / name) for name in (WEIGHTS, CONFIG, OOF)},
        **summary,
    }
    write_json(folder / MANIFEST, manifest)


def read_manifest(run: Run, fold: int, *, check: tuple[str, ...] = ()) -> dict[str, Any]:
    """A finished fold's manifest, checked against the run and, by hash, against some of its files.

    Args:
        run: the run.
        fold: its number.
        check: names of files whose SHA-256 is compared.

    Raises:
        ArtifactError: the fold is missing or of another run, or a file is missing or altered.
    """
    folder = run.fold_folder(fold)
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("sha256"), dict):
        raise ArtifactError(f"{folder / MANIFEST} is not a manifest: damaged? Copy it again.")
    if manifest.get("run_id") != run.id:
        raise ArtifactError(
            f"{folder} belongs to run {manifest.get('run_id')}, not to {run.id} beside it: other "
            "settings, data or backbone. Keep each run's folders together."
        )
    if manifest.get("fold") != fold:
        raise ArtifactError(
            f"{folder} holds fold {manifest.get('fold')}: a folder was renamed or copied over "
            "another. Copy the run folder again."
        )
    for name in check:
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder / name} is missing. Copy the whole fold folder.")
        found, written = sha256(folder / name), str(manifest["sha256"].get(name))
        if found != written:
            raise ArtifactError(
                f"{folder / name} is not the file that training wrote (SHA-256 {found[:12]}..., "
                f"written {written[:12]}...): truncated or altered. Copy it again."
            )
    return manifest


def load_weights(model: nn.Module, path: Path) -> None:
    """Puts a file's weights into a model, strictly and as float32.

    Raises:
        ArtifactError: the file is damaged, or a tensor is missing, unexpected or of another shape.
    """
    try:
        model.load_state_dict(read_tensors(path), strict=True)
    except RuntimeError as error:
        raise ArtifactError(f"{path} does not fit the model: {error}") from None


def read_oof(run: Run, fold: int) -> pd.DataFrame:
    """A finished fold's out-of-fold predictions: text as it was, floats exactly as written."""
    read_manifest(run, fold, check=(OOF,))
    path = run.fold_folder(fold) / OOF
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, engine=csv_engine(path))
    _, fold_column, *values = frame.columns
    frame[fold_column] = frame[fold_column].map(int)
    for name in (name for name in values if name.startswith(("true_", "pred_"))):
        frame[name] = frame[name].map(float)  # python's float, since pandas' reader may round
    return frame
