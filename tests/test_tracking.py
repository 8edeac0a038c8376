"""Weights & Biases stays off unless it is wanted, installed, and has a key."""

from __future__ import annotations

import sys
import types

import pytest

from kernel_lib.training import tracking
from kernel_lib.training.tracking import Tracker, WandbTracker, make_tracker


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list:
    """A stand-in for the package that keeps what it is told."""
    calls: list = []
    module = types.ModuleType("wandb")
    run = types.SimpleNamespace(
        log=lambda record: calls.append(("log", record)), finish=lambda: calls.append(("finish",))
    )
    module.login = lambda key: calls.append(("login", key))
    module.init = lambda **options: calls.append(("init", options["name"])) or run
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    return calls


def test_not_wanted_is_off_even_with_a_key(wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    make_tracker(False, name="a", settings={}).log({})
    assert wandb == []


def test_without_the_package_it_is_off_and_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    assert type(make_tracker(True, name="a", settings={})) is Tracker
    assert "not installed" in capsys.readouterr().out


def test_without_a_key_it_is_off_and_says_so(wandb, capsys) -> None:
    tracker = make_tracker(True, name="a", settings={})
    tracker.log({"score": 1})
    tracker.finish()
    assert wandb == []
    assert "no WANDB_API_KEY" in capsys.readouterr().out


def test_offline_the_kaggle_secret_cannot_be_read_and_training_goes_on(
    wandb, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    class Client:
        def get_secret(self, name: str) -> str:
            raise ConnectionError("no internet, and a token: s3cr3t")

    secrets = types.ModuleType("kaggle_secrets")
    secrets.UserSecretsClient = Client
    secrets.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "kaggle_secrets", secrets)
    assert type(make_tracker(True, name="a", settings={})) is Tracker
    out = capsys.readouterr().out
    assert "ConnectionError" in out and "s3cr3t" not in out


def test_a_key_but_no_network_is_off_and_does_not_print_the_key(
    wandb, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    def unreachable(key: str) -> None:
        raise ConnectionError(f"no route for {key}")

    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t")
    monkeypatch.setattr(sys.modules["wandb"], "login", unreachable)
    assert type(make_tracker(True, name="a", settings={})) is Tracker
    out = capsys.readouterr().out
    assert "cannot be reached (ConnectionError)" in out and "s3cr3t" not in out


def test_with_a_key_records_arrive(wandb, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    tracker = make_tracker(True, name="run-1", settings={"epochs": 1})
    assert isinstance(tracker, WandbTracker)
    tracker.log({"score": 0.5})
    tracker.finish()
    assert wandb == [("login", "k"), ("init", "run-1"), ("log", {"score": 0.5}), ("finish",)]
