"""Seven tagged sentences, one of each kind, for all tests that look at named entities."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kernel_lib.metrics.tags import Span, write_tags

Spans = tuple[tuple[str, int, int], ...]

# Words, gold entities, those predicted, domain.
SENTENCES: tuple[tuple[str, Spans, Spans, str], ...] = (
    ("It rained all day .", (), (), "notes"),  # nothing there, nothing named
    ("Anna Weber left Norbury .", (("PER", 0, 2), ("LOC", 3, 4)), (("PER", 0, 2),), "notes"),
    ("Rain fell on the Monday Club", (("ORG", 3, 6),), (("ORG", 4, 6), ("LOC", 0, 1)), "news"),
    ("Ashford Bank opened", (("ORG", 0, 2),), (("LOC", 0, 2),), "news"),  # another type
    ("in Port Ellis today", (("LOC", 1, 3),), (("ORG", 2, 4),), "news"),  # they overlap only
    ("Port Ellis New Harbor", (("LOC", 0, 2), ("LOC", 2, 4)), (("LOC", 0, 4),), "news"),
    ("王 小 明 在 北 京", (("PER", 0, 3), ("LOC", 4, 6)), (("PER", 0, 3), ("LOC", 4, 6)), "zh"),
)
EVIL = "<script>alert('x')</script>&amp;"


def tagged_frame(
    sentences: Any = SENTENCES, *, without: tuple[str, ...] = (), **columns: Any
) -> pd.DataFrame:
    """A frame of tagged texts; ids are ``t0``, ``t1`` ... ; words may also be given as a list."""
    rows = []
    for number, (text, gold, predicted, domain) in enumerate(sentences):
        words = text.split() if isinstance(text, str) else list(text)
        tags = [write_tags([Span(*s) for s in spans], len(words)) for spans in (gold, predicted)]
        rows.append((f"t{number}", number % 2, domain, words, *tags))
    names = ["id", "fold", "domain", "tokens", "tags", "predicted"]
    frame = pd.DataFrame(rows, columns=names).drop(columns=list(without))
    return frame.assign(**columns)
