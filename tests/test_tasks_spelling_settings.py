"""Settings of spelling correction that make no sense are refused, by name."""

from __future__ import annotations

import pytest

from kernel_lib.errors import SettingsError
from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings, SpellingSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "both"}, "system='both'"),
        ({"window_overlap": 126}, r"window_overlap=126 must be below the 126 characters"),
        ({"noise_rate": 0.1}, "noise_rate needs confusion_files"),
        (
            {"noise_rate": 0.6, "mask_rate": 0.5, "confusion_files": ("c.txt",)},
            "together they must not be above 1",
        ),
        ({"train_files": ()}, "nothing to learn from"),
        ({"correction_weight": 0, "detection_weight": 0}, "both 0"),
        ({"mask_rate": 1.0}, "must be below 1"),
        ({"max_passes": 0}, "must be at least 1"),
        ({"embeding_path": False}, "did you mean 'embedding_path'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SpellingSettings.from_dict(changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threshold": 1.1}, "must be at most 1"),
        ({"passes": 0}, "must be at least 1"),
        ({"chinese_only": "yes"}, "must be bool"),
    ],
)
def test_so_are_those_of_inference(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SpellingInferenceSettings.from_dict(changes)


def test_the_defaults_are_those_of_the_references() -> None:
    s = SpellingSettings()
    assert (s.system, s.focal_gamma, s.mask_rate) == ("copy", 2.0, 0.2)
    assert (s.correction_weight, s.detection_weight) == (0.3, 0.7)
    assert (s.fold_scheme, s.group_column) == ("grouped", "target")
    assert SpellingInferenceSettings().to_dict()["threshold"] is None
