"""The runs of an ensemble: found wherever they are, each fold once, the most valuable first."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernel_lib.artifacts import MANIFEST, TOKENIZER, Run, open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError
from kernel_lib.results.blend_file import BLEND, Blend, Part
from kernel_lib.results.blend_weights import Weights
from kernel_lib.results.combination import find_combination
from kernel_lib.results.members import (
    best_first,
    check_members,
    encode_test,
    find_runs,
    gather_members,
    in_rounds,
    task_of,
)
from kernel_lib.tasks.regression import FB3_COLUMNS, RegressionSettings


def make_run(
    folder: Path, run_id: str, *, folds: tuple[int, ...] = (0, 1), score: Any = None, **settings
) -> Run:
    """A run folder as far as it is read before anything is predicted."""
    folder.mkdir(parents=True)
    for fold in folds:
        (folder / f"fold{fold}").mkdir()
        (folder / f"fold{fold}" / MANIFEST).write_text("{}")
    record = {
        "format": 1,
        "run_id": run_id,
        "task": "fb3",
        "settings": RegressionSettings(**settings).to_dict(),
        "identity": {},
        "folds": [{"fold": fold} for fold in folds],
        "pooled": {} if score is None else {"scores": {"mcrmse": score}},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return Run(folder, record)


def test_runs_are_found_under_the_inputs_at_any_depth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_LIB_KAGGLE_ROOT", str(tmp_path / "kaggle"))
    with pytest.raises(ArtifactError, match="no run folder"):
        find_runs(())
    place = tmp_path / "kaggle/input/notebooks/somebody/fb3-train/run"
    make_run(place, "a")
    assert [run.folder for run in find_runs(())] == [place]


def test_a_run_without_a_finished_fold_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "a", folds=())
    with pytest.raises(ArtifactError, match="no finished fold"):
        find_runs([str(tmp_path / "run")])


def test_a_run_of_another_task_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "a")
    with pytest.raises(ArtifactError, match="task 'qa' is not known"):
        task_of(Run(run.folder, {**run.record, "task": "qa"}))


def test_sessions_of_one_run_are_one_member_and_each_fold_counts_once(
    tmp_path: Path, capsys
) -> None:
    first = make_run(tmp_path / "first", "a", folds=(2, 0), score=0.4)
    second = make_run(tmp_path / "second", "a", folds=(0, 1, 2, 3), score=0.6)
    (member,) = gather_members([first, second])
    assert list(member.folds) == [0, 1, 2, 3]
    assert [run.folder.name for run in member.folds.values()] == [
        "first",
        "second",
        "first",
        "second",
    ]
    assert member.record is second.record  # it got furthest
    assert capsys.readouterr().out.count("is also in") == 2


def test_members_are_called_by_the_end_of_their_path_that_tells_them_apart(tmp_path: Path) -> None:
    alone = make_run(tmp_path / "x/run", "a")
    assert [member.name for member in gather_members([alone])] == ["run"]
    other = make_run(tmp_path / "y/run", "b")
    assert [member.name for member in gather_members([alone, other])] == ["x/run", "y/run"]


def test_the_best_score_comes_first_and_none_comes_last(tmp_path: Path) -> None:
    scores = {"none": None, "c": 0.6, "a": 0.4, "nan": math.nan, "b": 0.5, "b2": 0.5}
    runs = [make_run(tmp_path / name, name, score=score) for name, score in scores.items()]
    members = gather_members(runs)
    assert [member.name for member in best_first(members)] == ["a", "b", "b2", "c", "none", "nan"]
    for member in members:
        member.task.lower_is_better = False
    assert [member.name for member in best_first(members)] == ["c", "b", "b2", "a", "none", "nan"]


def test_a_run_that_never_wrote_down_a_score_has_none(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a", "a"), make_run(tmp_path / "b", "b", score=0.9)]
    del runs[0].record["pooled"]
    assert [member.name for member in best_first(gather_members(runs))] == ["b", "a"]


def test_each_round_takes_the_next_fold_of_each_member(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "a", folds=(1, 3, 4)),
        make_run(tmp_path / "b", "b", folds=(0,)),
        make_run(tmp_path / "c", "c", folds=(0, 2)),
    ]
    visits = [f"{member.name}{fold}" for member, fold in in_rounds(gather_members(runs))]
    assert visits == ["a1", "b0", "c0", "a3", "c2", "a4"]


def test_the_mean_does_not_depend_on_the_order_the_folds_were_done_in(tmp_path: Path) -> None:
    # float64: sums of float32 would be exact in any order.
    values: Any = np.random.default_rng(0).uniform(1, 5, size=(5, 300, 6))
    (there,) = gather_members([make_run(tmp_path / "a", "a")])
    (back,) = gather_members([make_run(tmp_path / "b", "b")])
    there.predictions = dict(enumerate(values))
    back.predictions = dict(reversed(list(enumerate(values))))
    assert (there.mean() == back.mean()).all()
    assert np.allclose(there.mean(), values.mean(axis=0))


def test_members_of_other_columns_cannot_be_averaged(tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "a", "a"),
        make_run(tmp_path / "b", "b", target_columns=("cohesion", "syntax")),
    ]
    with pytest.raises(ArtifactError, match="another cohesion, syntax from 1 to 5: they cannot"):
        check_members(gather_members(runs))


def test_members_on_another_scale_cannot_be_averaged_or_blended(tmp_path: Path) -> None:
    settings = ({}, {"target_max": 6.0})
    runs = [make_run(tmp_path / str(at), str(at), **each) for at, each in enumerate(settings)]
    members = gather_members(runs)
    with pytest.raises(ArtifactError, match="conventions from 1 to 6: they cannot be averaged"):
        check_members(members)
    weights = Weights(np.ones((2, 6)) / 2, np.zeros(6), False, None)
    parts = (Part("0", "0"), Part("1", "1"))
    Blend("mean", FB3_COLUMNS, parts, (), weights, {}).write(tmp_path / BLEND)
    with pytest.raises(ArtifactError, match="different scales, 1 to 5 and 1 to 6: not to be"):
        find_combination(members, InferenceSettings(blend=str(tmp_path / BLEND)))


def test_a_finished_fold_that_lost_its_manifest_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "a", folds=(0, 1, 2))
    (run.fold_folder(1) / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"fold1/manifest\.json is missing.*Copy the whole"):
        check_members(gather_members([run]))


def test_a_fold_that_was_left_behind_or_is_in_another_session_is_no_error(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "a", folds=(0, 1, 2))
    other = make_run(tmp_path / "other", "a", folds=(1,))
    (run.fold_folder(1) / MANIFEST).unlink()
    shutil.rmtree(run.fold_folder(2))
    members = gather_members([run, other])
    check_members(members)
    assert list(members[0].folds) == [0, 1]


def test_the_test_rows_are_encoded_by_the_runs_own_tokenizer_or_not_at_all(
    make_case, own_run, material
) -> None:
    case = make_case()
    (member,) = gather_members([open_run(own_run())])
    test = case.task.read_test(InferenceSettings(data_dir=str(material.competition))).frame
    encode_test(member, test)
    expected = case.task.encode(test, case.tokenizer)
    assert [e.id for e in member.examples] == [e.id for e in expected]
    assert all(
        map(np.array_equal, *([e.input_ids for e in x] for x in (member.examples, expected)))
    )
    assert member.pad_id == case.tokenizer.pad_token_id

    path = member.sessions[0].folder / TOKENIZER / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["normalizer"] = {"type": "NFC"}  # what transformers 5 would put there
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ArtifactError, match="gives other ids"):
        encode_test(member, test)
