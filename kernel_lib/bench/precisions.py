"""One model's predictions in every precision: how quick, and how far from float32's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from kernel_lib.artifacts import OOF, TOKENIZER, WEIGHTS, load_weights, open_run
from kernel_lib.bench.essays import shaped_job
from kernel_lib.bench.meters import timed
from kernel_lib.bench.models import build_model, switch_attention
from kernel_lib.bench.settings import BenchSettings
from kernel_lib.bench.ways import FAST, STOCK
from kernel_lib.errors import ArtifactError
from kernel_lib.model.attention import use_fast_attention
from kernel_lib.results.members import task_of
from kernel_lib.runtime.device import Precision, keep_freed_memory, pick_precision
from kernel_lib.tasks.registry import restore_task
from kernel_lib.text.batches import Example
from kernel_lib.text.tokenizer import load_tokenizer
from kernel_lib.training.prediction import predict

INT8 = "int8"
ROUNDS = 3


@dataclass(frozen=True)
class Subject:
    """A model and the texts it predicts.

    Attributes:
        name: for titles.
        model: float32.
        examples: with targets.
        pad_id: the padding id.
        score: of predictions for the examples; None where the weights are random.
    """

    name: str
    model: Any
    examples: list[Example]
    pad_id: int
    score: Callable[[NDArray[np.float32]], float] | None = None


@dataclass(frozen=True)
class Variant:
    """A way to compute the same predictions.

    Attributes:
        name: in table and results.
        model: the subject's, or a quantised copy.
        attention: ``stock`` or ``fast``.
        precision: of the autocast.
    """

    name: str
    model: Any
    attention: str
    precision: str


def measure_precisions(settings: BenchSettings) -> dict[str, Any]:
    """Predicts the same texts in every precision, in turn, several rounds.

    Args:
        settings: ``run`` names a finished run, whose first finished fold's own validation rows are
            predicted and scored; without it the encoder has random weights.

    Returns:
        ``name``, ``rows``, ``tokens``, ``deviation`` of the predictions, and ``variants``: of each
        its ``seconds``, the ``largest`` and ``mean`` difference of a prediction from the first
        (transformers' own attention in float32), and ``score``, None with random weights.

    Raises:
        ArtifactError: the run has no finished fold, or its files are not as they were.
        DataError: the run's training data are not at hand.
    """
    keep_freed_memory()
    device = torch.device(settings.device)
    subject = _subject_of_run(settings) if settings.run else _random_subject(settings)
    variants = _variants(subject.model.to(device).eval(), device)
    outputs: dict[str, NDArray[np.float32]] = {}
    seconds: dict[str, list[float]] = {variant.name: [] for variant in variants}

    def compute(variant: Variant) -> None:
        outputs[variant.name] = predict(
            variant.model,
            subject.examples,
            pad_id=subject.pad_id,
            batch_tokens=settings.eval_batch_size * settings.cap,
            device=device,
            precision=Precision(variant.precision, device.type),
        )

    for round_number in range(-1, ROUNDS):  # the first is a warm-up
        for variant in variants:
            switch_attention(variant.model.backbone, variant.attention)
            took = timed(lambda variant=variant: compute(variant), device)  # type: ignore[misc]
            if round_number >= 0:
                seconds[variant.name].append(took)
    base = outputs[variants[0].name]
    return {
        "name": subject.name,
        "rows": len(subject.examples),
        "tokens": sum(len(example.input_ids) for example in subject.examples),
        "deviation": float(base.std(axis=0).mean()),
        "variants": {
            name: {
                "seconds": min(seconds[name]),
                "all_seconds": seconds[name],
                "largest": float(np.abs(output - base).max()),
                "mean": float(np.abs(output - base).mean()),
                "score": subject.score(output) if subject.score else None,
            }
            for name, output in outputs.items()
        },
    }


def _variants(model: Any, device: torch.device) -> list[Variant]:
    auto = pick_precision("auto", device).name
    attentions = [STOCK, FAST] if use_fast_attention(model.backbone) else [STOCK]
    found = [
        Variant(f"{precision}, {attention} attention", model, attention, precision)
        for precision in dict.fromkeys(("float32", auto))
        for attention in attentions
    ]
    if device.type == "cpu":
        quantised = quantise(model)
        found += [
            Variant(f"{INT8} weights, {attention} attention", quantised, attention, "float32")
            for attention in attentions
        ]
    return found


def quantise(model: Any) -> Any:
    """A copy whose encoder's linear layers multiply 8-bit integers: weights rounded once, a scale
    for each of their rows, activations at each batch, one scale for all; for CPUs."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    copied = copy.deepcopy(model)
    switch_attention(copied.backbone, STOCK)
    with warnings.catch_warnings():  # deprecated for torchao, which would be one package more
        warnings.simplefilter("ignore")
        copied.backbone = quantize_dynamic(
            copied.backbone, {nn.Linear: per_channel_dynamic_qconfig}, dtype=torch.qint8
        )
    return copied


def _random_subject(settings: BenchSettings) -> Subject:
    job = shaped_job(settings)
    ranked = sorted(job.examples, key=lambda example: len(example.input_ids))
    places = np.linspace(0, len(ranked) - 1, settings.precision_rows).astype(int)
    model = build_model(job, attention=STOCK, seed=settings.seed)
    return Subject(job.name, model, [ranked[place] for place in places], job.pad_id)


def _subject_of_run(settings: BenchSettings) -> Subject:
    """A fold's model with that fold's own validation rows, which it has not learned from."""
    run = open_run(Path(settings.run))
    if not run.finished_folds():
        raise ArtifactError(f"RUN={settings.run} has no finished fold: there are no weights.")
    fold = run.finished_folds()[0]
    folder = run.fold_folder(fold)
    task = task_of(run)
    if settings.data:
        changed = task.settings.replace(data_dir=settings.data)
        task = restore_task({**run.record, "settings": changed.to_dict()})
    frame = task.read_train()
    ids = pd.read_csv(folder / OOF, dtype=str, keep_default_na=False).iloc[:, 0]
    valid = frame[frame[ids.name].isin(set(ids))].head(settings.run_rows)
    tokenizer = load_tokenizer(run.folder / TOKENIZER)
    examples = task.cut(task.encode(valid, tokenizer), training=False)
    model = task.empty_model(folder)
    load_weights(model, folder / WEIGHTS)

    def score(predictions: NDArray[np.float32]) -> float:
        return task.scores(task.oof_frame(examples, predictions))[task.score_name]

    name = f"{run.folder.name}, fold {fold}, {len(examples)} of its validation rows"
    return Subject(name, model, examples, int(tokenizer.pad_token_id), score)
