"""The command that blends runs: what it reads, what it writes, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.artifacts import OOF, Run, write_csv
from kernel_lib.blending import blend
from kernel_lib.blending.blend import PAGE, blend_runs, main
from kernel_lib.blending.outcome import Outcome, to_blend
from kernel_lib.blending.rows import read_rows
from kernel_lib.blending.search import Splitting
from kernel_lib.blending.view import facts, member_rows, method_rows, warnings
from kernel_lib.errors import ArtifactError, DataError, SettingsError
from kernel_lib.metrics.regression import mcrmse
from kernel_lib.results.blend_file import BLEND, read_blend
from kernel_lib.runtime.files import sha256, write_json
from kernel_lib.tasks.regression import RegressionSettings
from kernel_lib.tasks.spelling_settings import SpellingSettings

TARGETS = ("cohesion", "syntax")
ROWS = 120
QUICK = Splitting(parts=3, repeats=1)
IDS = np.array([f"{number:03d}E1" for number in range(ROWS)])  # no float, whatever it looks like


def essays() -> tuple[np.ndarray, np.ndarray]:
    """The truth, in half points, and what three runs say: two that help each other, and noise."""
    random = np.random.default_rng(0)
    quality = 3 + random.normal(size=(ROWS, 2)) * 0.7
    true = np.clip(np.round(2 * quality) / 2, 1, 5)
    good = [quality + random.normal(size=true.shape) * 0.4 for _ in range(2)]
    return true, np.clip(np.stack([*good, 3 + random.normal(size=true.shape)]), 1, 5)


TRUE, PREDICTED = essays()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes the parts of a run folder that a blend reads, the rows in two folds."""

    def make(
        name: str,
        predicted: np.ndarray,
        *,
        true: np.ndarray = TRUE,
        folds: tuple[int, ...] = (0, 1),
        run_id: str = "",
        settings: Any = None,
        task: str = "fb3",
    ) -> Path:
        settings = settings or RegressionSettings(target_columns=TARGETS, n_folds=2)
        run = Run(tmp_path / name, {})
        for fold in folds:
            rows = np.random.default_rng(len(name)).permutation(ROWS)[fold::2]
            oof = {"text_id": IDS[rows], "fold": fold}
            for at, target in enumerate(settings.target_columns if task == "fb3" else ()):
                oof |= {f"true_{target}": true[rows, at], f"pred_{target}": predicted[rows, at]}
            folder = run.fold_folder(fold)
            write_csv(pd.DataFrame(oof), folder / OOF)
            made_by = {"run_id": run_id or name, "fold": fold}
            write_json(folder / "manifest.json", {**made_by, "sha256": {OOF: sha256(folder / OOF)}})
        record = {"format": 1, "run_id": run_id or name, "task": task, "identity": {}}
        record |= {"settings": settings.to_dict(), "rows": ROWS, "folds": []}
        write_json(run.folder / "run.json", record)
        return run.folder

    return make


@pytest.fixture
def runs(make_run) -> list[Path]:
    return [make_run(name, each) for name, each in zip("abc", PREDICTED, strict=True)]


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    monkeypatch.setattr(sys, "argv", ["blend", *map(str, arguments)])
    return main()


# What is read.


def test_rows_are_matched_by_id_whatever_their_order_and_folds(runs) -> None:
    rows = read_rows(runs)
    assert rows.ids == IDS.tolist() and rows.scale.targets == TARGETS
    assert np.allclose(rows.true, TRUE) and np.allclose(rows.predictions, PREDICTED)
    assert [member.name for member in rows.members] == ["a", "b", "c"]


def test_sessions_of_a_run_count_as_one(runs, make_run) -> None:
    parts = [make_run(f"d{fold}", PREDICTED[0], folds=(fold,), run_id="d") for fold in (0, 1)]
    rows = read_rows([*parts, runs[1]])
    assert len(rows.members) == 2 and np.allclose(rows.predictions, PREDICTED[:2])


def test_what_a_run_lacks_is_named_and_the_common_rows_are_blended(runs, make_run, capsys) -> None:
    part = make_run("part", PREDICTED[1], folds=(0,))
    rows = read_rows([runs[0], part])
    assert len(rows.ids) == 60
    wanted = [IDS.tolist().index(name) for name in rows.ids]
    assert np.allclose(rows.true, TRUE[wanted])
    assert np.allclose(rows.predictions[1], PREDICTED[1][wanted])
    missing = sorted(set(IDS) - set(rows.ids))
    printed = capsys.readouterr().out
    assert "blending on the 60 rows of 120 that all runs have\n" in printed
    listed = ", ".join(missing[:5])
    assert f"  part (folds 0) lacks 60: {listed} and 55 more\n" in printed


