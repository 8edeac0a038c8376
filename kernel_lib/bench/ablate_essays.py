"""Made-up essays and a tiny encoder, for ``make ablate`` to be tried on without any data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from kernel_lib.artifacts import write_csv
from kernel_lib.bench.scratch import SPECIAL, write_scratch_backbone
from kernel_lib.runtime.files import write_text
from kernel_lib.tasks.regression import FB3_COLUMNS

ROWS, WORDS, SCALE = 240, 40, np.arange(2, 11) / 2
WORDS_A_TARGET = 8


def write_essays(folder: Path, *, seed: int = 0) -> tuple[Path, Path]:
    """Writes essays whose scores show in the share of good words, and a BERT with random weights.

    Args:
        folder: where to.
        seed: of both.

    Returns:
        The folder of ``train.csv`` and that of the encoder.
    """
    random = np.random.default_rng(seed)
    kinds = [
        ([f"good{t}{w}" for w in range(WORDS_A_TARGET)], [f"bad{t}{w}" for w in range(8)])
        for t in range(len(FB3_COLUMNS))
    ]
    rows = []
    for row in range(ROWS):
        scores = random.choice(SCALE, size=len(kinds))
        words = []
        for _ in range(WORDS):
            target = int(random.integers(len(kinds)))
            is_good = random.random() < (scores[target] - 1) / 4
            words.append(str(random.choice(kinds[target][0 if is_good else 1])))
        rows.append([f"{row:06d}", " ".join(words), *scores])
    data, encoder = folder / "essays", folder / "encoder"
    write_csv(
        pd.DataFrame(rows, columns=["text_id", "full_text", *FB3_COLUMNS]), data / "train.csv"
    )
    vocabulary = [*SPECIAL, ".", *(word for good, bad in kinds for word in (*good, *bad))]
    write_text(folder / "vocab.txt", "".join(f"{word}\n" for word in vocabulary))
    write_scratch_backbone(
        encoder,
        folder / "vocab.txt",
        hidden=32,
        layers=2,
        heads=2,
        intermediate=64,
        seed=seed,
        masked_lm_head=False,
    )
    return data, encoder
