"""The made-up material has the genuine one's shape, and can be learned from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from kernel_lib.offline.material import TARGETS, write_competition


def test_the_files_have_fb3s_columns_ranges_and_order(material) -> None:
    train = pd.read_csv(material.competition / "train.csv", dtype={"text_id": str})
    test = pd.read_csv(material.competition / "test.csv", dtype={"text_id": str})
    sample = pd.read_csv(material.competition / "sample_submission.csv", dtype={"text_id": str})
    assert list(train) == ["text_id", "full_text", *TARGETS]
    assert list(sample) == ["text_id", *TARGETS] and list(test) == ["text_id", "full_text"]
    assert sample["text_id"].tolist() == test["text_id"].tolist()
    assert not set(train["text_id"]) & set(test["text_id"])
    scores = train[list(TARGETS)].to_numpy()
    assert ((scores * 2) % 1 == 0).all() and scores.min() >= 1 and scores.max() <= 5
    assert train["full_text"].str.contains("\n\n").all()


def test_one_seed_gives_one_competition(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_competition(tmp_path / name, train_rows=5, test_rows=2, seed=seed)
    a, b, c = ((tmp_path / name / "train.csv").read_bytes() for name in "abc")
    assert a == b != c


def test_scores_can_be_read_from_the_texts(tmp_path: Path) -> None:
    write_competition(tmp_path, train_rows=300, test_rows=1)
    train = pd.read_csv(tmp_path / "train.csv")
    links = ("However,", "Therefore,", "For instance,", "In addition,", "As a result,")
    share = train["full_text"].map(
        lambda text: (
            sum(text.count(word) + text.count(word.lower()) for word in links)
            / (text.count("school") + text.count("the ") + 1)
        )
    )
    assert np.corrcoef(share, train["cohesion"])[0, 1] > 0.4


def test_the_backbone_has_the_genuine_ones_traps(material) -> None:
    names = {path.name for path in material.backbone.iterdir()}
    assert names == {"config.json", "model.safetensors", "spm.model", "tokenizer_config.json"}
    config = json.loads((material.backbone / "config.json").read_text())
    assert config["model_type"] == "deberta-v2" and config["norm_rel_ebd"] == "layer_norm"
    weights = load_file(material.backbone / "model.safetensors")
    assert {str(tensor.dtype) for tensor in weights.values()} == {"torch.float16"}
    assert {"encoder.rel_embeddings.weight", "encoder.LayerNorm.weight"} <= set(weights)
