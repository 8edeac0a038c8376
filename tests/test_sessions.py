"""Sessions of one run in one folder: every fold once, nothing mixed, never half a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.artifacts import LOG, MANIFEST, RUN_RECORD, WEIGHTS, Run
from kernel_lib.errors import ArtifactError
from kernel_lib.training import sessions as module
from kernel_lib.training.sessions import check_same_run, differences, furthest, join_sessions
from kernel_lib.training.state import RESUME, Progress

IDENTITY = {
    "settings": {"seed": 42, "epochs": 5},
    **dict.fromkeys(("data", "tokens", "folds", "backbone"), "same"),
}


def make_session(
    folder: Path, folds: tuple[int, ...], *, run_id: str = "a", identity: Any = IDENTITY
) -> Run:
    """A run folder as far as it is looked at; a fold's weights are its number."""
    record = {"format": 1, "run_id": run_id, "identity": identity, "name": folder.name}
    for fold in folds:
        path = folder / f"fold{fold}"
        path.mkdir(parents=True)
        (path / WEIGHTS).write_text(str(fold))
        (path / LOG).write_text(folder.name)
        manifest = {"run_id": run_id, "fold": fold, "sha256": {WEIGHTS: f"of {fold}"}}
        (path / MANIFEST).write_text(json.dumps(manifest))
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "tokenizer/tokenizer.json").write_text(folder.name)
    (folder / RUN_RECORD).write_text(json.dumps(record))
    return Run(folder, record)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[Path, Progress]:
    """Where each saved state stands; the files themselves are empty."""
    known: dict[Path, Progress] = {}
    monkeypatch.setattr(module, "read_progress", lambda path, run_id: known.get(path))
    return known


def begin(run: Run, fold: int, states: dict[Path, Progress], **progress: Any) -> None:
    """Leaves a state of a fold in a session."""
    path = run.fold_folder(fold) / RESUME
    path.parent.mkdir(exist_ok=True)
    path.write_text(run.folder.name)
    states[path] = Progress(**progress)


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_each_fold_is_taken_from_the_session_that_has_it(tmp_path: Path, capsys) -> None:
    one = make_session(tmp_path / "one", (2,))
    two = make_session(tmp_path / "two", (0, 10))
    (two.fold_folder(0) / "extra.txt").write_text("mine")
    join_sessions([one, two], tmp_path / "run")
    found = files(tmp_path / "run")
    assert {name for name in found if name.endswith(MANIFEST)} == {
        f"fold{fold}/{MANIFEST}" for fold in (0, 2, 10)
    }
    assert [found[f"fold{fold}/{LOG}"] for fold in (0, 2, 10)] == ["two", "one", "two"]
    assert found["fold0/extra.txt"] == "mine"
    assert found["tokenizer/tokenizer.json"] == "two"  # it got furthest
    assert json.loads(found[RUN_RECORD])["name"] == "two"
    assert capsys.readouterr().out == ""


def test_the_same_fold_twice_with_the_same_weights_is_taken_once(tmp_path: Path, capsys) -> None:
    one, two = make_session(tmp_path / "one", (0,)), make_session(tmp_path / "two", (0, 1))
    join_sessions([one, two], tmp_path / "run")
    found = files(tmp_path / "run")
    assert [found[f"fold{fold}/{LOG}"] for fold in (0, 1)] == ["one", "two"]
    assert "two: fold 0 is also in " in capsys.readouterr().out


def test_the_same_fold_with_other_weights_is_refused_before_anything_is_copied(
    tmp_path: Path,
) -> None:
    one, two = make_session(tmp_path / "one", (0, 1)), make_session(tmp_path / "two", (1,))
    manifest = {"run_id": "a", "fold": 1, "sha256": {WEIGHTS: "of another training"}}
    (two.fold_folder(1) / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"fold 1 is finished in .*one and in .*two, with diff"):
        join_sessions([one, two], tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        ({**IDENTITY, "settings": {"seed": 7, "epochs": 5}}, r"seed was 42, is 7\. Their folds"),
        ({**IDENTITY, "settings": {"seed": 42}}, r"epochs was 5, is None\."),
        ({**IDENTITY, "data": "other", "backbone": "other"}, r"other data; other backbone\."),
        ({}, r"seed was 42, is None.*other data"),
        (IDENTITY, r"another task\."),
    ],
)
def test_sessions_of_other_runs_are_refused_by_what_differs(
    tmp_path: Path, identity: Any, message: str
) -> None:
    one = make_session(tmp_path / "one", (0,))
    two = make_session(tmp_path / "two", (1,), run_id="b", identity=identity)
    with pytest.raises(ArtifactError, match=rf"one and .*two are not of one run: {message}"):
        join_sessions([one, two], tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unfinished_fold_goes_on_from_where_it_got_furthest(
    tmp_path: Path, states: dict[Path, Progress]
) -> None:
    one, two = make_session(tmp_path / "one", (0,)), make_session(tmp_path / "two", (1,))
    begin(one, 2, states, epoch=1, batch=3)
    begin(two, 2, states, epoch=1, batch=20)
    begin(one, 3, states, epoch=2, batch=0)
    begin(two, 3, states, epoch=1, batch=99)
    begin(two, 0, states, epoch=4, batch=9)  # finished in the other session
    begin(one, 0, states, epoch=4, batch=9)  # killed before it could remove it
    join_sessions([one, two], tmp_path / "run")
    found = files(tmp_path / "run")
    states_found = {name: text for name, text in found.items() if name.endswith(RESUME)}
    assert states_found == {f"fold2/{RESUME}": "two", f"fold3/{RESUME}": "one"}


def test_half_of_a_copy_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = make_session(tmp_path / "one", (0,)), make_session(tmp_path / "two", (1,))
    (one.folder / ".tmp123abc").write_text("of a killed session")
    (one.fold_folder(0) / f".{WEIGHTS}.0123abcd.tmp").write_text("of a killed session")
    copy = module.shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if source == two.fold_folder(1) / WEIGHTS:
            raise OSError(28, "No space left on device")
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "copyfile", full)
        with pytest.raises(ArtifactError, match="No space left"):
            join_sessions([one, two], tmp_path / "run")
    assert RUN_RECORD not in files(tmp_path / "run")
    join_sessions([one, two], tmp_path / "run")
    found = files(tmp_path / "run")
    assert RUN_RECORD in found and not [name for name in found if "tmp" in name]


def test_a_session_alone_is_copied_and_furthest(tmp_path: Path) -> None:
    one = make_session(tmp_path / "one", (0, 1))
    check_same_run([one])
    assert furthest([one]) is one
    join_sessions([one], tmp_path / "run")
    found, there = files(tmp_path / "run"), files(one.folder)
    assert json.loads(found.pop(RUN_RECORD)) == json.loads(there.pop(RUN_RECORD))
    assert found == there


def test_what_differs_is_named() -> None:
    assert differences(IDENTITY, {**IDENTITY, "folds": "other"}) == "other folds"
    assert differences(IDENTITY, IDENTITY) == "another task"
