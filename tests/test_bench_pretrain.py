"""A small encoder from nothing: what is confused with what, and that a run can use the folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kernel_lib.bench.pretrain import confusing, pretrain
from kernel_lib.model.backbone import load_backbone
from kernel_lib.model.pretrained_head import load_pretrained_head
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.text.batches import IGNORE
from kernel_lib.text.masking import Masking, MaskShares
from tests.conftest import Material


def test_what_has_confusable_characters_is_confused_with_one_of_them() -> None:
    swap = confusing({7: np.array([8, 9], dtype=np.int32)})
    masking = Masking(MaskShares(0.0, 0.5, 0.0), mask_id=4, swap=swap)
    ids = np.array([1, *[7, 6] * 500, 2], dtype=np.int32)
    example = masking.example(ids, np.random.default_rng(0))
    named = example.target != IGNORE
    sevens = named & (ids == 7)
    assert set(example.input_ids[sevens]) == {8, 9} and 200 < sevens.sum() < 300
    assert set(example.input_ids[named & (ids == 6)]) == {6}
    assert np.array_equal(example.input_ids[~named], ids[~named])


def test_a_spelling_run_can_use_it(
    spelling_material: Material, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "encoder"
    settings = SpellingSettings(
        data_dir=str(spelling_material.competition), confusion_files=("confusion.txt",), n_folds=2
    )
    pretrain(
        spelling_material.backbone / "vocab.txt",
        folder,
        settings,
        minutes=0.02,
        hidden=16,
        layers=1,
        heads=2,
    )
    assert ", loss " in capsys.readouterr().out
    assert load_backbone(folder, dropout=0.0).config.model_type == "roformer"
    head = load_pretrained_head(folder)
    assert head is not None and np.isfinite(head["bias"].numpy()).all()
