"""The FB3 task: what it reads, refuses, encodes, builds and scores."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import WEIGHTS, load_weights, read_oof
from kernel_lib.errors import DataError, KernelLibError, SettingsError
from kernel_lib.model.heads import PooledModel
from kernel_lib.runtime.distributed import World
from kernel_lib.tasks.registry import restore_task
from kernel_lib.tasks.regression import FB3_COLUMNS, RegressionSettings, RegressionTask
from kernel_lib.text.batches import collate, encode_texts
from kernel_lib.text.tokenizer import load_tokenizer


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
        0.0,
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
    case = make_case(freeze_layers=1, freeze_embeddings=False, gradient_checkpointing=True)
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
    with pytest.raises(SettingsError, match=r"^max_length=72, but the encoder has 64 positions"):
        case.task.build_model(tmp_path / "bert", case.tokenizer, case.examples)
    case = make_case(max_length=64, inference_max_length=65)
    with pytest.raises(SettingsError, match="inference_max_length=72, but the encoder has 64"):
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
        ({"target_weights": [1, 2]}, "has 2 numbers for 6 targets"),
        ({"target_weights": [1, 1, 1, 1, 1, -1]}, "0 or more"),
        ({"target_weights": [1, 1, 1, 1, 1, float("nan")]}, "0 or more"),
        ({"target_weights": [0] * 6}, "not all of them 0"),
        ({"rank_loss_weight": 0.1, "batch_size": 1}, "compares the texts of a batch"),
        ({"multi_sample_dropout": 5}, "the head has no dropout"),
        ({"multi_sample_dropout": 5, "dropout": 0.1, "head_dropout": 0}, "the head has no dropout"),
        ({"inference_max_length": 7}, "at least 8"),
        ({"init_from": "stage-one", "reinit_layers": 1}, "drawn anew is overwritten"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        RegressionSettings.from_dict(changes)


def test_a_rank_loss_wants_two_texts_of_a_batch_in_each_process(make_case) -> None:
    ranked = {"rank_loss_weight": 0.1, "batch_size": 3}
    with pytest.raises(SettingsError, match=r"batch_size=3 in 2 processes .* batch_size=4 or more"):
        make_case(**ranked).trainer(world=World(0, 2))
    RegressionSettings(**ranked).check_processes(1)
    RegressionSettings(rank_loss_weight=0.1, batch_size=4).check_processes(2)
    RegressionSettings(**ranked, batch_tokens=4096).check_processes(2)
    RegressionSettings(loss="mcrmse", batch_size=3).check_processes(2)


def test_settings_that_only_look_alike_are_taken() -> None:
    RegressionSettings(rank_loss_weight=0.1, batch_size=1, batch_tokens=4096)
    RegressionSettings(multi_sample_dropout=5, dropout=0.1)
    RegressionSettings(multi_sample_dropout=5, head_dropout=0.1)
    RegressionSettings(target_weights=(1, 0, 0, 0, 0, 0))


def test_the_head_has_a_dropout_of_its_own(make_case, material) -> None:
    for changes, in_head in (({}, 0.2), ({"head_dropout": 0.5}, 0.5), ({"head_dropout": 0.0}, 0.0)):
        case = make_case(dropout=0.2, **changes)
        model = case.task.build_model(material.backbone, case.tokenizer, case.examples)
        assert model.dropout.p == in_head
        assert {m.p for m in model.backbone.modules() if isinstance(m, torch.nn.Dropout)} == {0.2}


@pytest.mark.parametrize("loss", ["smooth_l1", "mcrmse"])
def test_the_gradient_of_many_samples_is_the_mean_of_those_of_each_mask(
    make_case, material, loss: str
) -> None:
    """Each mask by itself, worked out anew from the pooled vectors; ranks and weights as well."""
    changes = {"loss": loss, "rank_loss_weight": 0.3, "target_weights": (1, 2, 3, 1, 1, 1)}
    case = make_case(head_dropout=0.4, multi_sample_dropout=3, fgm_epsilon=0.0, **changes)
    model = case.task.build_model(material.backbone, case.tokenizer, case.examples).train()
    batch = collate(case.examples[:8], case.tokenizer.pad_token_id)
    seen: list[torch.Tensor] = []
    model.dropout.register_forward_hook(lambda _, given, output: seen.extend([*given, output]))
    case.task.loss(model(*batch.inputs), batch).backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    masks = seen[1] != 0
    assert not torch.equal(masks[0], masks[1])
    model.zero_grad()
    losses = []
    for mask in masks:
        model.dropout = torch.nn.Identity()
        head, model.head = model.head, torch.nn.Identity()
        model.dropout_samples = 1
        vectors = model(*batch.inputs)
        model.head = head
        losses.append(case.task.loss(head(vectors * mask / 0.6), batch))
        (losses[-1] / 3).backward()
    expected = [p.grad for p in model.parameters() if p.grad is not None]
    assert len(found) == len(expected) > 10
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert len({loss.item() for loss in losses}) == 3


def test_targets_are_weighed_in_the_loss_of_the_task(make_case) -> None:
    case = make_case(loss="mse", target_weights=(0, 0, 0, 0, 0, 2))
    batch = collate(case.examples[:4], 0)
    outputs = torch.randn(4, 6)
    expected = (outputs[:, 5] - batch.targets[:, 5]).square().mean()
    assert torch.allclose(case.task.loss(outputs, batch), expected)


LENGTHS = [(24, 48), (48, 24)]  # in training, in evaluation


@pytest.mark.parametrize(("training", "evaluation"), LENGTHS)
def test_texts_are_cut_for_training_for_evaluation_and_for_inference(
    make_case, training: int, evaluation: int
) -> None:
    case = make_case(max_length=training, inference_max_length=evaluation)
    frame = case.task.read_train()
    texts = frame["full_text"].tolist()

    def encoded(length: int) -> list[list[int]]:
        rows = encode_texts(case.tokenizer, texts, max_length=length)
        return [row.tolist() for row in rows]

    def ids(examples) -> list[list[int]]:
        return [example.input_ids.tolist() for example in examples]

    assert any(len(row) == 48 for row in encoded(48))  # or this test tells nothing
    assert ids(case.examples) == encoded(48)
    assert ids(case.task.cut(case.examples, training=True)) == encoded(training)
    assert ids(case.task.cut(case.examples, training=False)) == encoded(evaluation)
    unseen = frame[["text_id", "full_text"]]
    assert ids(case.task.encode(unseen, case.tokenizer)) == encoded(evaluation)
    assert ids(make_case(max_length=24).examples) == encoded(24)


@pytest.mark.parametrize(("training", "evaluation"), LENGTHS)
def test_a_run_trains_on_one_length_and_is_evaluated_on_another(
    make_case, monkeypatch: pytest.MonkeyPatch, training: int, evaluation: int
) -> None:
    widths: dict[bool, set[int]] = {True: set(), False: set()}
    forward = PooledModel.forward

    def noting(self, input_ids, attention_mask):
        widths[self.training].add(input_ids.shape[1])
        return forward(self, input_ids, attention_mask)

    monkeypatch.setattr(PooledModel, "forward", noting)
    case = make_case(
        max_length=training, inference_max_length=evaluation, folds=(0,), fgm_epsilon=0.0
    )
    run = case.cross_validate()
    assert max(widths[True]) == training and max(widths[False]) == evaluation
    rows = [e for e, at in zip(case.examples, case.folds, strict=True) if at == 0]
    assert read_oof(run, 0)["text_id"].tolist() == [e.id for e in rows]
    # What inference makes of the same texts, from what the run folder holds.
    unseen = case.task.read_train()[case.folds == 0][["text_id", "full_text"]]
    task = restore_task(run.record)
    model = task.empty_model(run.fold_folder(0)).eval()
    load_weights(model, run.fold_folder(0) / WEIGHTS)
    examples = task.encode(unseen, load_tokenizer(run.folder / "tokenizer"))
    with torch.no_grad():
        found = [model(*collate([e], 0).inputs).numpy()[0] for e in examples]
    oof = read_oof(run, 0).filter(like="pred_").to_numpy()
    assert np.allclose(task.clip(np.stack(found)), oof, atol=1e-4)


def test_every_message_is_of_one_family() -> None:
    assert issubclass(DataError, KernelLibError) and issubclass(SettingsError, KernelLibError)
