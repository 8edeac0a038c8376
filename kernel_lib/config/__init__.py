"""Settings: what can be set, and how it is checked, kept and changed from outside."""

from kernel_lib.config.base import OVERRIDES_VARIABLE, Settings, digest, nearest, setting
from kernel_lib.config.runs import InferenceSettings, TrainingSettings

__all__ = [
    "OVERRIDES_VARIABLE",
    "InferenceSettings",
    "Settings",
    "TrainingSettings",
    "digest",
    "nearest",
    "setting",
]
