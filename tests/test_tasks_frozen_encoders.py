"""Encoders that nothing trains: windows of long texts, and whether it is the same encoder again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.model.backbone import load_backbone
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.device import Precision
from kernel_lib.tasks import frozen_encoders
from kernel_lib.tasks.feature_settings import FeatureSettings
from kernel_lib.tasks.frozen_encoders import (
    cut_evenly,
    embed,
    open_encoders,
    reopen_encoders,
    save_tokenizers,
)
from kernel_lib.training.prediction import TimeIsUp

TEXTS = ["The student likes a good day. " * 3, "Therefore, my teacher helps.", "A. " * 20]


def embedded(material, texts=TEXTS, clock=None, **changes) -> np.ndarray:
    settings = FeatureSettings(
        encoders=(str(material.backbone),), **{"max_length": 32, "embedding_layers": 1, **changes}
    )
    (encoder,) = open_encoders(settings.encoders)
    return embed(
        encoder,
        texts,
        settings,
        attention="auto",
        device=torch.device("cpu"),
        precision=Precision("float32", "cpu"),
        batch_tokens=128,
        clock=clock,
    )


def test_windows_are_few_alike_in_length_and_whole_between_the_special_tokens() -> None:
    ids = np.arange(100, 125, dtype=np.int32)
    windows = cut_evenly(ids, 10)
    assert [len(window) for window in windows] == [10, 10, 9]
    assert {(window[0], window[-1]) for window in windows} == {(100, 124)}
    assert np.concatenate([window[1:-1] for window in windows]).tolist() == list(range(101, 124))
    assert cut_evenly(ids, 25)[0] is ids


def test_a_text_is_the_mean_of_its_windows_by_their_length(material) -> None:
    found = embedded(material)
    (encoder,) = open_encoders((str(material.backbone),))
    backbone = load_backbone(material.backbone, dropout=0.0).eval()
    for text, row in zip(TEXTS, found, strict=True):
        ids = np.array(encoder.tokenizer(text)["input_ids"])
        total, tokens = torch.zeros(32), 0
        for window in cut_evenly(ids, 32):
            with torch.no_grad():
                states = backbone(input_ids=torch.tensor(window)[None]).last_hidden_state[0]
            total, tokens = total + states.sum(0), tokens + len(window)
        assert np.allclose(row, (total / tokens).numpy(), atol=1e-5)
    one_by_one = np.concatenate([embedded(material, [text]) for text in TEXTS])
    assert np.allclose(found, one_by_one, atol=1e-5)
    assert not np.allclose(found[0], embedded(material, whole_texts=False)[0], atol=1e-3)


def refuse(backbone: object, longest: int) -> None:
    if longest > 32:
        raise SettingsError("no more than 32")


def test_time_and_the_encoders_positions_are_respected(
    material, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TimeIsUp):
        embedded(material, clock=Clock(0.0, used_seconds=1.0))
    monkeypatch.setattr(frozen_encoders, "check_length", refuse)
    with pytest.raises(SettingsError, match="no more than 32"):
        embedded(material, max_length=64)
    assert len(embedded(material)) == len(TEXTS)


def test_an_encoder_is_known_again_and_another_is_refused(material, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(material.backbone, tmp_path / "encoder"))
    names = [str(folder)]
    encoders = open_encoders(names)
    save_tokenizers(encoders, tmp_path / "run")
    records = json.loads(json.dumps([encoder.record for encoder in encoders]))
    (again,) = reopen_encoders(names, records, tmp_path / "run")
    assert again.record == encoders[0].record and again.folder == folder

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    with pytest.raises(ArtifactError, match=r"is another than the .* was made with.*same files"):
        reopen_encoders(names, records, tmp_path / "run")
    (folder / "config.json").write_text(json.dumps(config))
    path = tmp_path / "run/tokenizer/0/tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "normalizer": {"type": "NFC"}}), encoding="utf-8")
    mended = [{**records[0], "fingerprint": open_encoders(names)[0].fingerprint}]
    with pytest.raises(ArtifactError, match="gives other ids"):
        reopen_encoders(names, mended, tmp_path / "run")
    shutil.rmtree(folder)
    with pytest.raises(ArtifactError, match="whose weights are not in the run: backbone="):
        reopen_encoders(names, records, tmp_path / "run")