def test_a_model_of_all_rows_has_no_out_of_fold_predictions(runs) -> None:
    write_json(runs[0] / "fold2/manifest.json", {"run_id": "a", "fold": 2, "sha256": {}})
    assert np.allclose(read_rows(runs).predictions, PREDICTED)


def test_too_few_common_rows_are_refused(runs, make_run) -> None:
    first, other = make_run("p", PREDICTED[0], folds=(0,)), make_run("q", PREDICTED[1], folds=(1,))
    with pytest.raises(ArtifactError, match=r"0 rows in common of 120, .*q \(folds 1\) lacks 60"):
        read_rows([first, other])


def test_other_true_values_are_refused_by_id(runs, make_run) -> None:
    other = TRUE.copy()
    other[[3, 7], 1] += 0.5
    with pytest.raises(DataError, match=r"a and other .* of 2 rows: 003E1, 007E1\. Blend runs"):
        read_rows([runs[0], make_run("other", PREDICTED[1], true=other)])


def test_true_values_that_went_through_float32_are_the_same(runs, make_run) -> None:
    true = TRUE + 0.2
    one = make_run("one", PREDICTED[0], true=true)
    two = make_run("two", PREDICTED[1], true=true.astype(np.float32).astype(float))
    assert np.array_equal(read_rows([one, two]).true, true)


def test_other_columns_or_another_scale_are_refused(runs, make_run) -> None:
    turned = RegressionSettings(target_columns=TARGETS[::-1], n_folds=2)
    with pytest.raises(
        ArtifactError, match="predicts cohesion, syntax from 1 to 5, another syntax, co"
    ):
        read_rows([runs[0], make_run("turned", PREDICTED[1], settings=turned)])
    wide = RegressionSettings(target_columns=TARGETS, n_folds=2, target_max=6)
    with pytest.raises(
        ArtifactError, match="from 1 to 5, another cohesion, syntax from 1 to 6: they"
    ):
        read_rows([runs[0], make_run("wide", PREDICTED[1], settings=wide)])


def test_what_is_no_blend_is_refused(runs, make_run) -> None:
    with pytest.raises(SettingsError, match="a alone is no blend"):
        read_rows(runs[:1])
    with pytest.raises(ArtifactError, match="has no finished fold, so no out-of-fold"):
        read_rows([*runs, make_run("none", PREDICTED[0], folds=())])
    spelling = make_run("s", PREDICTED[0], task="csc", settings=SpellingSettings())
    with pytest.raises(SettingsError, match="run of the task csc: only runs that predict numbers"):
        read_rows([spelling, spelling])


def test_damaged_predictions_are_refused(runs, make_run) -> None:
    wrong = PREDICTED[1].copy()
    wrong[5, 0] = np.inf
    with pytest.raises(ArtifactError, match=r"holey: oof\.csv has values that are not finite"):
        read_rows([runs[0], make_run("holey", wrong)])
    path = runs[2] / "fold1" / OOF
    path.write_text(path.read_text() + "\n")
    with pytest.raises(ArtifactError, match=r"oof\.csv is not the file that training wrote"):
        read_rows(runs)


# What is found and written.


@pytest.fixture(scope="module")
def kept() -> dict[str, Outcome]:
    """What was found by an earlier test of this file."""
    return {}


@pytest.fixture
def outcome(kept, runs, tmp_path: Path) -> Outcome:
    if not kept:
        kept["mean"] = blend_runs(runs, tmp_path / "blend", method="mean", splitting=QUICK)
    return kept["mean"]


def test_the_file_holds_what_inference_needs_and_what_was_found(outcome, tmp_path: Path) -> None:
    to_blend(outcome).write(tmp_path / BLEND)
    found = read_blend(tmp_path / BLEND)
    assert [part.run_id for part in found.members] == ["a", "b"]
    assert [part.run_id for part in found.dropped] == ["c"]
    assert found.targets == TARGETS and found.method == str(outcome.found.method)
    assert np.array_equal(found.weights.values, outcome.found.weights.values)
    assert np.array_equal(found.weights.intercepts, outcome.found.weights.intercepts)
    scores = json.loads((tmp_path / BLEND).read_text())["facts"]["scores"]
    assert scores["nested"] == outcome.found.trial.nested
    assert scores["whole_search"] == outcome.searched
    assert np.mean(list(scores["by_target"].values())) == pytest.approx(scores["nested"])


