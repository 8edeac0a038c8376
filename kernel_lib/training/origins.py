"""What a run begins with besides true rows and a backbone: soft labels, or weights of another run.

Both were made by other models. A fold's must come of models that never saw the rows that the fold
is validated on, or its score is worth nothing: so whatever was made with other folds is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from kernel_lib.artifacts import (
    CONFIG,
    RUN_RECORD,
    WEIGHTS,
    Run,
    load_weights,
    open_run,
    read_manifest,
)
from kernel_lib.config import TrainingSettings
from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.model.mixout import MixoutLinear
from kernel_lib.runtime.files import csv_engine
from kernel_lib.runtime.paths import input_folders, input_root
from kernel_lib.text.batches import Example
from kernel_lib.text.tables import listed
from kernel_lib.training.task import Task

FOLDS = "folds.csv"
ALIKE = ("pooling", "pooling_layers", "target_columns")  # strict loading does not see them all


@dataclass(frozen=True)
class SoftRows:
    """Rows with soft labels, to be trained on instead of true rows.

    Attributes:
        by_fold: what each fold learns from; its labels come of models that never saw that fold.
        folds: the fold of each true row, by id, as those models had them.
        source: where the rows stand.
    """

    by_fold: dict[int, list[Example]]
    folds: dict[str, int]
    source: Path

    def of_fold(self, fold: int) -> list[Example]:
        """What a fold learns from; for the model of all rows the mean of the folds' labels."""
        if fold in self.by_fold:
            return self.by_fold[fold]
        same: dict[str, list[Example]] = {}
        for number in sorted(self.by_fold):
            for example in self.by_fold[number]:
                same.setdefault(example.id, []).append(example)
        return [_with_mean_target(examples, row) for row, examples in enumerate(same.values())]

    def check(self, folds: dict[str, int], n_folds: int) -> None:
        """Raises DataError when a fold has no soft labels, or some that know its true ones."""
        try:
            check_same_folds(folds, self.folds, str(self.source))
        except ArtifactError as error:
            raise DataError(str(error)) from None
        missing = sorted(set(range(n_folds)) - self.by_fold.keys())
        if missing:
            raise DataError(f"{self.source} has no soft labels for fold {listed(missing)}.")
        for fold, examples in self.by_fold.items():
            known = [example.id for example in examples if folds.get(example.id) == fold]
            if known:
                raise DataError(
                    f"{self.source}: fold {fold} would learn from rows that it is validated on: "
                    f"{listed(known)}. Make the soft labels again."
                )


@dataclass(frozen=True)
class Origins:
    """What a run begins with.

    Attributes:
        soft: what is learned from instead of true rows; None: the true rows.
        start: whose folds' weights the folds begin with; None: the backbone, and a new head.
    """

    soft: SoftRows | None = None
    start: Run | None = None

    def check(
        self, identity: dict[str, Any], folds: dict[str, int], settings: TrainingSettings
    ) -> None:
        """Refuses what does not fit the run, and what would leak.

        Args:
            identity: of the run, with task, tokens and backbone.
            folds: of each true row, by id.
            settings: of the run.

        Raises:
            ArtifactError: ``start`` is of other folds, tokens, backbone or head, or not finished.
            DataError: the soft labels are of other folds.
        """
        if self.soft is not None:
            self.soft.check(folds, settings.n_folds)
        if self.start is not None:
            _check_start(self.start, identity, folds, settings)

    def start_fingerprint(self, n_folds: int) -> dict[str, Any]:
        """Which weights the folds begin with: that run's id, and their hashes.

        Those of a model of all rows are left out: a run may be given one later on.
        """
        assert self.start is not None
        manifests = [read_manifest(self.start, fold) for fold in range(n_folds)]
        hashes = [str(manifest["sha256"].get(WEIGHTS)) for manifest in manifests]
        return {"run": self.start.id, "weights": hashes}

    def train_rows(
        self, examples: Sequence[Example], folds: NDArray[np.int64], fold: int
    ) -> list[Example]:
        """What a fold learns from; one that no row is of learns from all of them."""
        if self.soft is not None:
            return self.soft.of_fold(fold)
        return [e for e, at in zip(examples, folds, strict=True) if at != fold]

    def put_weights(self, model: nn.Module, fold: int) -> None:
        """Puts the weights that a fold begins with into the model; without ``start`` none.

        They take the part of the pretrained ones in everything: Mixout draws towards them, too.

        Raises:
            ArtifactError: they are missing or altered, or do not fit the model.
        """
        if self.start is not None:
            read_manifest(self.start, fold, check=(WEIGHTS, CONFIG))
            load_weights(model, self.start.fold_folder(fold) / WEIGHTS)
            for module in model.modules():
                if isinstance(module, MixoutLinear):
                    module.pretrained.copy_(module.weight.detach())


