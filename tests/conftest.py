"""Made-up material for all tests, and no network for any of them."""

from __future__ import annotations

import os
import runpy
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
os.environ.pop("KERNEL_LIB_GUARD", None)

from kernel_lib.offline.material import write_backbone, write_competition

ROOT = Path(__file__).parents[1]
NO_NETWORK = ROOT / "kernel_lib/offline/rehearsal/guard"  # on PYTHONPATH it guards a notebook too
runpy.run_path(str(NO_NETWORK / "sitecustomize.py"))
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
def seeded() -> None:
    """Every test begins with the same random states."""
    import torch

    np.random.seed(0)
    torch.manual_seed(0)


@dataclass(frozen=True)
class Case:
    """A small regression job: everything ``cross_validate`` and ``FoldTrainer`` ask for."""

    task: Any
    examples: list[Any]
    folds: Any
    tokenizer: Any

    def cross_validate(self, **options: Any) -> Any:
        """Trains the wanted folds."""
        from kernel_lib.training.crossval import cross_validate

        return cross_validate(self.task, self.examples, self.folds, self.tokenizer, **options)

    def trainer(
        self,
        fold: int = 0,
        *,
        precision: str = "float32",
        device: str = "cpu",
        world: Any = None,
    ) -> Any:
        """A trainer of one fold, its run folder begun; in a world of processes, if it is one's."""
        import torch

        from kernel_lib.model.location import find_backbone
        from kernel_lib.runtime.clock import Clock
        from kernel_lib.runtime.device import Precision, seed_everything
        from kernel_lib.runtime.distributed import World
        from kernel_lib.training.loop import FoldTrainer
        from kernel_lib.training.record import open_or_begin
        from kernel_lib.training.task import Machine
        from kernel_lib.training.tracking import Tracker

        backbone = find_backbone(self.task.settings.backbone)
        run = open_or_begin(self.task, self.examples, self.folds, self.tokenizer, backbone)
        seed_everything(self.task.settings.seed + fold)
        train = [e for e, at in zip(self.examples, self.folds, strict=True) if at != fold]
        return FoldTrainer(
            self.task,
            self.task.build_model(backbone, self.tokenizer, train),
            run=run,
            fold=fold,
            train=train,
            valid=[e for e, at in zip(self.examples, self.folds, strict=True) if at == fold],
            pad_id=self.tokenizer.pad_token_id,
            machine=Machine(
                torch.device(device), Precision(precision, device), Clock(3600), world or World()
            ),
            tracker=Tracker(),
        )


@pytest.fixture
def make_case(material: Material, tmp_path: Path) -> Any:
    """Makes a :class:`Case` with some settings changed."""

    def make(**changes: Any) -> Case:
        from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
        from kernel_lib.text.tokenizer import build_tokenizer

        settings = RegressionSettings(
            **{
                "backbone": str(material.backbone),
                "data_dir": str(material.competition),
                "output_dir": str(tmp_path / "run"),
                "n_folds": 2,
                "epochs": 1,
                "max_length": 64,
                "learning_rate": 1e-3,
                "head_learning_rate": 1e-3,
                "precision": "float32",
                **changes,
            }
        )
        task = RegressionTask(settings)
        train = task.read_train()
        tokenizer = build_tokenizer(material.backbone, keep_newlines=settings.keep_newlines)
        return Case(task, task.encode(train, tokenizer), task.folds(train), tokenizer)

    return make
