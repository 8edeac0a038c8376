"""What was changed in a text: one place, two characters, how sure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """One character put in place of another.

    Attributes:
        position: of the character in the text, from 0.
        wrong: what stood there.
        right: what stands there now.
        probability: of ``right``, from 0 to 1.
    """

    position: int
    wrong: str
    right: str
    probability: float


def apply_changes(text: str, changes: Iterable[Change]) -> str:
    """The text with the changes made; all other characters are those of the text itself."""
    characters = list(text)
    for change in changes:
        characters[change.position] = change.right
    return "".join(characters)


def changes_to_json(changes: Sequence[Change]) -> str:
    """As text: ``[[position, wrong, right, probability], ...]``."""
    rows = [[c.position, c.wrong, c.right, round(c.probability, 4)] for c in changes]
    return json.dumps(rows, ensure_ascii=False)


def changes_from_json(text: str) -> list[Change]:
    """What :func:`changes_to_json` wrote."""
    return [Change(*row) for row in json.loads(text)]