def test_figures_are_those_of_the_predictions(outcome) -> None:
    assert outcome.singles == pytest.approx([mcrmse(TRUE, each) for each in PREDICTED])
    assert outcome.best_single == int(np.argmin(outcome.singles))
    nested = outcome.found.trial.nested
    assert outcome.to_single.value == pytest.approx(nested - min(outcome.singles))
    assert outcome.to_mean.value == pytest.approx(nested - mcrmse(TRUE, PREDICTED.mean(axis=0)))
    rounded = np.clip(np.floor(2 * outcome.found.trial.predictions[0] + 0.5) / 2, 1, 5)
    levels = np.unique(TRUE)
    assert np.array_equal(np.diff(levels), np.full(len(levels) - 1, 0.5))  # no level is missing
    rounded = np.clip(rounded, levels[0], levels[-1])
    assert outcome.rounding == pytest.approx(mcrmse(TRUE, rounded) - nested)
    assert outcome.rounding > 0 >= outcome.clipping


def test_the_tables_name_every_run_and_what_became_of_it(outcome) -> None:
    members = {row[0]: row for row in member_rows(outcome)}
    assert members["c"][2] == "dropped" and float(members["c"][3]) <= 0
    assert float(members["a"][3]) > 0 and members["a"][1] == f"{outcome.singles[0]:.4f}"
    told = "\n".join(facts(outcome))
    assert re.search(r"dropped: c, nested 0\.\d+ with it, 0\.\d+ without", told)
    assert "rounding to the scale's levels (not done): +0.0" in told
    assert "clipping to 1 to 5 (done): " in told


def test_left_to_itself_it_compares_all_methods(runs, tmp_path: Path) -> None:
    found = blend_runs(runs, tmp_path / "blend", splitting=QUICK)
    methods = method_rows(found)
    assert len(methods) == 8 and sum(row[0].endswith(" *") for row in methods) == 1
    assert found.searched >= min(trial.nested for trial in found.found.trials)
    assert str(found.found.method) == read_blend(tmp_path / "blend").method


def test_a_gain_within_its_error_is_called_no_evidence(outcome, runs, make_run, tmp_path) -> None:
    assert not any("no evidence" in warning for warning in warnings(outcome))
    again = make_run("again", PREDICTED[0] + 1e-4)
    small = blend_runs([runs[0], again], tmp_path / "x", method="mean", splitting=QUICK)
    assert any("no evidence that it is better" in warning for warning in warnings(small))


def test_the_command_prints_and_writes(
    runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    out = tmp_path / "<b>"
    options = ("--method", "nnls", "--per-target", "--parts", 3, "--repeats", 1)
    assert run_main(monkeypatch, *runs, "--out", out, *options) == 0
    printed = capsys.readouterr().out
    assert "nnls per target *" in printed and "best single run: " in printed
    assert "sum of weights " in printed and f"blend  {out / BLEND}" in printed
    page = (out / PAGE).read_text()
    assert page.count("<img ") == 2 and "http" not in page.replace("http-equiv", "")
    assert {path.name for path in out.iterdir()} == {BLEND, PAGE}


@pytest.mark.parametrize("method", ["mean", "rank_mean", "ridge", "nnls", "hill_climb"])
def test_each_method_can_be_asked_for(runs, tmp_path: Path, method: str) -> None:
    target = tmp_path / "blend"
    found = blend_runs(runs, target, method=method, keep_all=True, splitting=QUICK)
    written = read_blend(target)
    assert written.method == method and len(written.members) == 3 and not written.dropped
    assert (written.weights.alpha is not None) == (method == "ridge")
    assert written.weights.by_rank == (method == "rank_mean")
    assert [len(row) for row in method_rows(found)] == [5]


def test_what_cannot_be_is_refused(
    runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    with pytest.raises(SettingsError, match="method='median' is not known: auto, mean, rank_mean"):
        blend_runs(runs, tmp_path / "blend", method="median")
    with pytest.raises(SettingsError, match="mean has no weights, so none for each target"):
        blend_runs(runs, tmp_path / "blend", method="mean", per_target=True)
    for option, value, words in (
        ("--parts", 2, "at least 3 parts"),
        ("--seed", -1, "seed=-1 must be at least 0"),
        ("--parts", 500, "parts=500 is too much for 120 rows. Set parts to 118 or less."),
    ):
        assert run_main(monkeypatch, *runs, "--out", tmp_path / "blend", option, value) == 1
        assert words in capsys.readouterr().err
    assert not (tmp_path / "blend").exists()


def test_a_page_that_cannot_be_drawn_leaves_no_half_files(
    runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "blend"
    blend_runs(runs, target, method="mean", splitting=QUICK)
    before = (target / PAGE).read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(blend, "write_page", broken)
    with pytest.raises(OSError, match="disk full"):
        blend_runs(runs, target, method="nnls", splitting=QUICK)
    assert read_blend(target).method == "nnls" and (target / PAGE).read_bytes() == before
