"""A course of naming hidden tokens: what is learned from pieces of text, and how well."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernel_lib.errors import TrainingError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import pick_precision
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.text.batches import Batch, collate_to
from kernel_lib.text.masking import Masking, MaskShares, uniform_swap
from kernel_lib.text.order import TrainingOrder, inference_batches
from kernel_lib.training.masked_language import MaskedLanguageModel, Recipe, masked_updates
from kernel_lib.training.memory import is_memory_full

EVAL_BATCH_TOKENS = 4096

Pieces = list[NDArray[np.int32]]


class Course:
    """What is done with the pieces.

    Args:
        model: on its device.
        tokenizer: of its encoder.
        mask_share: of the tokens that are to be named.
        seed: of masks and order.
    """

    def __init__(
        self, model: MaskedLanguageModel, tokenizer: Any, *, mask_share: float, seed: int
    ) -> None:
        self.model, self.seed, self.pad_id = model, seed, tokenizer.pad_token_id
        self.device = next(model.parameters()).device
        self.precision = pick_precision("auto", self.device)
        special = set(tokenizer.all_special_ids)
        self.masking = Masking(
            MaskShares.of_bert(mask_share),
            mask_id=tokenizer.mask_token_id,
            swap=uniform_swap(np.setdiff1d(np.arange(len(tokenizer)), sorted(special))),
            never=special,
        )

    def batch(self, pieces: Pieces, rows: NDArray[np.int64], *seed: int) -> Batch:
        """Some pieces masked, the same for the same seed, on the device."""
        examples = [
            self.masking.example(pieces[row], np.random.default_rng([self.seed, *seed, row]))
            for row in rows
        ]
        return collate_to(examples, self.pad_id, self.device)

    @torch.inference_mode()
    def held_out_loss(self, pieces: Pieces) -> float:
        """The mean loss over all tokens to be named, the same ones whenever it is asked for."""
        self.model.eval()
        total, count = 0.0, 0
        batches = inference_batches([len(ids) for ids in pieces], batch_tokens=EVAL_BATCH_TOKENS)
        with progress_bar(len(batches), "held-out loss") as bar:
            for rows in batches:
                with self.precision.autocast():
                    loss, named = self.model(self.batch(pieces, rows))
                total, count = total + float(loss), count + int(named)
                bar.update()
        return total / max(1, count)

    def train(
        self,
        pieces: Pieces,
        recipe: Recipe,
        epochs: int,
        batch_size: int,
        clock: Clock,
        reserve_seconds: float,
    ) -> int:
        """Learns from all pieces; returns the number of updates that were made.

        Args:
            pieces: to learn from.
            recipe: for the optimizer.
            epochs: how often.
            batch_size: pieces an update.
            clock: ends it earlier,
            reserve_seconds: with so many left.

        Raises:
            TrainingError: memory is full.
        """
        self.model.train()
        order = TrainingOrder(
            [len(ids) for ids in pieces], batch_size=batch_size, epochs=epochs, seed=(self.seed,)
        )
        total, made = sum(order.counts), 0
        until = clock.budget_seconds - reserve_seconds
        begun = clock.elapsed_seconds

        def share_done() -> float:
            spent = (clock.elapsed_seconds - begun) / max(1e-9, until - begun)
            return max((made + 1) / (total + 1), spent)

        def batches() -> Iterator[tuple[int, Batch]]:
            for epoch in range(epochs):
                for rows in order.batches(epoch):
                    yield epoch, self.batch(pieces, rows, epoch)

        losses: list[float] = []
        try:
            with progress_bar(total, "adapt") as bar:
                for epoch, loss in masked_updates(
                    self.model,
                    self.model.mean_loss,
                    batches(),
                    recipe,
                    share_done=share_done,
                    precision=self.precision,
                ):
                    made, losses = made + 1, [*losses[-99:], loss]
                    bar.update()
                    mean = f"epoch {epoch + 1}, loss {np.mean(losses):.3f}"
                    bar.set_postfix_str(mean, refresh=False)
        except (RuntimeError, MemoryError) as error:
            if not is_memory_full(error):
                raise
            raise TrainingError(
                f"the memory is full with {batch_size} pieces at a time. Set a lower --batch-size, "
                "or a lower --max-length."
            ) from error
        if made < total:
            print(f"the minutes are used up after {made:,} of {total:,} updates")
        return made
