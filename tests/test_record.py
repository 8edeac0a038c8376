"""What a run's record says, and what it refuses to be mixed with."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil

import numpy as np
import pytest

from kernel_lib.artifacts import open_run
from kernel_lib.errors import ArtifactError, DataError, SettingsError
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE
from kernel_lib.text.batches import Example
from kernel_lib.training import sessions
from kernel_lib.training.record import examples_fingerprint, score_line


def test_the_fingerprint_sees_ids_tokens_targets_and_order(make_case) -> None:
    examples = make_case().examples
    whole = examples_fingerprint(examples)
    assert whole == examples_fingerprint(list(examples))
    assert whole != examples_fingerprint(examples[::-1])
    assert whole != examples_fingerprint(examples[:-1])


def test_the_score_line_gives_score_error_rows_and_folds(trained) -> None:
    run = open_run(trained())
    score = run.record["pooled"]["scores"]["mcrmse"]
    line = score_line(run)
    assert line.startswith(f"CV mcrmse {score:.4f} ± ")
    assert "40 rows out of fold, 2 folds" in line


def test_without_a_finished_fold_the_line_says_what_to_do(make_case) -> None:
    run = make_case().cross_validate(clock=Clock(0.0))
    assert score_line(run) == (
        "no fold is finished yet: run again to go on, with more time or fewer epochs"
    )


def test_settings_that_only_say_where_may_change_between_sessions(make_case, own_run) -> None:
    first = open_run(own_run(folds=(0,)))
    second = make_case(folds=(0,), time_budget_seconds=5.0, eval_batch_tokens=300).cross_validate()
    assert first.id == second.id


def test_the_fingerprint_is_that_of_ids_kept_as_int64_by_earlier_releases() -> None:
    ids, target = np.array([1, 7, 2]), np.array([3.5, 1.0], dtype=np.float32)
    whole = hashlib.sha256()
    for part in (b"essay", ids.astype("<i8").tobytes(), target.tobytes()):
        whole.update(len(part).to_bytes(8, "little") + part)
    examples = [Example("essay", ids.astype(np.int32), target)]
    assert examples_fingerprint(examples) == whole.hexdigest()[:16]
    examples[0].input_ids[1] = 8
    assert examples_fingerprint(examples) != whole.hexdigest()[:16]


def test_another_tokenizer_is_refused(make_case, own_run) -> None:
    own_run(folds=(0,))
    case = make_case(folds=(0,))
    case.tokenizer.add_tokens(["The quick"])
    with pytest.raises(ArtifactError, match="other tokens"):
        case.cross_validate()


def test_resume_from_a_folder_that_is_no_run_is_said(make_case, tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"resume_from=.*nothing.* holds run\.json"):
        make_case(resume_from=str(tmp_path / "nothing")).cross_validate()
    assert not (tmp_path / "run").exists()


def test_resume_from_a_run_of_other_settings_copies_nothing(make_case, own_run, tmp_path) -> None:
    attached = own_run("attached", folds=(0,))
    with pytest.raises(ArtifactError, match=r"attached holds another run: seed was 42, is 7"):
        make_case(resume_from=str(attached), seed=7).cross_validate()
    assert not (tmp_path / "run").exists()


def test_a_session_is_found_by_the_name_that_it_is_attached_under(
    make_case, own_run, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path))
    attached = own_run("input/notebooks/me/fb3-train/run", folds=(0,))
    before = (attached / "fold0/model.safetensors").read_bytes()
    joined = make_case(resume_from="fb3-train", folds=(0,)).cross_validate()
    assert joined.folder == tmp_path / "run"
    assert (joined.folder / "fold0/model.safetensors").read_bytes() == before


def test_a_copy_of_read_only_files_can_be_written(make_case, own_run, tmp_path) -> None:
    own_run("attached", folds=(0,))
    for path in (tmp_path / "attached").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        make_case(resume_from=str(tmp_path / "attached"), folds=(0,)).cross_validate()
    finally:
        for path in (tmp_path / "attached").rglob("*"):
            path.chmod(0o755)
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "run").rglob("*"))


def test_a_copy_that_was_interrupted_is_made_again(
    make_case, own_run, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = open_run(own_run("attached"))
    copied: list[str] = []

    def full(source, target) -> None:
        if source.parent.name == "tokenizer":  # the last ones
            raise OSError(28, "No space left on device")
        copied.append(source.name)
        target.write_bytes(source.read_bytes())

    case = make_case(resume_from=str(tmp_path / "attached"))
    with monkeypatch.context() as patch:
        patch.setattr(sessions.shutil, "copyfile", full)
        with pytest.raises(ArtifactError, match="No space left"):
            case.cross_validate()
    files = [path.name for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert sorted(files) == sorted(copied) and "run.json" not in files
    assert case.cross_validate().record["pooled"] == attached.record["pooled"]


def test_a_mended_typo_is_not_held_against_a_run_that_never_began(make_case, tmp_path) -> None:
    with pytest.raises(SettingsError, match="pooling='atention'"):
        make_case(pooling="atention").cross_validate()
    assert make_case(folds=(0,)).cross_validate().finished_folds() == [0]


@pytest.mark.parametrize("name", [".resume.safetensors.0123abcd.tmp", ".tmpmnyvMr"])
def test_temporary_files_of_a_killed_session_are_removed(
    make_case, own_run, tmp_path, name: str
) -> None:
    attached, left = tmp_path / "attached", own_run(folds=(0,)) / "fold1" / name
    left.parent.mkdir()
    left.write_bytes(b"half")
    shutil.copytree(tmp_path / "run", attached)
    make_case(folds=(0,)).cross_validate()
    assert not left.exists()
    there = {"output_dir": str(tmp_path / "b"), "resume_from": str(attached)}
    make_case(folds=(0,), **there).cross_validate()
    assert not (tmp_path / "b/fold1").exists()


def test_other_hidden_files_in_the_folder_are_left_alone(make_case, tmp_path) -> None:
    others = [tmp_path / "run" / name for name in (".gitignore", ".tmp", ".notes.tmp")]
    others[0].parent.mkdir()
    for path in others:
        path.write_text("mine")
    for _ in range(2):
        make_case(folds=(0,)).cross_validate()
    assert all(path.read_text() == "mine" for path in others)


def test_a_second_session_with_more_folds_is_recorded_as_such(make_case, own_run) -> None:
    own_run(folds=(0,))
    assert make_case().cross_validate().record["settings"]["folds"] == ()


def test_no_rows_are_said_before_anything_is_written(make_case, tmp_path) -> None:
    case = make_case()
    empty = dataclasses.replace(case, examples=[], folds=case.folds[:0])
    with pytest.raises(DataError, match="no rows"):
        empty.cross_validate()
    assert not (tmp_path / "run").exists()
