"""A submission combined by the weights of a blend, from real runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.artifacts import open_run
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, SettingsError
from kernel_lib.results.blend_file import BLEND, Blend, Part
from kernel_lib.results.blend_weights import Weights, rank_mean
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE
from kernel_lib.tasks import regression
from kernel_lib.tasks.regression import FB3_COLUMNS
from kernel_lib.tasks.spelling_settings import SpellingSettings
from kernel_lib.tasks.submission import check_submission
from tests import test_ensemble
from tests.test_ensemble import SlowModels, rewrite, set_score

TARGETS = len(FB3_COLUMNS)
UNEVEN = np.array([[0.5], [0.2], [0.28]]) + np.linspace(0, 0.02, TARGETS)


slow = test_ensemble.slow  # its fixture


@pytest.fixture
def runs(own_run: Callable[..., Path]) -> list[Path]:
    """Three runs, of two folds, of one, and of one; the second is the best."""
    found = []
    for name, changes, score in (
        ("a", {}, 0.6),
        ("b", {"seed": 3, "folds": (0,)}, 0.5),
        ("c", {"seed": 4, "folds": (1,)}, 0.7),
    ):
        found.append(own_run(name, **changes))
        set_score(found[-1], score)
    return found


def part(run: Path) -> Part:
    return Part(open_run(run).id, run.name)


def write(
    path: Path,
    members: list[Path],
    values: Any,
    intercepts: Any = 0.0,
    *,
    dropped: list[Path] | None = None,
    by_rank: bool = False,
) -> str:
    """A blend of some runs; one weight a run stands for all targets."""
    weights = np.broadcast_to(np.array(values, dtype=float), (len(members), TARGETS))
    whole = Weights(weights, np.broadcast_to(np.array(intercepts), TARGETS), by_rank)
    parts = tuple(map(part, members)), tuple(map(part, dropped or []))
    Blend("by hand", FB3_COLUMNS, *parts, whole, {}).write(path)
    return str(path)


@pytest.fixture
def infer(material, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    def run(runs: list[Path], clock: Clock | None = None, **changes: Any) -> pd.DataFrame:
        settings = InferenceSettings(
            **{
                "runs": tuple(map(str, runs)),
                "data_dir": str(material.competition),
                "submission": str(tmp_path / "submission.csv"),
                "precision": "float32",
                **changes,
            }
        )
        frame = pd.read_csv(predict_submission(settings, clock), dtype={"text_id": str})
        return frame.set_index("text_id")

    return run


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Every submission that is written, as numbers."""
    written: list[np.ndarray] = []
    write_submission = regression.write_submission

    def noting(frame: pd.DataFrame, *args: Any, **options: Any) -> None:
        written.append(frame.drop(columns="text_id").to_numpy(dtype=float))
        write_submission(frame, *args, **options)

    monkeypatch.setattr(regression, "write_submission", noting)
    return written


@pytest.fixture(scope="module")
def known() -> dict[str, np.ndarray]:
    """What single runs were found to predict by an earlier test of this file."""
    return {}


@pytest.fixture
def single(runs: list[Path], infer: Callable[..., pd.DataFrame], known) -> np.ndarray:
    """Each run's own predictions, ``(runs, rows, targets)``."""
    if not known:
        known.update({run.name: infer([run]).to_numpy() for run in runs})
    return np.stack([known[run.name] for run in runs])


def test_the_weights_of_each_run_and_target_count(
    runs, single, infer, tmp_path: Path, capsys
) -> None:
    blend = write(tmp_path / "w.json", [runs[2], runs[0], runs[1]], UNEVEN)
    found = infer(runs, blend=blend).to_numpy()
    expected = sum(UNEVEN[at] * single[run] for at, run in enumerate((2, 0, 1)))
    assert np.allclose(found, np.clip(expected, 1, 5), atol=1e-6)
    assert not np.allclose(found, single.mean(axis=0), atol=1e-3)
    assert "w.json: by hand, 3 runs" in capsys.readouterr().out


