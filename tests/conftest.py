"""Made-up material for all tests, and no network for any of them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

# Before torch and transformers are imported: two cores, and no look at any hub.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
os.environ.pop("KERNEL_LIB_SETTINGS", None)

from kernel_lib.offline.material import write_backbone, write_competition

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Material:
    """Folders of a made-up competition and a tiny DeBERTa-v3-shaped backbone."""

    competition: Path
    backbone: Path


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """40 training and 7 test essays; a 500-piece sentencepiece model; 2 layers of 32."""
    root = tmp_path_factory.mktemp("material")
    write_competition(root / "competition", train_rows=40, test_rows=7)
    corpus = pd.read_csv(root / "competition/train.csv", dtype=str)["full_text"].tolist()
    write_backbone(root / "backbone", corpus=corpus)
    return Material(root / "competition", root / "backbone")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test that reaches for anything but this machine fails."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in (
            "127.0.0.1",
            "::1",
        ):
            pytest.fail(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test begins with the same random states."""
    import torch

    np.random.seed(0)
    torch.manual_seed(0)
