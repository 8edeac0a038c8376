"""``oof.csv`` of a task that predicts texts, read for its report."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Literal

import pandas as pd


def read_texts(text: str, needed: Iterable[str]) -> pd.DataFrame:
    """A table of the file's text, every cell as the text that it is.

    Raises:
        ValueError: it is no table, or a column is missing.
    """
    # Below pandas 3 the quick engine ends a text at its first NUL; the other one takes no text of
    # more than 131,072 characters.
    engine: Literal["c", "python"] = "python" if "\0" in text else "c"
    file = io.StringIO(text, newline="")
    frame = pd.read_csv(file, dtype=str, keep_default_na=False, engine=engine)
    if missing := [name for name in needed if name not in frame]:
        raise ValueError(f"it has no column {', '.join(missing)}")
    return frame
