"""The Trainer of transformers at its quickest: batches of like length, bf16, fused AdamW."""

from __future__ import annotations

import gc
import importlib.util
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler

from kernel_lib.bench.meters import Watch, wait_for
from kernel_lib.bench.models import build_model
from kernel_lib.bench.runner import Rows, Runner, in_batches
from kernel_lib.errors import TrainingError
from kernel_lib.text.batches import Example, collate

NOT_INSTALLED = "not measured: the Trainer needs accelerate (pip install accelerate)"


class TrainerRunner(Runner):
    """Batches as ``group_by_length`` makes them; predictions sorted by hand; no FGM, it has none.

    For prediction the texts are given sorted: asked to group by length, the Trainer returns rows in
    another order than it was given.

    Raises:
        TrainingError: accelerate, which the Trainer cannot do without, is not installed.
    """

    has_fgm = False

    def __init__(self, *arguments: Any) -> None:
        if importlib.util.find_spec("accelerate") is None:
            raise TrainingError(NOT_INSTALLED)
        super().__init__(*arguments)
        self._predictor: Trainer | None = None

    def training_plan(self) -> list[Rows]:
        size = self.settings.batch_size
        generator = torch.Generator().manual_seed(self.settings.seed)
        order = list(LengthGroupedSampler(size, lengths=self.lengths, generator=generator))
        return in_batches(np.array(order), size)

    def inference_plan(self) -> list[Rows]:
        order = np.argsort(-np.array(self.lengths), kind="stable")
        return in_batches(order, self.settings.eval_batch_size)

    def _predict(self, batches: Sequence[Rows]) -> None:
        if self._predictor is None:
            self._predictor = self._make_trainer(self.model, [], self.way.inference_precision)
        self._predictor.predict(self._rows_of(batches))

    def train(self, batches: Sequence[Rows], warm_up: Rows, *, fgm: bool) -> float:
        """Seconds from the end of the first update to the end of the last."""
        if fgm:
            raise TrainingError("the Trainer has no FGM.")
        # A new model: the Trainer that predicted has put its own forward into the other.
        del self._predictor, self.model, self.watch
        gc.collect()
        way, seed = self.way, self.settings.seed
        self.model = build_model(self.job, attention=way.attention, seed=seed).to(self.device)
        self.watch = Watch(self.model.backbone)
        trainer = self._make_trainer(
            self.model, self._rows_of([warm_up, *batches]), way.training_precision
        )
        stopwatch = _Stopwatch(self.watch, self.device)
        trainer.add_callback(stopwatch)
        trainer.train()
        return stopwatch.seconds

    def _train(self, batches: Sequence[Rows], *, fgm: bool) -> None:
        raise NotImplementedError("the Trainer makes its own steps")

    def _rows_of(self, batches: Sequence[Rows]) -> Any:
        return [self.examples[row] for rows in batches for row in rows]

    def _make_trainer(self, model: nn.Module, train: Any, precision: str) -> Trainer:
        settings, task = self.settings, self.task.settings
        arguments = TrainingArguments(
            output_dir=tempfile.gettempdir(),  # nothing is written
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.eval_batch_size,
            num_train_epochs=1,
            learning_rate=task.learning_rate,
            max_grad_norm=task.max_grad_norm,
            optim="adamw_torch_fused",
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            use_cpu=self.device.type == "cpu",
            dataloader_pin_memory=self.device.type == "cuda",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=settings.seed,
        )
        trainer = _InOrder(
            model=_WithLoss(model),
            args=arguments,
            train_dataset=train,
            data_collator=lambda rows: _collate(rows, self.job.pad_id),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer


class _InOrder(Trainer):
    """Takes the batches as they are given: they come from an epoch of its own sampler already."""

    def _get_train_sampler(self, *arguments: Any, **named: Any) -> SequentialSampler:
        rows: Any = self.train_dataset
        return SequentialSampler(rows)


class _WithLoss(nn.Module):
    """The model with its loss inside, as the Trainer wants it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        outputs = self.model(input_ids, attention_mask)
        return {"loss": functional.smooth_l1_loss(outputs, labels), "logits": outputs}


class _Stopwatch(TrainerCallback):
    """Times the updates after the first."""

    def __init__(self, watch: Watch, device: torch.device) -> None:
        self._watch, self._device = watch, device
        self._begun = 0.0
        self.seconds = 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        if state.global_step == 1:
            self._watch.clear()
            wait_for(self._device)
            self._begun = time.perf_counter()
        if state.global_step == state.max_steps:
            wait_for(self._device)
            self.seconds = time.perf_counter() - self._begun


def _collate(rows: list[Example], pad_id: int) -> dict[str, Any]:
    batch = collate(rows, pad_id)
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.targets,
    }
