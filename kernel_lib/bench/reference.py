"""The way of the public FB3 notebook that the kit starts from, where it costs time or memory.

Texts are padded to the cap (in training cut back to the longest of the batch), eight drawn at
random side by side; FGM clones the whole embedding table and writes all of it at each step; the
loss is fetched at each step. Its faults that cost no time, as the loss scaler that the adversarial
pass misses, are not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from kernel_lib.bench.runner import Rows, Runner, in_batches
from kernel_lib.text.batches import Batch
from kernel_lib.training.optimizer import parameter_groups

NOTEBOOK_MAX_GRAD_NORM = 1000.0
NOTEBOOK_EPSILON = 1.0


class WholeTableFGM:
    """FGM as it is mostly copied: a clone of the whole table, and a step on all of its rows."""

    def __init__(self, embedding: nn.Embedding, epsilon: float) -> None:
        self.weight, self.epsilon = embedding.weight, epsilon
        self.backup: torch.Tensor | None = None

    def attack(self) -> None:
        """Moves the table along its gradient."""
        assert self.weight.grad is not None, "a backward pass comes first"
        self.backup = self.weight.data.clone()
        norm = torch.norm(self.weight.grad)
        if norm != 0 and torch.isfinite(norm):
            self.weight.data.add_(self.epsilon * self.weight.grad / norm)

    def restore(self) -> None:
        """Puts the clone in the table's place."""
        assert self.backup is not None, "an attack comes first"
        self.weight.data, self.backup = self.backup, None


class ReferenceRunner(Runner):
    """Padded to the cap, random batches, FGM over the whole table."""

    batches_cost_alike = True  # all are as wide as the cap

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._optimizer: torch.optim.Optimizer | None = None
        self._precision_of_training = self._precision(self.way.training_precision)
        self._scaler = torch.amp.GradScaler(
            self.device.type, enabled=self._precision_of_training.needs_scaler
        )
        backbone: Any = self.model.backbone
        self._fgm = WholeTableFGM(backbone.get_input_embeddings(), NOTEBOOK_EPSILON)

    def training_plan(self) -> list[Rows]:
        order = np.random.default_rng(self.settings.seed).permutation(len(self.examples))
        return in_batches(order, self.settings.batch_size)

    def inference_plan(self) -> list[Rows]:
        return in_batches(np.arange(len(self.examples)), self.settings.eval_batch_size)

    @torch.no_grad()
    def _predict(self, batches: Sequence[Rows]) -> None:
        self.model.eval()
        outputs = []
        for rows in batches:
            batch = self._padded(rows).to(self.device)
            with self._precision(self.way.inference_precision).autocast():
                output = self.model(batch.input_ids, batch.attention_mask)
            outputs.append(output.float().cpu().numpy())
        np.concatenate(outputs)

    def _train(self, batches: Sequence[Rows], *, fgm: bool) -> None:
        if self._optimizer is None:
            groups = parameter_groups(self.model, self.task.settings)
            self._optimizer = torch.optim.AdamW(groups, eps=self.task.settings.adam_epsilon)
        for rows in batches:
            batch = self._padded(rows)
            longest = int(batch.attention_mask.sum(dim=1).max())
            ids, mask = batch.input_ids[:, :longest], batch.attention_mask[:, :longest]
            batch = Batch(ids, mask, batch.targets).to(self.device)
            self._backward(batch)
            nn.utils.clip_grad_norm_(self.model.parameters(), NOTEBOOK_MAX_GRAD_NORM)
            if fgm:
                self._fgm.attack()
                self._backward(batch)
                self._fgm.restore()
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad()

    def _backward(self, batch: Batch) -> None:
        with self._precision_of_training.autocast():
            outputs = self.model(batch.input_ids, batch.attention_mask)
        assert batch.targets is not None
        loss = functional.smooth_l1_loss(outputs, batch.targets)
        loss.item()  # for its progress lines
        self._scaler.scale(loss).backward()

    def _padded(self, rows: Rows) -> Batch:
        """The rows side by side, as wide as the cap whatever their lengths."""
        ids = torch.full((len(rows), self.settings.cap), self.job.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            tokens = torch.from_numpy(self.examples[row].input_ids)
            ids[place, : len(tokens)], mask[place, : len(tokens)] = tokens, 1
        targets = np.stack([_target(self.examples[row].target) for row in rows])
        return Batch(ids, mask, torch.from_numpy(targets))


def _target(target: Any) -> Any:
    assert target is not None, "a job's examples carry targets"
    return target
