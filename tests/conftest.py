"""Made-up material for all tests, and no network for any of them."""

from __future__ import annotations

import json
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

from kernel_lib.offline.material import (
    write_backbone,
    write_competition,
    write_entity_competition,
    write_spelling_backbone,
    write_spelling_competition,
)

ROOT = Path(__file__).parents[1]
NO_NETWORK = ROOT / "kernel_lib/offline/rehearsal/guard"  # on PYTHONPATH it guards a notebook too
runpy.run_path(str(NO_NETWORK / "sitecustomize.py"))
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Material:
    """Folders of a made-up competition and a tiny backbone."""

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


@pytest.fixture(scope="session")
def spelling_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """48 training and 22 test sentences, half of these awkward; a BERT of 2 layers of 32."""
    root = tmp_path_factory.mktemp("spelling")
    write_spelling_competition(root / "competition", train_rows=48, test_rows=22)
    corpus = pd.read_csv(root / "competition/train.csv", dtype=str)["target"].tolist()
    write_spelling_backbone(root / "backbone", corpus=corpus)
    return Material(root / "competition", root / "backbone")


@pytest.fixture(scope="session")
def entity_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """60 training and 30 test texts, half of these awkward; the backbone is that of the essays."""
    root = tmp_path_factory.mktemp("entities")
    write_entity_competition(root / "competition", train_rows=60, test_rows=30)
    corpus = pd.read_csv(root / "competition/train.csv", dtype=str)["tokens"].tolist()
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
    """A small job: everything ``cross_validate`` and ``FoldTrainer`` ask for."""

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


def spelling_case(material: Material, **changes: Any) -> Case:
    """A :class:`Case` of spelling correction; its windows are shorter than most sentences."""
    from kernel_lib.tasks.spelling import SpellingTask
    from kernel_lib.tasks.spelling_settings import SpellingSettings
    from kernel_lib.text.batches import by_window
    from kernel_lib.text.tokenizer import build_tokenizer

    settings = SpellingSettings(
        **{
            "backbone": str(material.backbone),
            "data_dir": str(material.competition),
            "confusion_files": ("confusion.txt",),
            "n_folds": 2,
            "epochs": 1,
            "batch_size": 8,
            "max_length": 16,
            "window_overlap": 6,
            "learning_rate": 1e-3,
            "head_learning_rate": 1e-3,
            "precision": "float32",
            **changes,
        }
    )
    task = SpellingTask(settings)
    train = task.read_train()
    tokenizer = build_tokenizer(Path(settings.backbone), keep_newlines=settings.keep_newlines)
    examples = task.encode(train, tokenizer)
    return Case(task, examples, by_window(task.folds(train), examples), tokenizer)


@pytest.fixture
def make_spelling_case(spelling_material: Material, tmp_path: Path) -> Any:
    """Makes a :class:`Case` of spelling correction with some settings changed."""

    def make(**changes: Any) -> Case:
        return spelling_case(spelling_material, **{"output_dir": str(tmp_path / "run"), **changes})

    return make


COPY = {"system": "copy", "max_length": 32, "window_overlap": 8, "copy_label": False}
DETECT = {"system": "detect", "max_length": 64, "window_overlap": 16, "n_folds": 3, "folds": (0, 2)}


