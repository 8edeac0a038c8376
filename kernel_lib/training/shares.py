"""What each process does of an update: its rows of each batch, in parts that memory holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernel_lib.text.batches import Batch, Example, collate_to
from kernel_lib.training.adversarial import Words, find_words
from kernel_lib.training.state import TrainingState
from kernel_lib.training.task import Machine, Task

Group = Sequence[NDArray[np.int64]]  # the rows of each batch of an update


@dataclass(frozen=True)
class Share:
    """What this process does of a batch, ready on its device.

    Attributes:
        parts: its rows, cut to what memory holds at once; none where a batch has too few rows.
        words: of the whole batch, for FGM.
    """

    parts: list[Batch]
    words: Words | None


class ShareMaker:
    """Makes this process's shares of a fold's updates.

    Args:
        task: how a row is seen, and settings.
        state: says in which epoch, and how many rows memory holds at once.
        fold: its number.
        train: the examples that batches are made of.
        pad_id: the tokenizer's padding id.
        machine: device, and the processes that share the work.
    """

    def __init__(
        self,
        task: Task,
        state: TrainingState,
        *,
        fold: int,
        train: Sequence[Example],
        pad_id: int,
        machine: Machine,
    ) -> None:
        self.task, self.state, self.fold, self.machine = task, state, fold, machine
        self.examples, self.pad_id = train, pad_id
        self._ahead: tuple[Group, list[Share]] | None = None

    def make_ahead(self, group: Group, with_words: bool) -> None:
        """Makes what :meth:`take` will be asked for next."""
        self._ahead = group, self._make(group, with_words)

    def take(self, group: Group, with_words: bool) -> list[Share]:
        """This process's share of each batch, made now or ahead.

        Args:
            group: the rows of each batch, in all processes together.
            with_words: whether FGM will attack.
        """
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead and ahead[0] is group else self._make(group, with_words)

    def seen(self, row: int) -> Example:
        """A training row as it is seen in this epoch, the same whenever it is asked for."""
        settings, epoch = self.task.settings, self.state.progress.epoch
        return self.task.augment(self.examples[row], (settings.seed, self.fold, epoch, row))

    def _make(self, group: Group, with_words: bool) -> list[Share]:
        device, shares = self.machine.device, []
        for rows in group:
            mine = self.machine.world.share(rows)
            count = -(-len(mine) // (self.state.progress.rows_at_once or len(rows)))
            cut = np.array_split(mine, count) if count else []
            parts = []
            seen = {int(row): self.seen(int(row)) for row in (rows if with_words else mine)}
            for numbers in cut:
                some = [seen[row] for row in numbers]
                texts = [example.input_ids for example in some]
                parts.append((texts, collate_to(some, self.pad_id, device)))
            words = None
            if with_words:
                whole = [example.input_ids for example in seen.values()]
                words = find_words(whole, parts, device)
            shares.append(Share([part for _, part in parts], words))
        return shares
