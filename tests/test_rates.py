"""The rate of each level, when it begins, and the schedule of what begins late."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kernel_lib.config import TrainingSettings
from kernel_lib.errors import SettingsError
from kernel_lib.training.rates import late_factor, level_begins, level_rate, schedule_factor


def settings(**changes) -> TrainingSettings:
    return TrainingSettings(**changes)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4, 5, 12, 24])
def test_three_groups_as_equal_as_can_be(n_layers: int) -> None:
    chosen = settings(
        learning_rate=2e-5, rate_group_factor=2.6, head_learning_rate=9e-5, layer_decay=0.5
    )
    found = [level_rate(level, n_layers, chosen) for level in range(n_layers + 2)]
    parts = np.array_split(np.arange(n_layers), 3)
    rates = (2e-5 / 2.6, 2e-5, 2e-5 * 2.6)
    expected = [rate for part, rate in zip(parts, rates, strict=True) for _ in part]
    assert found == pytest.approx([2e-5 / 2.6, *expected, 9e-5], rel=1e-12)


def test_by_layer_decay_each_layer_has_the_rate_above_times_it() -> None:
    chosen = settings(learning_rate=2e-5, layer_decay=0.9, head_learning_rate=9e-5)
    found = [level_rate(level, 4, chosen) for level in range(6)]
    assert found == pytest.approx([2e-5 * 0.9**n for n in (4, 3, 2, 1, 0)] + [9e-5], rel=1e-12)


def test_the_encoder_begins_after_the_head_and_from_the_top_down() -> None:
    chosen = settings(head_only_ratio=0.1, unfreeze_ratio=0.4)
    found = level_begins([0, 1, 2, 3, 4, 5], 4, chosen)
    assert [found[level] for level in range(6)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.0])
    assert set(level_begins(range(6), 4, settings()).values()) == {0.0}


def test_frozen_levels_take_no_step_of_the_unfreezing() -> None:
    found = level_begins([3, 4, 5], 4, settings(unfreeze_ratio=0.4))
    assert found == pytest.approx({5: 0.0, 4: 0.0, 3: 0.4})
    assert level_begins([4, 5], 4, settings(unfreeze_ratio=0.4)) == {5: 0.0, 4: 0.0}


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_what_begins_late_has_the_whole_schedule_in_what_is_left(shape: str) -> None:
    chosen = settings(schedule=shape, warmup_ratio=0.2)
    found = [late_factor(u, total=100, begins=0.4, settings=chosen) for u in range(101)]
    assert found[:40] == [0.0] * 40
    shorter = [schedule_factor(u, total=60, warmup=12, shape=shape) for u in range(61)]
    assert found[40:] == shorter
    assert max(found) == 1.0 == found[52]
    assert all(a < b for a, b in itertools.pairwise(found[39:53]))


def test_what_begins_at_once_has_the_plain_schedule() -> None:
    chosen = settings(schedule="cosine", warmup_ratio=0.1)
    found = [late_factor(u, total=37, begins=0.0, settings=chosen) for u in range(38)]
    assert found == [schedule_factor(u, total=37, warmup=4, shape="cosine") for u in range(38)]


@pytest.mark.parametrize("total", [0, 1, 2, 3])
def test_however_short_a_fold_is_all_begins_and_ends_at_0(total: int) -> None:
    found = [
        late_factor(u, total=total, begins=0.9, settings=settings(warmup_ratio=0.0))
        for u in range(total + 1)
    ]
    assert found[-1] == (0.0 if total else 1.0)
    assert total == 0 or found[-2] == 1.0


def test_ratios_that_leave_nothing_to_the_embeddings_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"0\.6 and unfreeze_ratio=0\.4.*below 1"):
        settings(head_only_ratio=0.6, unfreeze_ratio=0.4)