@pytest.fixture(scope="session")
def spelling_runs(
    spelling_material: Material, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """One of each system, trained a little: they change a part of the characters."""
    from kernel_lib.training import fold_work

    made = []
    little = {"learning_rate": 5e-3, "head_learning_rate": 5e-3, "epochs": 6, "batch_size": 4}
    for name, changes in (("copy", COPY), ("detect", DETECT)):
        folder = tmp_path_factory.mktemp(name) / "run"
        case = spelling_case(spelling_material, **little, **changes, output_dir=str(folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fold_work, "release_memory", lambda device: None)
            made.append(case.cross_validate())
    return made


@pytest.fixture
def correct(
    spelling_material: Material,
    spelling_runs: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Corrects sentences with both runs; gives the rows of ``corrections.jsonl``."""
    from kernel_lib.results import ensemble
    from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings

    monkeypatch.setattr(ensemble, "release_memory", lambda device: None)  # takes longer than all

    def make(texts: list[str] | None = None, **changes: Any) -> list[dict[str, Any]]:
        folder = spelling_material.competition
        if texts is not None:
            folder = tmp_path / "data"
            folder.mkdir(exist_ok=True)
            frame = pd.DataFrame({"id": [f"t{n}" for n in range(len(texts))], "source": texts})
            lines = [json.dumps(row, ensure_ascii=False) for row in frame.to_dict("records")]
            (folder / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
        settings = SpellingInferenceSettings(
            **{
                "runs": tuple(str(run.folder) for run in spelling_runs),
                "data_dir": str(folder),
                "submission": str(tmp_path / "submission.csv"),
                "corrections": str(tmp_path / "corrections.jsonl"),
                "precision": "float32",
                "threshold": 0.0,
                "chinese_only": True,
                "confusion_only": False,
                "passes": 1,
                **changes,
            }
        )
        make.settings = settings
        ensemble.predict_submission(settings)
        lines = (tmp_path / "corrections.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    return make


def entity_case(material: Material, **changes: Any) -> Case:
    """A :class:`Case` of named entities; its windows are shorter than most texts."""
    from kernel_lib.tasks.entities import EntityTask
    from kernel_lib.tasks.entity_settings import EntitySettings
    from kernel_lib.text.batches import by_window
    from kernel_lib.text.tokenizer import build_tokenizer

    settings = EntitySettings(
        **{
            "backbone": str(material.backbone),
            "data_dir": str(material.competition),
            "n_folds": 2,
            "epochs": 1,
            "batch_size": 8,
            "max_length": 24,
            "window_overlap": 8,
            "learning_rate": 1e-3,
            "head_learning_rate": 1e-3,
            "precision": "float32",
            **changes,
        }
    )
    task = EntityTask(settings)
    train = task.read_train()
    tokenizer = build_tokenizer(Path(settings.backbone), keep_newlines=settings.keep_newlines)
    examples = task.encode(train, tokenizer)
    return Case(task, examples, by_window(task.folds(train), examples), tokenizer)


@pytest.fixture
def make_entity_case(entity_material: Material, tmp_path: Path) -> Any:
    """Makes a :class:`Case` of named entities with some settings changed."""

    def make(**changes: Any) -> Case:
        return entity_case(entity_material, **{"output_dir": str(tmp_path / "run"), **changes})

    return make


FULL = {"learning_rate": 5e-3, "head_learning_rate": 1e-2, "epochs": 4}
LORA = {
    "learning_rate": 1e-2,
    "head_learning_rate": 3e-2,
    "epochs": 6,
    "lora_rank": 4,
    "lora_targets": ("query_proj", "value_proj", "dense"),
    "decoder": "crf",
    "subtoken": "mean",
    "special_tokens": False,
    "max_length": 40,
    "n_folds": 3,
    "folds": (0, 2),
}


@pytest.fixture(scope="session")
def entity_runs(entity_material: Material, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Full fine-tuning, and LoRA with a CRF, trained a little: they name some entities."""
    from kernel_lib.training import fold_work

    made = []
    for name, changes in (("full", FULL), ("lora", LORA)):
        changes = {"layer_decay": 1.0, "batch_size": 4, **changes}
        folder = tmp_path_factory.mktemp(name) / "run"
        case = entity_case(entity_material, **changes, output_dir=str(folder))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(fold_work, "release_memory", lambda device: None)
            made.append(case.cross_validate())
    return made


@pytest.fixture
def name_entities(
    entity_material: Material,
    entity_runs: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Names entities with both runs; gives the rows of ``entities.jsonl``."""
    from kernel_lib.results import ensemble
    from kernel_lib.tasks.entity_settings import EntityInferenceSettings

    monkeypatch.setattr(ensemble, "release_memory", lambda device: None)  # takes longer than all

    def make(texts: list[list[str]] | None = None, **changes: Any) -> list[dict[str, Any]]:
        folder = entity_material.competition
        if texts is not None:
            folder = tmp_path / "data"
            folder.mkdir(exist_ok=True)
            rows = [{"id": f"t{n}", "tokens": tokens} for n, tokens in enumerate(texts)]
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            (folder / "test.jsonl").write_text("\n".join(lines), encoding="utf-8")
        settings = EntityInferenceSettings(
            **{
                "runs": tuple(str(run.folder) for run in entity_runs),
                "data_dir": str(folder),
                "submission": str(tmp_path / "submission.csv"),
                "entities": str(tmp_path / "entities.jsonl"),
                "precision": "float32",
                "o_bias": 0.0,
                **changes,
            }
        )
        make.settings = settings
        ensemble.predict_submission(settings)
        lines = (tmp_path / "entities.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    return make
