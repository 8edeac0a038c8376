"""The FB3 task: what it reads, refuses, encodes, builds and scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.errors import DataError, KernelLibError, SettingsError
from kernel_lib.tasks.regression import FB3_COLUMNS, RegressionSettings, RegressionTask


@pytest.fixture
def data(material, tmp_path: Path) -> Path:
    """A copy of the competition that a test may spoil."""
    return Path(shutil.copytree(material.competition, tmp_path / "data"))


def task(data: Path, **changes) -> RegressionTask:
    return RegressionTask(RegressionSettings(data_dir=str(data), **changes))


def spoil(path: Path, change) -> None:
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(frame).to_csv(path, index=False)


def test_the_defaults_are_those_of_the_best_known_run() -> None:
    s = RegressionSettings()
    assert (s.n_folds, s.epochs, s.max_length, s.batch_size, s.seed) == (4, 5, 512, 8, 42)
    assert (s.learning_rate, s.layer_decay, s.weight_decay, s.adam_epsilon) == (
        5e-5,
        0.9,
        0.01,
        1e-6,
    )
    assert (s.schedule, s.loss, s.pooling, s.fgm_epsilon) == (
        "cosine",
        "smooth_l1",
        "attention",
        0.2,
    )
    assert (s.dropout, s.keep, s.target_columns) == (0.0, "last", FB3_COLUMNS)


def test_all_rows_are_read_and_scored(data: Path) -> None:
    frame = task(data).read_train()
    assert len(frame) == 40
    assert frame[list(FB3_COLUMNS)].dtypes.eq(np.float64).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="syntax"), "no column 'syntax'"),
        (lambda f: f.drop(columns="text_id"), "no column 'text_id'"),
        (lambda f: f.assign(grammar=["", *f["grammar"][1:]]), "'grammar' must hold numbers"),
        (lambda f: f.assign(grammar=["5.5", *f["grammar"][1:]]), "from 1.0 to 5.0"),
        (lambda f: pd.concat([f, f[:1]]), "more than once"),
        (lambda f: f[:0], "no rows"),
    ],
)
def test_spoiled_training_data_is_refused(data: Path, change, message: str) -> None:
    spoil(data / "train.csv", change)
    with pytest.raises(DataError, match=message):
        task(data).read_train()


def test_a_missing_file_names_the_folder_and_the_cure(data: Path) -> None:
    (data / "train.csv").unlink()
    with pytest.raises(DataError, match=r"has no train\.csv\. Set data_dir"):
        task(data).read_train()


def test_empty_texts_are_counted_and_kept(data: Path) -> None:
    spoil(data / "train.csv", lambda f: f.assign(full_text=["", " \n", *f["full_text"][2:]]))
    with pytest.warns(UserWarning, match="2 of 40 texts are empty"):
        assert len(task(data).read_train()) == 40


def test_fewer_rows_than_folds_is_said(data: Path) -> None:
    spoil(data / "train.csv", lambda f: f[:3])
    few = task(data)
    with pytest.raises(DataError, match="3 rows cannot be split into 4 folds"):
        few.folds(few.read_train())


def test_both_kaggle_mounts_are_found(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slug = "feedback-prize-english-language-learning"
    for place in (f"a/input/{slug}", f"b/input/competitions/{slug}"):
        root = tmp_path / place.split("/")[0]
        shutil.copytree(data, tmp_path / place)
        monkeypatch.setenv("KERNEL_LIB_KAGGLE_ROOT", str(root))
        assert len(RegressionTask(RegressionSettings()).read_train()) == 40


def test_max_rows_draws_the_same_rows_each_time(data: Path) -> None:
    one, two = (task(data, max_rows=10).read_train()["text_id"].tolist() for _ in range(2))
    assert one == two and len(one) == 10
    assert one != task(data).read_train()["text_id"].tolist()[:10]


def test_the_head_begins_at_the_mean_of_the_training_rows(make_case, material) -> None:
    case = make_case()
    model = case.task.build_model(material.backbone, case.tokenizer, case.examples[:10])
    means = np.mean([example.target for example in case.examples[:10]], axis=0)
    assert np.allclose(model.head.bias.detach().numpy(), means)


def test_in_the_built_model_a_new_token_begins_as_the_full_stop(make_case, material) -> None:
    case = make_case()
    model = case.task.build_model(material.backbone, case.tokenizer, case.examples)
    table = model.backbone.get_input_embeddings().weight
    new, stop = case.tokenizer.convert_tokens_to_ids("\n"), case.tokenizer(".")["input_ids"][-2]
    assert torch.equal(table[new], table[stop])


def test_frozen_and_checkpointed_as_the_settings_say(make_case, material) -> None:
    case = make_case(freeze_layers=1, gradient_checkpointing=True)
    model = case.task.build_model(material.backbone, case.tokenizer, case.examples)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(".layer.0." in name for name in frozen)
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.backbone.modules())


def test_longer_texts_than_the_encoder_has_positions_are_refused(make_case, tmp_path) -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(
        "bert",
        vocab_size=700,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / "bert")
    case = make_case(max_length=65)
    with pytest.raises(SettingsError, match="max_length=72, but the encoder has 64 positions"):
        case.task.build_model(tmp_path / "bert", case.tokenizer, case.examples)


def test_predictions_are_clipped_to_the_scale(make_case) -> None:
    case = make_case()
    wild = np.linspace(-3, 9, 12, dtype=np.float32).reshape(2, 6)
    frame = case.task.oof_frame(case.examples[:2], wild)
    values = frame.filter(like="pred_").to_numpy()
    assert values.min() == 1.0 and values.max() == 5.0


def test_the_score_is_the_mean_over_targets_of_the_root_mean_square(make_case) -> None:
    case = make_case()
    targets = np.stack([example.target for example in case.examples])
    errors = np.array([0.5, 0, 0, 0, 0, 0.1], dtype=np.float32)
    inside = np.clip(targets, 1.5, 4.5)
    examples = [
        type(e)(e.id, e.input_ids, row) for e, row in zip(case.examples, inside, strict=True)
    ]
    scores = case.task.scores(case.task.oof_frame(examples, inside + errors))
    assert scores == pytest.approx(
        {"mcrmse": 0.1, **dict(zip(FB3_COLUMNS, errors, strict=True))}, abs=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_min": 5.0}, "target_min"),
        ({"target_columns": ()}, "nothing to predict"),
        ({"loss": "rmse"}, "loss='rmse'"),
        ({"poolling": "mean"}, "did you mean 'pooling'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RegressionSettings.from_dict(changes)


def test_every_message_is_of_one_family() -> None:
    assert issubclass(DataError, KernelLibError) and issubclass(SettingsError, KernelLibError)
