"""What the metadata checker reports, and the rules that dataset and kernel metadata share."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.config import nearest

LONGEST_SHOWN = 60
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class _NotThere:
    def __repr__(self) -> str:
        return "not there"


NOT_THERE = _NotThere()


@dataclass(frozen=True)
class Problem:
    """One rule that one value breaks.

    Attributes:
        file: where, as the user would write it.
        key: of the value; empty when the whole file is meant.
        value: what was found; ``NOT_THERE`` when nothing was.
        rule: what is asked for, and why or the cure.
    """

    file: str
    key: str
    value: Any
    rule: str

    def __str__(self) -> str:
        if not self.key:
            return f"{self.file}: {self.rule}"
        if self.value is NOT_THERE:
            return f"{self.file}: {self.key} is not there: {self.rule}"
        shown = json.dumps(self.value, ensure_ascii=False, default=repr)
        if len(shown) > LONGEST_SHOWN:
            shown = f"{shown[: LONGEST_SHOWN - 4]} ..."
        return f"{self.file}: {self.key} = {shown}: {self.rule}"


@dataclass
class Inspection:
    """The values of one JSON file, and what was found wrong with them.

    Attributes:
        file: its name for messages.
        values: its content.
        problems: grows as rules are asked for.
        readable: whether the file was there and held an object.
    """

    file: str
    values: dict[str, Any]
    problems: list[Problem] = field(default_factory=list)
    readable: bool = True

    def report(self, key: str, rule: str, value: Any = ...) -> None:
        """Notes a problem; the value is the key's own unless given."""
        found = self.values.get(key, NOT_THERE) if value is ... else value
        self.problems.append(Problem(self.file, key, found, rule))

    def known_keys(self, known: Collection[str]) -> None:
        """No other keys: the client drops them in silence."""
        for key in self.values:
            if key not in known:
                self.report(key, f"unknown key, {nearest(key, list(known))}")

    def text(
        self, key: str, *, shortest: int = 0, longest: int | None = None, required: bool = False
    ) -> str | None:
        """The string of a key, of a length in characters; None when it is missing or wrong."""
        value = self.values.get(key, NOT_THERE)
        if value is NOT_THERE and not required:
            return None
        if not isinstance(value, str):
            self.report(key, "must be a text")
        elif len(value) < shortest or (longest is not None and len(value) > longest):
            wanted = f"{shortest} to {longest}" if longest else f"at least {shortest}"
            self.report(key, f"must have {wanted} characters, has {len(value)}")
        else:
            return value
        return None

    def texts(self, key: str, *, required: bool = False) -> list[str]:
        """The list of strings of a key, none of them twice; empty when it is missing or wrong."""
        value = self.values.get(key, NOT_THERE)
        if value is NOT_THERE and not required:
            return []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.report(key, "must be a list of texts")
            return []
        for twice in sorted({item for item in value if value.count(item) > 1}):
            self.report(key, "stands there twice", twice)
        return value

    def truth(self, key: str, *, required: bool = False) -> bool | None:
        """The true or false of a key; None when it is missing or wrong."""
        value = self.values.get(key, NOT_THERE)
        if value is NOT_THERE and not required:
            return None
        if not isinstance(value, bool):
            self.report(key, "must be true or false, without quotes")
            return None
        return value

    def own_id(self, *, shortest: int, longest: int | None = None) -> str | None:
        """The slug of the key ``id``, written ``owner/slug``; None when it is missing or wrong."""
        value = self.text("id", required=True)
        if value is None:
            return None
        owner, _, slug = value.partition("/")
        if owner in ("", "OWNER") or not slug or "/" in slug:
            self.report("id", "must be owner/slug: your Kaggle name, then one name, no version")
        elif not _SLUG.fullmatch(slug):
            self.report("id", "the slug must be small letters, digits and single dashes")
        elif len(slug) < shortest or (longest is not None and len(slug) > longest):
            wanted = f"{shortest} to {longest}" if longest else f"at least {shortest}"
            self.report("id", f"the slug must have {wanted} characters, has {len(slug)}")
        else:
            return slug
        return None


def shown(path: Path) -> str:
    """A path as the user would write it: relative to where the command runs, if it is below."""
    return os.path.relpath(path) if path.resolve().is_relative_to(Path.cwd()) else str(path)


def read_values(path: Path) -> Inspection:
    """A JSON file's values, ready to be asked; empty, with the problem noted, if unreadable."""
    inspection = Inspection(shown(path), {}, readable=False)
    twice: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(pairs)

    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except FileNotFoundError:
        inspection.report("", "the file is missing")
    except (OSError, ValueError) as error:
        inspection.report("", f"is not JSON ({error})")
    else:
        if isinstance(values, dict):
            inspection.values, inspection.readable = values, True
        else:
            inspection.report("", "must hold one JSON object, in braces")
    for key in twice:
        inspection.report(key, "is written twice in the file, and only the last one counts")
    return inspection