def test_negative_weights_and_intercepts_count_once_all_are_there(
    runs, single, infer, frames, tmp_path: Path, capsys
) -> None:
    values, intercepts = np.array([[0.9], [0.4], [-0.3]]), np.linspace(-0.2, 0.3, TARGETS)
    write(tmp_path / BLEND, runs, values, intercepts)
    found = infer(runs, blend=str(tmp_path)).to_numpy()  # the folder will do
    written, (_, b, c) = frames[-5:], single
    expected = np.tensordot([0.9, 0.4, -0.3], single, 1) + intercepts
    assert np.allclose(found, np.clip(expected, 1, 5), atol=1e-5)
    first_fold_of_a = 2 * written[2] - b  # of b and one fold of a the plain mean, then with c
    assert np.allclose(written[1], b, atol=1e-6) and np.allclose(written[4], found)
    expected = 0.9 * first_fold_of_a + 0.4 * b - 0.3 * c + intercepts
    assert np.allclose(written[3], np.clip(expected, 1, 5), atol=1e-5)
    assert "NOT THE WHOLE BLEND" not in capsys.readouterr().out


def test_positive_weights_are_scaled_up_until_all_are_there(
    runs, single, infer, frames, tmp_path: Path
) -> None:
    """b, then a's first fold, then c: weights 0.5 of a, 0.2 of b, 0.28 of c."""
    infer(runs, blend=write(tmp_path / "w.json", runs, [[0.5], [0.2], [0.28]]))
    written, (_, b, c) = frames[-5:], single
    assert np.allclose(written[1], np.clip(0.98 * b, 1, 5), atol=1e-6)
    first_fold_of_a = (written[2] / 0.98 * 0.7 - 0.2 * b) / 0.5
    expected = 0.5 * first_fold_of_a + 0.2 * b + 0.28 * c
    assert np.allclose(written[3], np.clip(expected, 1, 5), atol=1e-5)


def test_a_blend_by_rank(runs, single, infer, tmp_path: Path) -> None:
    found = infer(runs, blend=write(tmp_path / "w.json", runs, 1 / 3, by_rank=True)).to_numpy()
    assert np.allclose(found, rank_mean(single), atol=1e-6)


def test_a_dropped_run_is_left_out_and_costs_nothing(
    runs, single, infer, tmp_path: Path, capsys
) -> None:
    a, _, c = single
    (runs[1] / "fold0/model.safetensors").unlink()  # nobody looks at it
    blend = write(tmp_path / "w.json", [runs[0], runs[2]], [[0.6], [0.4]], dropped=[runs[1]])
    capsys.readouterr()
    found = infer(runs, blend=blend).to_numpy()
    assert np.allclose(found, 0.6 * a + 0.4 * c, atol=1e-6)
    printed = capsys.readouterr().out
    assert "b: left out, the blend does without it\n" in printed
    assert "folds used: a: 0 1; c: 1\n" in printed
    assert np.array_equal(infer([runs[0], runs[2]], blend=blend).to_numpy(), found)


def test_a_run_that_the_blend_needs_and_is_not_attached_is_named(
    runs, infer, tmp_path: Path
) -> None:
    blend = write(tmp_path / "w.json", runs, 1 / 3)
    with pytest.raises(ArtifactError, match=r"needs runs that are not attached: c \(run_id "):
        infer(runs[:2], blend=blend)
    assert not (tmp_path / "submission.csv").exists()


def test_a_run_that_the_blend_does_not_know_is_named(runs, infer, tmp_path: Path) -> None:
    blend = write(tmp_path / "w.json", runs[:2], 1 / 2)
    with pytest.raises(ArtifactError, match=r"does not know c \(run_id .* Make the blend again"):
        infer(runs, blend=blend)


def test_sessions_of_a_run_side_by_side_are_one_run_of_the_blend(
    runs, infer, tmp_path: Path
) -> None:
    blend = write(tmp_path / "w.json", runs, UNEVEN)
    expected = infer(runs, blend=blend)
    other = Path(shutil.copytree(runs[0], tmp_path / "d"))
    shutil.rmtree(other / "fold0")
    shutil.rmtree(runs[0] / "fold1")
    pd.testing.assert_frame_equal(infer([*runs, other], blend=blend), expected)


# Which blend.


def test_the_only_blend_under_the_inputs_is_taken(
    runs, infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path / "kaggle"))
    plain = infer(runs).to_numpy()
    folder = tmp_path / "kaggle/input/datasets/me/weights"
    given = infer(runs, blend=write(tmp_path / "w.json", runs, UNEVEN))
    assert not np.allclose(plain, given)
    write(folder / BLEND, runs, UNEVEN)
    pd.testing.assert_frame_equal(infer(runs), given)
    write(tmp_path / "kaggle/input/other" / BLEND, runs, UNEVEN)
    with pytest.raises(ArtifactError, match=r"several blends are attached: .*Set blend"):
        infer(runs)
    pd.testing.assert_frame_equal(infer(runs, blend=str(folder)), given)


