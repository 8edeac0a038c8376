"""From the runs' predictions to one: by the weights of a blend, or their mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results.blend_file import Blend, find_blend
from kernel_lib.results.members import Member
from kernel_lib.results.scale import has_scale, scale_of
from kernel_lib.tasks.base import PredictingTask


class Combination:
    """Which runs predict, and how what they have predicted so far becomes one prediction a row.

    Args:
        members: the runs that predict.
        blend: with a weight for each of them, in their order; None: all count alike.
    """

    def __init__(self, members: Sequence[Member], blend: Blend | None = None) -> None:
        self.members, self._blend = list(members), blend

    def predictions(self, task: PredictingTask) -> NDArray[Any]:
        """Of all rows, by the runs that have predicted a fold at least; there must be one.

        Each run's is the mean of its folds so far. While a run of the blend has none, the weights
        of the others hold as ``Weights.of_those_there`` says.

        Args:
            task: of the best run; without a blend it averages.
        """
        # In the order they were found: the last digit is not to depend on who came first.
        done = [each.mean() for each in self.members if each.predictions]
        if self._blend is None:
            return task.average(done)
        return self._blend.weights.of_those_there(self._there()).combine(np.stack(done))

    def print_outcome(self) -> None:
        """Says which runs of the blend have not predicted, and what holds instead."""
        there = self._there()
        if self._blend is None or there.all() or not there.any():
            return
        missing = [m.name for m, here in zip(self.members, there, strict=True) if not here]
        held = self._blend.weights.of_those_there(there)
        scaled = np.allclose(held.values, held.values.mean()) and "they count alike"
        print(
            f"NOT THE WHOLE BLEND: nothing from {', '.join(missing)}; of the other runs "
            f"{scaled or 'the weights are scaled up'}"
        )

    def _there(self) -> NDArray[np.bool_]:
        return np.array([bool(member.predictions) for member in self.members])


def find_combination(members: Sequence[Member], settings: InferenceSettings) -> Combination:
    """How the runs are to be combined.

    Args:
        members: the runs that are attached.
        settings: ``blend`` names the file; without it one under the inputs is taken.

    Raises:
        SettingsError: a blend is named, but the runs are of a task that has none.
        ArtifactError: the blend cannot be read or predicts other columns, the runs predict on
            different scales, a run of it is not attached, or one is attached that it does not know.
    """
    if not settings.blend and not all(has_scale(member) for member in members):
        return Combination(members)
    scales = {scale_of(member) for member in members}
    targets = {scale.targets for scale in scales}
    blend = find_blend(settings.blend)
    if blend is None:
        return Combination(members)
    if targets != {blend.targets}:
        raise ArtifactError(
            f"{blend.path} is a blend of {', '.join(blend.targets)}; the runs predict "
            f"{' and '.join(', '.join(each) for each in sorted(targets))}."
        )
    if len(scales) > 1:
        found = " and ".join(sorted(f"{scale.lowest:g} to {scale.highest:g}" for scale in scales))
        raise ArtifactError(f"the runs predict on different scales, {found}: not to be blended.")
    return _chosen(members, blend)


def _chosen(members: Sequence[Member], blend: Blend) -> Combination:
    """The runs of the blend, in its order, and lines about it."""
    attached = {member.sessions[0].id: member for member in members}
    useless = {part.run_id for part in blend.dropped}
    wanted = [part.run_id for part in blend.members]
    lacking = [p for p in blend.members if p.run_id not in attached]
    if lacking:
        names = ", ".join(f"{part.name} (run_id {part.run_id})" for part in lacking)
        raise ArtifactError(
            f"{blend.path} needs runs that are not attached: {names}. Attach them, or make the "
            "blend again without them."
        )
    unknown = [m for run_id, m in attached.items() if run_id not in (*wanted, *useless)]
    if unknown:
        names = ", ".join(f"{m.name} (run_id {m.sessions[0].id})" for m in unknown)
        raise ArtifactError(
            f"{blend.path} does not know {names}: with what weight, then? Make the blend again "
            "with all runs, or detach what is not in it, or name in runs those that are."
        )
    print(f"{blend.path}: {blend.method}, {len(wanted)} runs")
    for run_id, member in attached.items():
        if run_id in useless:
            print(f"{member.name}: left out, the blend does without it")
    return Combination([attached[run_id] for run_id in wanted], blend)
