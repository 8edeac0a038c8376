"""What training a fold took besides time: parameters trained, and memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

MEBIBYTE = 2**20


@dataclass(frozen=True)
class FoldCost:
    """A fold's parameters and memory.

    Attributes:
        trained_parameters: numbers that the optimizer holds; with LoRA those of its products and of
            the head.
        parameters: all of the model in training.
        peak_memory_bytes: of the GPU, or on a CPU of the whole process; None where not known.
    """

    trained_parameters: int
    parameters: int
    peak_memory_bytes: int | None

    @classmethod
    def of(
        cls, model: nn.Module, groups: Sequence[dict[str, Any]], peak_memory_bytes: int | None
    ) -> FoldCost:
        """The cost of a model in training.

        Args:
            model: before anything of it is merged.
            groups: of its optimizer.
            peak_memory_bytes: of the fold.
        """
        trained = sum(p.numel() for group in groups for p in group["params"])
        return cls(trained, sum(p.numel() for p in model.parameters()), peak_memory_bytes)

    def record(self) -> dict[str, Any]:
        """For the fold's manifest."""
        return asdict(self)

    def __str__(self) -> str:
        return cost_text(self.record())


def cost_text(record: Any) -> str:
    """What :meth:`FoldCost.record` gave, in words; of anything else, as much as it has."""
    known = record if isinstance(record, dict) else {}
    trained, whole, peak = (
        known.get(name) for name in ("trained_parameters", "parameters", "peak_memory_bytes")
    )
    parts = []
    if isinstance(trained, int) and isinstance(whole, int):
        parts.append(f"{trained:,} of {whole:,} parameters trained")
    if isinstance(peak, int):
        parts.append(f"peak memory {peak / MEBIBYTE:,.0f} MiB")
    return ", ".join(parts)


def costs_text(records: Iterable[Any]) -> str:
    """The same of several folds: each kind of cost once, the largest; empty if there is none."""
    known = [record for record in records if isinstance(record, dict)]
    names = ("trained_parameters", "parameters", "peak_memory_bytes")
    values = {name: [r[name] for r in known if isinstance(r.get(name), int)] for name in names}
    return cost_text({name: max(each) for name, each in values.items() if each})
