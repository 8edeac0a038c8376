"""Made-up material for all tests, and no network for any of them."""

from __future__ import annotations

import gc
import json
import os
import runpy
import shutil
from collections.abc import Callable
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
from tests.uploading import no_account, shelf, written_run  # noqa: F401  fixtures

ROOT = Path(__file__).parents[1]
NO_NETWORK = ROOT / "kernel_lib/offline/rehearsal/guard"  # on PYTHONPATH it guards a notebook too
runpy.run_path(str(NO_NETWORK / "sitecustomize.py"))
SHARED = ROOT.parent / "shared"


@dataclass(frozen=True)
class Material:
    """Folders of a made-up competition and a tiny backbone."""

    competition: Path
    backbone: Path


def made_up(root: Path, write: Any, encoder: Any, column: str, train: int, test: int) -> Material:
    """A competition of so many rows, and a backbone made of a column of its ``train.csv``."""
    write(root / "competition", train_rows=train, test_rows=test)
    corpus = pd.read_csv(root / "competition/train.csv", dtype=str)[column].tolist()
    encoder(root / "backbone", corpus=corpus)
    return Material(root / "competition", root / "backbone")


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """40 training and 7 test essays; a 500-piece sentencepiece model; 2 layers of 32."""
    root = tmp_path_factory.mktemp("material")
    return made_up(root, write_competition, write_backbone, "full_text", 40, 7)


@pytest.fixture(scope="session")
def spelling_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """48 training and 22 test sentences, half of these awkward; a BERT of 2 layers of 32."""
    root = tmp_path_factory.mktemp("spelling")
    return made_up(root, write_spelling_competition, write_spelling_backbone, "target", 48, 22)


@pytest.fixture(scope="session")
def entity_material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """60 training and 30 test texts, half of these awkward; the backbone is that of the essays."""
    root = tmp_path_factory.mktemp("entities")
    return made_up(root, write_entity_competition, write_backbone, "tokens", 60, 30)


@pytest.fixture(scope="module", autouse=True)
def quick_collection() -> None:
    """A fold ends with a garbage collection, which would mostly look at what was imported."""
    gc.collect()
    gc.freeze()


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


def encoded(task: Any) -> Case:
    """The :class:`Case` of a task: a window of a text is in the text's fold."""
    from kernel_lib.text.batches import by_window
    from kernel_lib.text.tokenizer import build_tokenizer

    s, train = task.settings, task.read_train()
    tokenizer = build_tokenizer(Path(s.backbone), keep_newlines=s.keep_newlines)
    examples = task.encode(train, tokenizer)
    return Case(task, examples, by_window(task.folds(train), examples), tokenizer)


def regression_case(material: Material, **changes: Any) -> Case:
    """A :class:`Case` of scores; its texts are cut."""
    from kernel_lib.tasks.regression import RegressionSettings, RegressionTask

    settings = RegressionSettings(
        **{
            "backbone": str(material.backbone),
            "data_dir": str(material.competition),
            "n_folds": 2,
            "epochs": 1,
            "max_length": 64,
            "learning_rate": 1e-3,
            "head_learning_rate": 1e-3,
            "precision": "float32",
            **changes,
        }
    )
    return encoded(RegressionTask(settings))


@pytest.fixture
def make_case(material: Material, tmp_path: Path) -> Callable[..., Case]:
    """Makes a :class:`Case` with some settings changed."""
    there = {"output_dir": str(tmp_path / "run")}
    return lambda **changes: regression_case(material, **{**there, **changes})


@pytest.fixture(scope="session")
def trained(material: Material, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Gives the run folder of :func:`make_case`'s settings, to be read only; each trained once."""
    runs: dict[str, Path] = {}

    def train(**changes: Any) -> Path:
        key = repr(sorted(changes.items()))
        if key not in runs:
            path = str(tmp_path_factory.mktemp("trained") / "run")
            case = regression_case(material, **changes, output_dir=path)
            runs[key] = case.cross_validate().folder
        return runs[key]

    return train


@pytest.fixture
def own_run(trained: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Gives a copy of such a run, a test's own, beside its other files."""
    return lambda name="run", **changes: Path(shutil.copytree(trained(**changes), tmp_path / name))


def spelling_case(material: Material, **changes: Any) -> Case:
    """A :class:`Case` of spelling correction; its windows are shorter than most sentences."""
    from kernel_lib.tasks.spelling import SpellingTask
    from kernel_lib.tasks.spelling_settings import SpellingSettings

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
    return encoded(SpellingTask(settings))


@pytest.fixture
def make_spelling_case(spelling_material: Material, tmp_path: Path) -> Callable[..., Case]:
    """Makes a :class:`Case` of spelling correction with some settings changed."""
    there = {"output_dir": str(tmp_path / "run")}
    return lambda **changes: spelling_case(spelling_material, **{**there, **changes})


COPY = {"system": "copy", "max_length": 32, "window_overlap": 8, "copy_label": False}
DETECT = {"system": "detect", "max_length": 64, "window_overlap": 16, "n_folds": 3, "folds": (0, 2)}


@pytest.fixture(scope="session")
def spelling_runs(
    spelling_material: Material, tmp_path_factory: pytest.TempPathFactory
) -> list[Any]:
    """One of each system, trained a little: they change a part of the characters."""
    made = []
    little = {"learning_rate": 5e-3, "head_learning_rate": 5e-3, "epochs": 6, "batch_size": 4}
    for name, changes in (("copy", COPY), ("detect", DETECT)):
        folder = tmp_path_factory.mktemp(name) / "run"
        case = spelling_case(spelling_material, **little, **changes, output_dir=str(folder))
        made.append(case.cross_validate())
    return made


@pytest.fixture
def correct(spelling_material: Material, spelling_runs: list[Any], tmp_path: Path) -> Any:
    """Corrects sentences with both runs; gives the rows of ``corrections.jsonl``."""
    from kernel_lib.results import ensemble
    from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings

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
    return encoded(EntityTask(settings))


@pytest.fixture
def make_entity_case(entity_material: Material, tmp_path: Path) -> Callable[..., Case]:
    """Makes a :class:`Case` of named entities with some settings changed."""
    there = {"output_dir": str(tmp_path / "run")}
    return lambda **changes: entity_case(entity_material, **{**there, **changes})


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
    made = []
    for name, changes in (("full", FULL), ("lora", LORA)):
        folder = str(tmp_path_factory.mktemp(name) / "run")
        changes = {"layer_decay": 1.0, "batch_size": 4, "output_dir": folder, **changes}
        made.append(entity_case(entity_material, **changes).cross_validate())
    return made


@pytest.fixture
def name_entities(entity_material: Material, entity_runs: list[Any], tmp_path: Path) -> Any:
    """Names entities with both runs; gives the rows of ``entities.jsonl``."""
    from kernel_lib.results import ensemble
    from kernel_lib.tasks.entity_settings import EntityInferenceSettings

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
