"""Confusion sets: which Chinese characters are taken for each other, by sound or by shape."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kernel_lib.errors import DataError
from kernel_lib.text.characters import is_chinese
from kernel_lib.text.rows import read_utf8


@dataclass(frozen=True)
class ConfusionSet:
    """Characters that are confused with each other; what holds one way holds the other way too.

    Attributes:
        table: for each character the others, sorted, without itself.
    """

    table: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, paths: Sequence[Path]) -> ConfusionSet:
        """The union of some files.

        A line is a character, a tab, and the characters it is confused with, together or in groups
        with tabs between them (``乃<tab>奶奈<tab>耐``, ``黑<tab>墨<tab>默``); lines that begin
        with ``#`` and empty ones are skipped. Only the first character of a line is related to the
        others, not these to each other; each relation holds in both directions.

        Raises:
            DataError: a file is missing, empty or not UTF-8; a line is of another form.
        """
        pairs: list[tuple[str, str]] = []
        for path in paths:
            before = len(pairs)
            for number, line in enumerate(read_utf8(path).split("\n"), start=1):
                line = line.removesuffix("\r")
                if not line.strip() or line.startswith("#"):
                    continue
                first, _, rest = line.partition("\t")
                others = rest.replace("\t", "")
                if len(first) != 1 or not others or not all(map(is_chinese, first + others)):
                    raise DataError(
                        f"{path}, line {number}: {line[:40]!r} is not a character, a tab and the "
                        "Chinese characters it is confused with. Mend or drop the line, or begin "
                        "it with # if it is a comment."
                    )
                pairs += [(first, other) for other in others]
            if len(pairs) == before:
                raise DataError(f"{path} has no confused characters. Is it the right file?")
        return cls(_closed(pairs))

    @classmethod
    def from_dict(cls, table: Mapping[str, str]) -> ConfusionSet:
        """What :meth:`to_dict` gave.

        Raises:
            DataError: the table is not of that form.
        """
        if not isinstance(table, Mapping) or not all(
            isinstance(key, str) and len(key) == 1 and isinstance(others, str)
            for key, others in table.items()
        ):
            raise DataError(
                "a confusion set must map single characters to strings of characters. "
                "Take the table as to_dict() gave it."
            )
        return cls(_closed([(key, other) for key in table for other in table[key]]))

    def to_dict(self) -> dict[str, str]:
        """The table for JSON, in the order of the characters."""
        return dict(self.table)

    def others(self, character: str) -> str:
        """The characters confused with one, sorted, without itself; empty for an unknown one."""
        return self.table.get(character, "")

    def allows(self, wrong: str, right: str) -> bool:
        """Whether two different characters are confused with each other, in either direction."""
        return len(right) == 1 and right in self.others(wrong)

    def __len__(self) -> int:
        """How many characters have others."""
        return len(self.table)


def _closed(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Both directions of all pairs, sorted."""
    related: defaultdict[str, set[str]] = defaultdict(set)
    for one, other in pairs:
        if one != other:
            related[one].add(other)
            related[other].add(one)
    return {character: "".join(sorted(related[character])) for character in sorted(related)}
