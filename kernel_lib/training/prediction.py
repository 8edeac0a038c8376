"""Predicting with one model: sorted by length for speed, returned in the order asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.device import Precision
from kernel_lib.text.batches import Example, collate, inference_batches


@torch.inference_mode()
def predict(
    model: nn.Module,
    examples: Sequence[Example],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device,
    precision: Precision,
    bar: Any = None,
) -> NDArray[np.float32]:
    """The model's outputs, row for row as ``examples`` stand, however they were batched.

    Args:
        model: gives ``(batch, num_outputs)`` for ids and mask; left in the mode it was in.
        examples: any number of encoded rows.
        pad_id: the tokenizer's padding id.
        batch_size: rows at a time.
        device: where the model is.
        precision: of the forward pass.
        bar: a progress bar to move by one a batch.

    Returns:
        ``(rows, num_outputs)`` float32.

    Raises:
        TrainingError: a prediction is not finite.
    """
    was_training = model.training
    model.eval()
    outputs: list[NDArray[np.float32] | None] = [None] * len(examples)
    lengths = [len(example.input_ids) for example in examples]
    for rows in inference_batches(lengths, batch_size=batch_size):
        batch = collate([examples[row] for row in rows], pad_id).to(device)
        with precision.autocast():
            output = model(batch.input_ids, batch.attention_mask)
        for row, value in zip(rows, output.float().cpu().numpy(), strict=True):
            outputs[row] = value
        if bar is not None:
            bar.update()
    model.train(was_training)
    values = np.stack([output for output in outputs if output is not None])
    wrong = int((~np.isfinite(values)).any(axis=1).sum())
    if wrong:
        exact = precision.name == "float32"
        cure = "Train with a lower learning_rate." if exact else 'Set precision="float32".'
        raise TrainingError(
            f"{wrong} of {len(values)} predictions are not finite in {precision.name}. {cure}"
        )
    return values
