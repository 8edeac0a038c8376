"""Settings: refused at once when wrong, the same after JSON, changeable from outside."""

from __future__ import annotations

import dataclasses
import json

import pytest

from kernel_lib.config import (
    OVERRIDES_VARIABLE,
    InferenceSettings,
    TrainingSettings,
    digest,
    nearest,
)
from kernel_lib.errors import SettingsError


def test_settings_are_the_same_after_a_trip_through_json() -> None:
    settings = TrainingSettings(folds=(2, 0), freeze_layers=3, learning_rate=1e-5, debug=False)
    again = TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict())))
    assert again == settings
    assert again.folds == (2, 0) and isinstance(again.folds, tuple)
    assert again.freeze_embeddings is None


@pytest.mark.parametrize(
    "make",
    [
        lambda **wrong: TrainingSettings(**wrong),
        lambda **wrong: TrainingSettings().replace(**wrong),
        lambda **wrong: TrainingSettings.from_dict(wrong),
    ],
    ids=["made", "replaced", "read"],
)
def test_an_unknown_setting_names_the_nearest_known_one(make) -> None:
    with pytest.raises(SettingsError, match=r"'learning_rat'.*'learning_rate'"):
        make(learning_rat=1e-5)


def test_a_name_that_resembles_nothing_lists_what_is_known() -> None:
    assert nearest("zzzz", ["mean", "cls"]) == "known: cls, mean."


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"epochs": "3"}, "epochs='3' is str; it must be int"),
        ({"epochs": 2.5}, "epochs=2.5 is float; it must be int"),
        ({"epochs": True}, "epochs=True is bool; it must be int"),
        ({"learning_rate": "5e-5"}, "learning_rate='5e-5' is str"),
        ({"learning_rate": True}, "learning_rate=True is bool"),
        ({"epochs": None}, "epochs=None is NoneType"),
        ({"debug": 1}, "debug=1 is int; it must be bool"),
        ({"backbone": 3}, "backbone=3 is int; it must be str"),
        ({"folds": "0,1"}, "folds='0,1' is str; it must be tuple"),
        ({"folds": [0, "1"]}, "folds='1' is str"),
        ({"folds": [0, True]}, "folds=True is bool"),
        ({"freeze_layers": "2"}, "freeze_layers='2' is str"),
        ({"freeze_embeddings": 1}, "freeze_embeddings=1 is int"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_by_name(wrong, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(**wrong)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"n_folds": 1}, "n_folds=1 must be at least 2"),
        ({"dropout": 1.0}, "dropout=1.0 must be below 1"),
        ({"dropout": -0.1}, "dropout=-0.1 must be at least 0"),
        ({"layer_decay": 0.0}, "layer_decay=0.0 must be above 0"),
        ({"layer_decay": 1.01}, "layer_decay=1.01 must be at most 1"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must be above 0"),
        ({"time_budget_seconds": 0}, "time_budget_seconds=0.0 must be above 0"),
        ({"freeze_layers": -1}, "freeze_layers=-1 must be at least 0"),
        ({"precision": "bf32"}, "precision='bf32' is not known"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_bound(wrong, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        TrainingSettings(**wrong)
    assert says in str(caught.value)


def test_the_ends_of_inclusive_ranges_are_allowed() -> None:
    settings = TrainingSettings(layer_decay=1.0, dropout=0.0, n_folds=2, fgm_epsilon=0.0)
    assert settings.layer_decay == 1.0


def test_an_unknown_choice_suggests_one_and_lists_all() -> None:
    with pytest.raises(SettingsError, match=r"'cosin'.*'cosine'.*cosine, linear, constant"):
        TrainingSettings(schedule="cosin")


@pytest.mark.parametrize("folds", [(4,), (0, -1), [1, 9]])
def test_a_fold_that_does_not_exist_contradicts_n_folds(folds) -> None:
    with pytest.raises(SettingsError, match="n_folds=4 has folds 0 to 3"):
        TrainingSettings(n_folds=4, folds=folds)


def test_grouped_folds_need_a_group_column() -> None:
    with pytest.raises(SettingsError, match="group_column"):
        TrainingSettings(fold_scheme="grouped")
    assert TrainingSettings(fold_scheme="grouped", group_column="writer").group_column == "writer"


def test_wanted_folds_are_in_order_without_repeats_and_all_when_none_is_named() -> None:
    assert TrainingSettings(folds=(3, 1, 3)).wanted_folds == (1, 3)
    assert TrainingSettings(n_folds=3).wanted_folds == (0, 1, 2)


def test_a_list_becomes_a_tuple_and_a_whole_number_a_float() -> None:
    settings = TrainingSettings(folds=[0, 2], fgm_epsilon=1)
    assert settings.folds == (0, 2)
    assert isinstance(settings.fgm_epsilon, float)
    # 1 and 1.0 must not make two runs of one.
    assert digest(settings.result_values()) == digest(
        TrainingSettings(fgm_epsilon=1.0).result_values()
    )


def test_settings_cannot_be_changed_once_made() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().epochs = 3  # type: ignore[misc]


def test_the_environment_overrides_settings_and_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setenv(OVERRIDES_VARIABLE, '{"epochs": 1, "folds": [0]}')
    settings = TrainingSettings(epochs=5, seed=7).overridden()
    assert (settings.epochs, settings.folds, settings.seed) == (1, (0,), 7)
    printed = capsys.readouterr().out
    assert "epochs: 5 -> 1" in printed and "folds: () -> (0,)" in printed and "seed" not in printed


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_without_the_variable_nothing_changes(monkeypatch, capsys, text) -> None:
    if text is not None:
        monkeypatch.setenv(OVERRIDES_VARIABLE, text)
    assert TrainingSettings(epochs=3).overridden() == TrainingSettings(epochs=3)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("epochs=1", "is not JSON"),
        ("{'epochs': 1}", "is not JSON"),
        ("[1, 2]", "must hold a JSON object"),
        ("null", "must hold a JSON object"),
        ('{"epoch": 1}', "did you mean 'epochs'"),
        ('{"epochs": "1"}', "epochs='1' is str"),
        ('{"epochs": 0}', "must be at least 1"),
    ],
)
def test_a_wrong_override_is_an_error_that_says_what_is_wrong(monkeypatch, text, says) -> None:
    monkeypatch.setenv(OVERRIDES_VARIABLE, text)
    with pytest.raises(SettingsError) as caught:
        TrainingSettings().overridden()
    assert says in str(caught.value)


def test_debug_makes_a_run_small() -> None:
    settings = TrainingSettings(debug=True, n_folds=5, epochs=4)
    assert (settings.n_folds, settings.epochs, settings.max_rows) == (2, 1, 200)
    assert settings.wanted_folds == (0, 1)


def test_debug_never_makes_a_run_larger() -> None:
    assert TrainingSettings(debug=True, max_rows=50).max_rows == 50
    assert TrainingSettings(debug=True, max_rows=5000).max_rows == 200


def test_what_was_asked_of_a_debug_run_outlives_every_replacement() -> None:
    twice = TrainingSettings(debug=True, n_folds=5, epochs=4).replace(seed=1).replace(max_length=64)
    assert (twice.n_folds, twice.epochs) == (2, 1)
    full = twice.replace(debug=False)
    assert (full.n_folds, full.epochs, full.seed, full.max_length) == (5, 4, 1, 64)


def test_debug_is_the_same_after_a_trip_through_json() -> None:
    settings = TrainingSettings(debug=True, n_folds=5)
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    "where",
    [
        {"output_dir": "elsewhere"},
        {"data_dir": "/data"},
        {"backbone": "/other/path"},
        {"resume_from": "old"},
        {"resume_from": ("old", "older")},
        {"devices": 2},
        {"time_budget_seconds": 60.0},
        {"checkpoint_seconds": 5.0},
        {"folds": (1,)},
        {"eval_batch_tokens": 64},
        {"wandb": True},
    ],
)
def test_where_and_how_long_do_not_change_what_is_computed(where) -> None:
    assert digest(TrainingSettings(**where).result_values()) == digest(
        TrainingSettings().result_values()
    )