def find_origins(task: Task, tokenizer: PreTrainedTokenizerBase) -> Origins:
    """What the settings ask for. Raises ArtifactError, DataError when it is missing or damaged."""
    start = task.first_weights()
    return Origins(
        soft=task.soft_rows(tokenizer),
        start=open_run(find_input(start, RUN_RECORD, "init_from")) if start else None,
    )


def find_input(given: str, file: str, name: str) -> Path:
    """A folder that was made elsewhere.

    Args:
        given: its path, or the name of a folder anywhere under the inputs.
        file: that stands in it, or in a folder inside it.
        name: of the setting, for the message.

    Raises:
        ArtifactError: there is none, or several.
    """
    if (Path(given) / file).is_file():
        return Path(given)
    wanted = Path(given).name
    found = [
        folder
        for folder in input_folders()
        if wanted in folder.relative_to(input_root()).parts and (folder / file).is_file()
    ]
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        raise ArtifactError(f"{name}={given!r} fits several folders: {listed(found)}.")
    raise ArtifactError(
        f"{name}={given!r}: no folder of that name here or under {input_root()} holds {file}. "
        "Attach it as an input, or give its path."
    )


def read_folds(run: Run) -> dict[str, int]:
    """The fold of each training row of a run, by id. Raises ArtifactError for a damaged file."""
    path = run.folder / FOLDS
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, engine=csv_engine(path))
        return dict(zip(frame["id"], frame["fold"].map(int), strict=True))
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing. Copy the whole run folder.") from None
    except (ValueError, KeyError) as error:
        raise ArtifactError(f"{path} is damaged ({error}). Copy it again.") from None


def folds_by_id(examples: Sequence[Example], folds: NDArray[np.int64]) -> dict[str, int]:
    """The fold of each text, by id."""
    pairs = zip(examples, folds, strict=True)
    return {example.id: int(fold) for example, fold in pairs if not example.start}


def check_same_folds(folds: dict[str, int], theirs: dict[str, int], where: str) -> None:
    """Raises ArtifactError, which says what differs, unless both put each row in the same fold."""
    if folds == theirs:
        return
    moved = [row for row in folds.keys() & theirs.keys() if folds[row] != theirs[row]]
    others = len(folds.keys() ^ theirs.keys())
    raise ArtifactError(
        f"{where} was made with other folds: of {len(folds)} rows {len(moved)} are in another fold "
        f"there, and {others} are in one of the two only. Its models have seen rows that a fold is "
        "validated on here. Use the same rows, n_folds, fold_scheme and seed for both."
    )


def _check_start(
    start: Run, identity: dict[str, Any], folds: dict[str, int], settings: TrainingSettings
) -> None:
    theirs, where = start.record["identity"], f"init_from: {start.folder}"
    check_same_folds(folds, read_folds(start), where)
    for key, what in (("task", "task"), ("tokens", "tokenizer"), ("backbone", "backbone")):
        if theirs.get(key) != identity[key]:
            raise ArtifactError(
                f"{where} is of another {what} ({theirs.get(key)}, here {identity[key]}): its "
                "weights mean something else. Train both runs with the same one."
            )
    here = json.loads(json.dumps(settings.to_dict()))
    there = json.loads(json.dumps(start.record["settings"]))
    for name in ALIKE:
        if name in here and there.get(name) != here[name]:
            raise ArtifactError(
                f"{where} was trained with {name}={there.get(name)!r}, this run has {here[name]!r}:"
                " its weights do not fit. Set both alike."
            )
    needed = [*range(settings.n_folds), *settings.wanted_models]
    missing = sorted(set(needed) - set(start.finished_models()))
    if missing:
        raise ArtifactError(
            f"{where} has no finished fold {listed(missing)}, which this run is to begin with. "
            "Train it, or join the folds of several notebooks (make merge)."
        )


def _with_mean_target(examples: Sequence[Example], row: int) -> Example:
    targets = np.stack([e.target for e in examples if e.target is not None])
    mean: NDArray[np.float32] = targets.mean(axis=0, dtype=np.float64).astype(np.float32)
    return replace(examples[0], target=mean, row=row)
