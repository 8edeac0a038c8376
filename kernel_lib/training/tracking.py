"""Weights & Biases as an option: off unless asked for, off when no key can be had."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

WANDB_SECRET = "WANDB"  # name of the Kaggle secret, as the reference notebook calls it


class Tracker:
    """Where evaluation records go besides the run folder: here, nowhere."""

    def log(self, record: dict[str, Any]) -> None:
        """Takes one evaluation's record."""

    def finish(self) -> None:
        """Ends the run."""


class WandbTracker(Tracker):
    """Sends records to Weights & Biases."""

    def __init__(self, wandb: Any, key: str, name: str, settings: dict[str, Any]) -> None:
        wandb.login(key=key)
        self._run = wandb.init(project="kernel_lib", name=name, config=settings)

    def log(self, record: dict[str, Any]) -> None:
        self._run.log(record)

    def finish(self) -> None:
        self._run.finish()


def make_tracker(wanted: bool, *, name: str, settings: dict[str, Any]) -> Tracker:
    """A tracker; one that does nothing when not wanted, without the package, or without a key.

    The key comes from the environment (WANDB_API_KEY) or from Kaggle's secret ``WANDB``, which
    cannot be read while the notebook's internet is off: a scored run therefore never logs.

    Args:
        wanted: the setting ``wandb``.
        name: of the run.
        settings: recorded with it.
    """
    if not wanted:
        return Tracker()
    if importlib.util.find_spec("wandb") is None:
        print("wandb: off, the package is not installed")
        return Tracker()
    key = os.environ.get("WANDB_API_KEY") or _kaggle_secret(WANDB_SECRET)
    if not key:
        print(f"wandb: off, no WANDB_API_KEY and no Kaggle secret {WANDB_SECRET!r} can be read")
        return Tracker()
    try:
        return WandbTracker(importlib.import_module("wandb"), key, name, settings)
    except Exception as error:  # wandb's own classes; never the message, the key may be in it
        print(f"wandb: off, it cannot be reached ({type(error).__name__})")
        return Tracker()


def _kaggle_secret(name: str) -> str | None:
    if importlib.util.find_spec("kaggle_secrets") is None:
        return None
    client = importlib.import_module("kaggle_secrets").UserSecretsClient()
    try:
        return str(client.get_secret(name))
    except Exception as error:  # no common base class: no such secret, or no internet
        print(f"wandb: the Kaggle secret {name!r} cannot be read ({type(error).__name__})")
        return None
