"""Seven corrected sentences, one of each kind, for all tests that look at corrections."""

from __future__ import annotations

from typing import Any

import pandas as pd

from kernel_lib.text.corrections import Change

# Source, target, prediction, domain.
SENTENCES = (
    ("春天到了。", "春天到了。", "春天到了。", "home"),  # clean, left alone
    ("这本书很有趣。", "这本书很有趣。", "这本书狠有趣。", "home"),  # clean, changed
    ("我去图书管。", "我去图书馆。", "我去图书馆。", "school"),  # fixed
    ("她身体健糠。", "她身体健康。", "她身体健慷。", "home"),  # found, wrong character
    ("老师交我们画化。", "老师教我们画画。", "老师教我们画化。", "school"),  # one of two fixed
    ("请把门观上。", "请把门关上。", "请把们关上。", "home"),  # fixed, and a false change
    ("他没来上克。", "他没来上课。", "他没来上克。", "school"),  # missed
)


def changes_between(source: str, corrected: str, probability: float = 0.9) -> list[Change]:
    """The changes, each of that probability less a hundredth of its position."""
    pairs = enumerate(zip(source, corrected, strict=True))
    return [Change(at, a, b, probability - at / 100) for at, (a, b) in pairs if a != b]


def corrected_frame(
    sentences: Any = SENTENCES, *, without: tuple[str, ...] = (), **columns: Any
) -> pd.DataFrame:
    """A frame of corrections; ids are ``s0``, ``s1`` ... ."""
    rows = [
        {
            "id": f"s{number}",
            "source": source,
            "corrected": corrected,
            "changes": changes_between(source, corrected),
            "target": target,
            "domain": domain,
        }
        for number, (source, target, corrected, domain) in enumerate(sentences)
    ]
    names = ["id", "source", "corrected", "changes", "target", "domain"]
    frame = pd.DataFrame(rows, columns=names).drop(columns=list(without))
    return frame.assign(**columns)
