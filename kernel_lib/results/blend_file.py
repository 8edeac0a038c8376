"""``blend.json``: the weights of a blend, and how well they were found to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernel_lib import __version__
from kernel_lib.errors import ArtifactError
from kernel_lib.results.blend_weights import Weights
from kernel_lib.runtime.files import read_json, write_json
from kernel_lib.runtime.paths import input_folders

BLEND = "blend.json"
FORMAT = 1


@dataclass(frozen=True)
class Part:
    """A run in a blend.

    Attributes:
        run_id: of the run.
        name: what it was called when the blend was made.
    """

    run_id: str
    name: str


@dataclass(frozen=True)
class Blend:
    """What inference needs of a blend.

    Attributes:
        method: in words.
        targets: names of the columns.
        members: the runs in it.
        dropped: the runs that it was made with and does without.
        weights: of the members, in their order.
        facts: what else the file tells: scores, how they were made. Not needed for predicting.
        path: of the file; empty: not written yet.
    """

    method: str
    targets: tuple[str, ...]
    members: tuple[Part, ...]
    dropped: tuple[Part, ...]
    weights: Weights
    facts: dict[str, Any]
    path: Path = Path()

    def write(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        content = {
            "format": FORMAT,
            "kernel_lib": __version__,
            "method": self.method,
            "by_rank": self.weights.by_rank,
            "alpha": self.weights.alpha,
            "targets": list(self.targets),
            "intercepts": self._by_target(self.weights.intercepts),
            "members": [
                {"run_id": part.run_id, "name": part.name, "weights": self._by_target(weights)}
                for part, weights in zip(self.members, self.weights.values, strict=True)
            ],
            "dropped": [{"run_id": part.run_id, "name": part.name} for part in self.dropped],
            "facts": self.facts,
        }
        write_json(path, content)

    def _by_target(self, values: Any) -> dict[str, float]:
        return dict(zip(self.targets, map(float, values), strict=True))


def read_blend(path: Path) -> Blend:
    """Reads a blend.

    Args:
        path: of the file, or of the folder that holds it under its usual name.

    Raises:
        ArtifactError: it is missing, damaged or of another format.
    """
    path = path / BLEND if path.is_dir() else path
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: make it with python -m kernel_lib.blending.blend.")
    content = read_json(path)
    if not isinstance(content, dict) or "members" not in content:
        raise ArtifactError(f"{path} is not a blend: damaged, or another file of that name.")
    if content.get("format") != FORMAT:
        raise ArtifactError(
            f"{path} is a blend of format {content.get('format')!r}; this version reads {FORMAT}. "
            "Use the kernel_lib that wrote it, or make it again."
        )
    try:
        return _parsed(content, path)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is damaged ({type(error).__name__}: {error}). Make or copy it again."
        ) from None


def find_blend(given: str) -> Blend | None:
    """The blend to predict with.

    Args:
        given: its path; empty: the only one under the inputs, if there is one.

    Raises:
        ArtifactError: it cannot be read, or there are several.
    """
    if given:
        return read_blend(Path(given))
    found = [folder / BLEND for folder in input_folders() if (folder / BLEND).is_file()]
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise ArtifactError(f"several blends are attached: {listed}. Set blend to one of them.")
    return read_blend(found[0]) if found else None


def _parsed(content: dict[str, Any], path: Path) -> Blend:
    """The blend in a file's content; ValueError and its like say what is wrong."""
    targets = tuple(content["targets"])
    members, dropped = (_parts(content[name]) for name in ("members", "dropped"))
    ids = [part.run_id for part in (*members, *dropped)]
    if not targets or not members or len(set(ids)) < len(ids) or len(set(targets)) < len(targets):
        raise ValueError("no target or no member, or one of them twice")
    by_rank, alpha, facts = content["by_rank"], content["alpha"], content["facts"]
    if not isinstance(by_rank, bool) or not isinstance(facts, dict):
        raise ValueError("by_rank or facts is of another type")
    values = [_numbers(entry["weights"], targets) for entry in content["members"]]
    intercepts = _numbers(content["intercepts"], targets)
    alpha = None if alpha is None else float(alpha)
    weights = Weights(np.array(values), np.array(intercepts), by_rank, alpha)
    return Blend(str(content["method"]), targets, members, dropped, weights, facts, path)


def _parts(entries: Any) -> tuple[Part, ...]:
    parts = tuple(Part(entry["run_id"], entry["name"]) for entry in entries)
    if not all(isinstance(text, str) for part in parts for text in (part.run_id, part.name)):
        raise ValueError("a run_id or name is no text")
    return parts


def _numbers(by_target: dict[str, Any], targets: Sequence[str]) -> list[float]:
    if set(by_target) != set(targets):
        raise ValueError(f"numbers for {', '.join(by_target)}, not for {', '.join(targets)}")
    numbers = [by_target[target] for target in targets]
    if not all(isinstance(n, float | int) and not isinstance(n, bool) for n in numbers):
        raise ValueError("a weight is no number")
    if not np.isfinite(numbers).all():
        raise ValueError("a weight is not finite")
    return [float(n) for n in numbers]
