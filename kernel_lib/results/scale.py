"""What a run predicts, where that is numbers: only such runs are blended by weights."""

from __future__ import annotations

from dataclasses import dataclass

from kernel_lib.errors import SettingsError
from kernel_lib.results.members import Member


@dataclass(frozen=True)
class Scale:
    """What is predicted.

    Attributes:
        targets: names of the columns.
        lowest, highest: the range of their values.
    """

    targets: tuple[str, ...]
    lowest: float
    highest: float


def has_scale(member: Member) -> bool:
    """Whether a run predicts numbers, so that it can be blended by weights."""
    return bool(getattr(member.task.settings, "target_columns", ()))


def scale_of(member: Member) -> Scale:
    """The columns that a run predicts and their range.

    Raises:
        SettingsError: its predictions are no numbers on a scale.
    """
    if not has_scale(member):
        raise SettingsError(
            f"{member.name} is a run of the task {member.task.name}: only runs that predict "
            "numbers are blended by weights. Others are averaged at inference, without a blend."
        )
    names = ("target_columns", "target_min", "target_max")
    return Scale(*(getattr(member.task.settings, name) for name in names))