def test_without_a_blend_runs_count_alike(runs, single, infer) -> None:
    assert np.allclose(infer(runs), single.mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing: make it with"),
        ("{", "is not JSON"),
        ("[]", "is not a blend"),
        ({"members": None}, "is damaged"),
        ({"format": 2}, "is a blend of format 2; this version reads 1"),
        ({"targets": ["cohesion"]}, "is damaged"),
        ({"targets": ["x", *FB3_COLUMNS[1:]]}, "is damaged"),
        ({"intercepts": {}}, "is damaged"),
        ({"by_rank": "no"}, "is damaged"),
        ({"dropped": [{"run_id": 5, "name": "x"}]}, "is damaged"),
        ({"alpha": "much"}, "is damaged"),
        ({"members": []}, "is damaged"),
        ("double", "is damaged"),
        ("nan", "is damaged.*not finite"),
        ("text", "is damaged.*no number"),
    ],
)
def test_a_damaged_blend_is_refused(runs, infer, tmp_path: Path, content, message: str) -> None:
    path = tmp_path / "w.json"
    write(path, runs, UNEVEN)
    good = json.loads(path.read_text())
    if content is None:
        path.unlink()
    elif content == "double":
        path.write_text(json.dumps({**good, "members": [good["members"][0]] * 2}))
    elif content in ("nan", "text"):
        good["members"][1]["weights"]["syntax"] = float("nan") if content == "nan" else "0.5"
        path.write_text(json.dumps(good))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps({**good, **content}))
    with pytest.raises(ArtifactError, match=rf"w\.json {message}"):
        infer(runs, blend=str(path))


def test_a_blend_of_other_columns_is_refused(runs, infer, tmp_path: Path) -> None:
    path = tmp_path / "w.json"
    parts = tuple(map(part, runs))
    Blend("x", ("one",), parts, (), Weights(np.ones((3, 1)), np.zeros(1)), {}).write(path)
    with pytest.raises(ArtifactError, match="is a blend of one; the runs predict cohesion, syntax"):
        infer(runs, blend=str(path))


def test_other_tasks_are_not_blended(runs, infer, tmp_path: Path) -> None:
    rewrite(runs[0] / "run.json", task="csc", settings=SpellingSettings().to_dict())
    with pytest.raises(SettingsError, match="run of the task csc: only runs that predict numbers"):
        infer(runs[:1], blend=str(tmp_path / "w.json"))


# The clock.


@pytest.mark.parametrize(
    ("values", "intercept", "words"),
    [
        ([[0.5], [0.3], [0.2]], 0.0, "the weights are scaled up"),
        ([[0.5], [0.7], [-0.2]], 0.0, "they count alike"),
        ([[0.5], [0.3], [0.2]], 0.01, "they count alike"),
    ],
)
def test_when_time_is_up_the_runs_there_are_make_a_valid_file(
    runs,
    single,
    infer,
    material,
    tmp_path: Path,
    slow: SlowModels,
    capsys,
    values,
    intercept,
    words,
) -> None:
    """b takes 7 s, then a's fold 7 s; c does not fit any more, nor does a's other fold."""
    slow.batch_seconds = dict.fromkeys("abc", 1.0)
    blend = write(tmp_path / "w.json", runs, values, intercept)
    found = infer(runs, slow.clock(15), blend=blend, eval_batch_tokens=1).to_numpy()
    check_submission(
        tmp_path / "submission.csv",
        material.competition / "sample_submission.csv",
        lowest=1,
        highest=5,
    )
    printed = capsys.readouterr().out
    assert f"NOT THE WHOLE BLEND: nothing from c; of the other runs {words}" in printed
    assert "NOT ALL FOLDS: 2 of 4 did not fit" in printed
    shutil.rmtree(runs[0] / "fold1")
    slow.clock(1)
    a, b = infer(runs[:1]).to_numpy(), single[1]
    share = 0.5 / 0.8 if "scaled" in words else 0.5
    assert np.allclose(found, np.clip(share * a + (1 - share) * b, 1, 5), atol=1e-5)


def test_when_no_run_has_predicted_nothing_is_said_of_the_blend(
    runs, infer, tmp_path: Path, capsys
) -> None:
    found = infer(runs, blend=write(tmp_path / "w.json", runs, UNEVEN), time_budget_seconds=1e-6)
    assert len(found.drop_duplicates()) == 1
    printed = capsys.readouterr().out
    assert "NOT THE WHOLE BLEND" not in printed and "only the first guess" in printed