def test_fgm_is_off_unless_asked_for_and_awp_needs_nothing_else() -> None:
    assert TrainingSettings().fgm_epsilon == 0 == TrainingSettings(awp="two_pass").fgm_epsilon
    with pytest.raises(SettingsError, match="each makes a second pass of its own"):
        TrainingSettings(awp="two_pass", fgm_epsilon=0.2)


@pytest.mark.parametrize(
    "what",
    [
        {"seed": 1},
        {"epochs": 2},
        {"pooling": "mean"},
        {"fgm_epsilon": 0.2},
        {"keep_newlines": False},
        {"precision": "float32"},
        {"n_folds": 5},
        {"max_length": 256},
        {"freeze_layers": 0},
        {"gradient_accumulation_steps": 2},
    ],
)
def test_what_changes_the_computation_changes_the_digest(what) -> None:
    assert digest(TrainingSettings(**what).result_values()) != digest(
        TrainingSettings().result_values()
    )


def test_a_run_of_an_earlier_release_is_read_without_what_is_no_setting_any_more() -> None:
    values = {**TrainingSettings(epochs=3).to_dict(), "eval_batch_size": 16}
    del values["batch_tokens"], values["eval_batch_tokens"]  # it did not have them
    assert TrainingSettings.from_dict(values) == TrainingSettings(epochs=3)
    with pytest.raises(SettingsError, match="unknown setting 'eval_batch_size'"):
        TrainingSettings(eval_batch_size=16)


def test_inference_settings_hold_only_what_a_run_does_not_tell() -> None:
    names = {field.name for field in dataclasses.fields(InferenceSettings)}
    assert names == {
        *("runs", "blend", "data_dir", "submission"),
        *("eval_batch_tokens", "precision", "time_budget_seconds"),
        *("attention", "devices"),
    }
    assert InferenceSettings(runs=["a", "b"]).runs == ("a", "b")


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_debug_cell_overridden_to_a_full_run_is_full(monkeypatch) -> None:
    monkeypatch.setenv(OVERRIDES_VARIABLE, '{"debug": false}')
    full = TrainingSettings(debug=True, n_folds=5, epochs=3, folds=(4,)).overridden()
    assert (full.n_folds, full.epochs, full.folds, full.max_rows) == (5, 3, (4,), 0)
    assert full.run_folder.name == "run"


@pytest.mark.parametrize(
    ("given", "folders"),
    [("", ()), ("old", ("old",)), ((), ()), (["old", "older"], ("old", "older"))],
)
def test_one_run_to_go_on_from_needs_no_list(given, folders) -> None:
    settings = TrainingSettings(resume_from=given)
    assert settings.resume_from == folders
    assert TrainingSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.replace(seed=1).resume_from == folders


def test_a_run_to_go_on_from_is_a_path() -> None:
    with pytest.raises(SettingsError, match="resume_from=3 is int"):
        TrainingSettings(resume_from=3)
