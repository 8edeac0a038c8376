"""The experiment table: which runs it makes, finds again and leaves out, and what it shows."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kernel_lib.artifacts import OOF, WEIGHTS, write_csv
from kernel_lib.bench import ablate
from kernel_lib.bench.ablate_plan import PLOT, RESULTS, RUNS, TABLE, Ablation
from kernel_lib.bench.ablate_runs import (
    LOG,
    REQUEST,
    RESULT,
    RUN,
    Job,
    make_job,
    note_failure,
    read_trained,
    recipe_of,
    start_process,
    train_run,
)
from kernel_lib.bench.ablate_techniques import (
    BASE,
    PAIRING,
    Technique,
    changed,
    chosen,
    own_techniques,
    read_techniques,
)
from kernel_lib.errors import ArtifactError, DataError, SettingsError, TrainingError
from kernel_lib.runtime.files import read_json, write_json
from kernel_lib.tasks.regression import RegressionSettings, RegressionTask
from tests.conftest import Material

DROPOUT = Technique("dropout", "dropout 0.1", {"dropout": 0.1})
LINEAR = Technique("linear", "linear schedule", {"schedule": "linear"})
MACHINE = {"cpu": "a test's", "threads": 1, "gpu": None, "gpus": 0}


@pytest.fixture
def base(material: Material) -> RegressionSettings:
    """A recipe that trains in a second."""
    return RegressionSettings(
        backbone=str(material.backbone),
        data_dir=str(material.competition),
        n_folds=2,
        epochs=1,
        max_length=32,
        fgm_epsilon=0.0,
        precision="float32",
        learning_rate=1e-3,
    )


class Ended:
    """A process that has ended."""

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def poll(self) -> int:
        return self.status

    def terminate(self) -> None:
        pass

    def wait(self) -> None:
        pass


class FakeStart:
    """Writes results without training: the score is 0.5, less what the technique is worth."""

    def __init__(self, worth: dict[str, float], failing: str = "") -> None:
        self.worth, self.failing, self.started = worth, failing, list[str]()

    def __call__(self, job: Job, slot: int) -> Ended:
        self.started.append(str(job))
        job.folder.mkdir(parents=True, exist_ok=True)
        if job.name == self.failing:
            said = "epoch 0\nSettingsError: optimizer='madgrad' needs the package madgrad.\n"
            (job.folder / LOG).write_text(said, encoding="utf-8")
            return Ended(1)
        wrong = 0.5 - self.worth.get(job.name, 0.0) + 0.001 * job.seed
        frame = pd.DataFrame({"id": [f"{job.fold}{row}" for row in range(9)], "fold": job.fold})
        write_csv(frame.assign(true_a=3.0, pred_a=3.0 + wrong), job.folder / OOF)
        facts = {"name": job.name, "recipe": job.recipe, "seed": job.seed, "fold": job.fold}
        write_json(
            job.folder / RESULT,
            {
                **facts,
                "score": wrong,
                "rows": 9,
                "seconds": 10.0,
                "peak_bytes": 10**9,
                "precision": "float32",
                "run_id": "x",
                "settings": job.settings.to_dict(),
                "kernel_lib": "0",
                "versions": {"torch": "2", "transformers": "5"},
                "machine": MACHINE,
            },
        )
        return Ended()


def ablation(base: RegressionSettings, out: Path, *techniques: Technique, **options: Any) -> Any:
    given = {"seeds": [5, 6], "folds": [0], **options}
    return Ablation(base, techniques, out=out, **given)


def names(record: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each for each in record["techniques"]}


def test_base_and_techniques_get_the_same_seeds_folds_and_rows(
    base: RegressionSettings, tmp_path: Path
) -> None:
    jobs = ablation(base, tmp_path, DROPOUT, LINEAR, folds=[0, 1]).jobs
    by_name: dict[str, list[Job]] = {}
    for job in jobs:
        by_name.setdefault(job.name, []).append(job)
    keys = {name: sorted((job.seed, job.fold) for job in some) for name, some in by_name.items()}
    assert keys.keys() == {"base", "dropout", "linear"}
    assert all(each == [(5, 0), (5, 1), (6, 0), (6, 1)] for each in keys.values())
    assert [job.name for job in jobs[:4]] == [BASE] * 4  # nothing means anything without it
    assert [job.seed for job in jobs[4:]] == [5] * 4 + [6] * 4  # all techniques soon
    assert {job.split_seed for job in jobs} == {base.seed}  # of rows and folds, whatever the seed
    assert len({job.folder for job in jobs}) == len(jobs)
    assert len({job.recipe for job in jobs}) == 3
    differing = {
        name
        for name in base.to_dict()
        if len({str(getattr(some[0].settings, name)) for some in by_name.values()}) > 1
    }
    assert differing == {"dropout", "schedule", "output_dir"}


def test_with_one_seed_the_base_gets_more_so_that_the_noise_is_known(
    base: RegressionSettings, tmp_path: Path
) -> None:
    jobs = ablation(base, tmp_path, DROPOUT, seeds=[2]).jobs
    assert [(job.name, job.seed) for job in jobs] == [
        *((BASE, 2), (BASE, 1), (BASE, 3), ("dropout", 2))
    ]


def test_the_recipe_knows_settings_data_and_encoder_but_not_seed_fold_or_folder(
    base: RegressionSettings, tmp_path: Path
) -> None:
    recipe = recipe_of(base, 42)
    same = base.replace(seed=9, folds=(1,), output_dir="elsewhere", checkpoint_seconds=1.0)
    assert recipe_of(same, 42) == recipe
    others = [base.replace(dropout=0.1), base.replace(init_from="a run")]
    assert len({recipe, recipe_of(base, 43), *(recipe_of(each, 42) for each in others)}) == 4
    soft = base.replace(pseudo_labels=str(tmp_path))
    (tmp_path / "soft.csv").write_text("one")
    before = recipe_of(soft, 42)
    (tmp_path / "soft.csv").write_text("two")
    assert len({recipe, before, recipe_of(soft, 42)}) == 3
    (tmp_path / "train.csv").write_text("text_id\n")
    assert recipe_of(base.replace(data_dir=str(tmp_path)), 42) != recipe
    with pytest.raises(DataError, match=r"nowhere/train.csv is missing"):
        recipe_of(base.replace(data_dir="nowhere"), 42)


def test_finished_runs_are_found_again_also_under_another_name(
    base: RegressionSettings, tmp_path: Path
) -> None:
    start = FakeStart({"dropout": 0.1})
    ablation(base, tmp_path, DROPOUT).run(start, pause=0)
    assert len(start.started) == 4
    start.started.clear()
    renamed = dataclasses.replace(DROPOUT, name="wet")
    wider = ablation(base, tmp_path, renamed, LINEAR)
    wider.run(start, pause=0)
    assert start.started == ["linear, seed 5, fold 0", "linear, seed 6, fold 0"]
    found = names(wider.record())
    assert found["wet"]["difference"] == pytest.approx(-0.1)
    assert found["wet"]["verdict"] == "helps"
    assert len(found["linear"]["pairs"]) == 2
    other = ablation(base.replace(epochs=2), tmp_path, DROPOUT)
    assert not any(job.is_finished for job in other.jobs)


def test_the_table_is_made_at_any_moment_of_what_is_there(
    base: RegressionSettings, tmp_path: Path
) -> None:
    assert ablation(base, tmp_path, DROPOUT).write()["techniques"][0]["runs"] == []
    assert "No run of the base" in (tmp_path / TABLE).read_text()
    start = FakeStart({})
    ablation(base, tmp_path, DROPOUT, seeds=[5, 6, 7]).run(start, pause=0)
    fewer = ablation(base, tmp_path, DROPOUT, LINEAR, seeds=[5]).write()
    assert len(names(fewer)["dropout"]["pairs"]) == 3  # those of other seeds count as well
    assert "verdict" not in names(fewer)["linear"]
    assert len(start.started) == 6
    assert read_json(tmp_path / RESULTS)["base"]["score"] == pytest.approx(0.506)
    assert (tmp_path / PLOT).read_bytes()[:4] == b"\x89PNG"


def test_a_technique_that_fails_is_a_line_and_is_tried_once(
    base: RegressionSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = FakeStart({}, failing="madgrad")
    techniques = (Technique("madgrad", "MADGRAD", {"optimizer": "madgrad"}), DROPOUT)
    made = ablation(base, tmp_path, *techniques)
    made.run(start, pause=0)
    assert sum("madgrad" in each for each in start.started) == 1
    assert sum("dropout" in each for each in start.started) == 2
    assert "madgrad, seed 5, fold 0: failed: SettingsError" in capsys.readouterr().out
    line = "- madgrad (MADGRAD): SettingsError: optimizer='madgrad' needs the package madgrad."
    made.write()
    assert line in (tmp_path / TABLE).read_text()
    ablation(base, tmp_path, *techniques).write()  # another process knows it, too
    assert line in (tmp_path / TABLE).read_text()
    mended = FakeStart({})
    again = ablation(base, tmp_path, *techniques)
    again.run(mended, pause=0)
    assert len(mended.started) == 2
    assert names(again.record())["madgrad"]["failure"] is None


def test_settings_that_cannot_be_are_a_line_too(base: RegressionSettings, tmp_path: Path) -> None:
    techniques = (
        Technique("odd", "odd", {"dropout": 2.0}),
        Technique("same", "same", {"dropout": base.dropout}),
        Technique("apart", "apart", {"n_folds": 3}),
        DROPOUT,
    )
    made = ablation(base, tmp_path, *techniques)
    made.run(FakeStart({}), pause=0)
    found = names(made.record())
    assert "must be below 1" in found["odd"]["failure"]
    assert found["same"]["failure"] == "the base is set so already."
    assert "not be scored on the same rows" in found["apart"]["failure"]
    assert len(found["dropout"]["pairs"]) == 2


def test_equal_settings_are_trained_and_counted_once(
    base: RegressionSettings, tmp_path: Path
) -> None:
    twin = dataclasses.replace(DROPOUT, name="wet")
    start = FakeStart({"dropout": 0.1})
    made = ablation(base, tmp_path, DROPOUT, twin)
    made.run(start, pause=0)
    assert len(start.started) == 4
    copy = tmp_path / RUNS / f"again-{made.jobs[-1].folder.name}"  # as earlier releases left them
    shutil.copytree(made.jobs[-1].folder, copy)
    found = names(made.record())
    assert found["wet"]["pairs"] == found["dropout"]["pairs"]
    assert len(found["wet"]["pairs"]) == 2
    failing = ablation(base, tmp_path / "b", DROPOUT, twin)
    failing.run(FakeStart({}, failing="dropout"), pause=0)
    assert "madgrad" in names(failing.record())["wet"]["failure"]


def test_what_changes_no_result_is_a_line_and_not_the_base_once_more(
    base: RegressionSettings, tmp_path: Path
) -> None:
    vain = Technique("vain", "vain", {"gradient_checkpointing": True})
    made = ablation(base, tmp_path, vain)
    made.run(FakeStart({}), pause=0)
    found = names(made.record())["vain"]
    assert (found["failure"], found["runs"]) == ("no result depends on what it changes.", [])
    assert "verdict" not in found


def test_what_selects_on_its_own_fold_is_no_evidence_against_a_rival_either(
    base: RegressionSettings, tmp_path: Path
) -> None:
    selecting = {"keep": "best", "evals_per_epoch": 2}
    techniques = (
        Technique("best", "best", selecting, rival="linear"),
        Technique("wet", "wet", {"dropout": 0.1}, rival="best"),
        LINEAR,
    )
    made = ablation(base, tmp_path, *techniques)
    made.run(FakeStart({"best": 0.1}), pause=0)
    record = made.write()
    assert names(record)["best"]["verdict"] == "optimistic"
    assert [each["verdict"] for each in record["rivals"]] == ["optimistic"] * 2
    text = (tmp_path / TABLE).read_text()
    assert text.count("no evidence: chosen on the fold it reports") == 3
    assert "the seeds of all techniques, 2 degrees of freedom" in text
    assert "here 2.0 standard errors on either side. Of 2 techniques" in text


def test_without_the_base_there_is_nothing(base: RegressionSettings, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="base, seed 5, fold 0 failed"):
        ablation(base, tmp_path, DROPOUT).run(FakeStart({}, failing=BASE), pause=0)


def test_so_many_run_side_by_side_and_none_outlives_an_error(
    base: RegressionSettings, tmp_path: Path
) -> None:
    fake, at_work, most, ended = FakeStart({}), set[int](), [0], list[int]()

    class Slow:
        def __init__(self, slot: int, rounds: int) -> None:
            self.slot, self.rounds = slot, rounds

        def poll(self) -> int | None:
            self.rounds -= 1
            if self.rounds > 0:
                return None
            at_work.discard(self.slot)
            return 0

        def terminate(self) -> None:
            ended.append(self.slot)

        def wait(self) -> None:
            pass

    def start(job: Job, slot: int) -> Slow:
        if job.name == "linear":
            raise KeyboardInterrupt
        assert slot not in at_work
        at_work.add(slot)
        most[0] = max(most[0], len(at_work))
        fake(job, slot)
        return Slow(slot, rounds=2 + 3 * slot)

    with pytest.raises(KeyboardInterrupt):
        ablation(base, tmp_path, DROPOUT, LINEAR).run(start, processes=3, pause=0)
    assert most == [3]
    assert sorted(ended) == sorted(at_work) != []


def test_a_killed_process_has_a_line(base: RegressionSettings, tmp_path: Path) -> None:
    job = make_job("fgm", base, seed=1, fold=0, split_seed=42, runs=tmp_path)
    assert note_failure(job, 3) == "status 3"
    assert "full memory" in note_failure(job, -9)


def in_process(job: Job, slot: int) -> Ended:
    """Trains here: importing everything again takes longer than these runs do."""
    train_run(job, machine=MACHINE)
    return Ended()


def test_two_techniques_are_trained_for_real(base: RegressionSettings, tmp_path: Path) -> None:
    """The base in a process of its own; the differences are those of the kit's own scores."""
    techniques = (DROPOUT, Technique("longer", "64 tokens", {"max_length": 64}))
    made = ablation(base, tmp_path, *techniques, seeds=[5], base_seeds=1)
    start = functools.partial(
        start_process, machine=MACHINE, keeps_weights=True, slot=0, processes=1
    )
    process = start(made.jobs[0])
    assert process.wait() == 0, (made.jobs[0].folder / LOG).read_text()
    made.run(in_process, pause=0)
    record = made.write()
    trained = {job.name: read_trained(job.folder) for job in made.jobs}
    task = RegressionTask(base)  # with its own seed, whatever the runs' is
    frame = task.read_train()
    held_out = tuple(sorted(frame["text_id"][task.folds(frame) == 0]))
    assert held_out == trained["base"].ids == trained["dropout"].ids == trained["longer"].ids
    for name, run in trained.items():
        wrong = np.sqrt(((run.true - run.predicted) ** 2).mean(axis=0)).mean()
        assert run.score == pytest.approx(wrong)
        assert run.peak_bytes is None or run.peak_bytes > 0
        weights = tmp_path / RUNS / made.jobs[list(trained).index(name)].folder.name / RUN / "fold0"
        assert (weights / WEIGHTS).exists() == (name == BASE)  # kept only there
    found = names(record)["dropout"]
    assert found["difference"] == pytest.approx(trained["dropout"].score - trained["base"].score)
    assert trained["dropout"].score != trained["base"].score
    assert read_json(made.jobs[0].folder / REQUEST)["name"] == BASE
    assert trained["base"].record["settings"]["seed"] == 5
    assert trained["base"].record["split_seed"] == 42
    text = (tmp_path / TABLE).read_text()
    assert "| dropout | dropout 0.1 |" in text
    assert f"{len(held_out)} rows held out; seeds 5, folds 0" in text


def test_an_unfinished_run_goes_on_and_ends_as_an_unbroken_one(
    base: RegressionSettings, tmp_path: Path
) -> None:
    def jobs(name: str) -> Job:
        return make_job(BASE, base, seed=5, fold=1, split_seed=42, runs=tmp_path / name)

    train_run(jobs("unbroken"), machine=MACHINE)
    short = dataclasses.replace(
        jobs("broken"), settings=jobs("broken").settings.replace(time_budget_seconds=1e-6)
    )
    with pytest.raises(TrainingError, match="did not fit in time_budget_seconds"):
        train_run(short, machine=MACHINE)
    assert not jobs("broken").is_finished
    train_run(jobs("broken"), machine=MACHINE)
    whole, resumed = (read_trained(jobs(name).folder) for name in ("unbroken", "broken"))
    assert np.array_equal(whole.predicted, resumed.predicted)


def test_a_damaged_run_is_named(base: RegressionSettings, tmp_path: Path) -> None:
    made = ablation(base, tmp_path, DROPOUT)
    made.run(FakeStart({}), pause=0)
    (made.jobs[0].folder / OOF).write_text("id,fold\n")
    with pytest.raises(ArtifactError, match="Delete it to train it anew"):
        made.record()


def test_every_own_technique_is_a_change_that_the_settings_take(base: RegressionSettings) -> None:
    base = base.replace(epochs=2)  # in a single one AWP never begins
    techniques = own_techniques(base, layers=2)
    assert len({each.name for each in techniques}) == len(techniques) > 40
    refused = {}
    for technique in techniques:
        try:
            assert changed(base, technique) != base
        except SettingsError as error:
            refused[technique.name] = str(error)
    assert refused == {}
    unknown = {each.rival for each in techniques} - {each.name for each in techniques} - {""}
    assert unknown == set()


def test_what_the_base_has_is_also_tried_without(base: RegressionSettings) -> None:
    def without(settings: RegressionSettings) -> dict[str, Any]:
        found = own_techniques(settings, layers=2)
        return {t.name: t.settings for t in found if t.name.startswith("without_")}

    assert without(base) == {}
    fgm = {"without_fgm_epsilon": {"fgm_epsilon": 0.0}}
    assert without(base.replace(fgm_epsilon=0.2)) == fgm
    rich = base.replace(averaging="ema", freeze_layers=1, head_dropout=0.1, freeze_embeddings=True)
    assert without(rich) == {
        "without_averaging": {"averaging": "none"},
        "without_head_dropout": {"head_dropout": None},
        "without_freeze_embeddings": {"freeze_embeddings": False},
        "without_freeze_layers": {"freeze_layers": 0},
    }


@pytest.mark.parametrize("name", PAIRING)
def test_what_would_break_the_pairing_is_a_setting(name: str) -> None:
    assert name in RegressionSettings().to_dict()


def test_techniques_from_a_file(base: RegressionSettings, tmp_path: Path) -> None:
    own = own_techniques(base, layers=2)
    path = tmp_path / "mine.json"
    mine = {"fgm": None, "both": {"about": "two", "settings": {"fgm_epsilon": 0.1, "dropout": 0.1}}}
    path.write_text(json.dumps(mine))
    fgm, both = read_techniques(path, own)
    assert fgm in own
    assert (both.name, both.about, both.settings) == ("both", "two", mine["both"]["settings"])
    for wrong, message in (
        ([], "must hold a JSON object"),
        ({"x": {"dropout": 0.1}}, "'x' has no settings"),
        ({"x": {"settings": {}, "setings": 1}}, "'x' has setings"),
        ({"fmg": None}, "did you mean 'fgm'"),
        (
            {"base": {"settings": {"dropout": 0.1}}},
            "mine.json: technique 'base': so the base itsel",
        ),
        ({"a/b": {"settings": {"dropout": 0.1}}}, "mine.json: technique 'a/b': folders are called"),
        ({"": {"settings": {"dropout": 0.1}}}, "technique '': folders are called"),
    ):
        path.write_text(json.dumps(wrong))
        with pytest.raises(SettingsError, match=message):
            read_techniques(path, own)
    assert [each.name for each in chosen(own, ["ema", "fgm", BASE])] == ["fgm", "ema"]
    selecting = {"mine": {"settings": {"keep": "best", "epochs": 2}}}
    path.write_text(json.dumps(selecting))
    assert read_techniques(path, own)[0].is_optimistic
    assert [each.name for each in own if each.is_optimistic] == ["keep_best"]


def test_the_command_lists_makes_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ablate, "start_process", lambda job, slot, **_: FakeStart({})(job, slot))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ablate", "--out", str(tmp_path), *arguments])
        return ablate.main(), *capsys.readouterr()

    status, out, _ = run("--only", "fgm,linear", "--list")
    assert (status, out.count("\n")) == (0, 2)
    assert '{"fgm_epsilon": 0.2}' in out
    everything = own_techniques(RegressionSettings(fgm_epsilon=0.0), layers=12)
    assert [line.split()[0] for line in run("--list")[1].splitlines()] == [
        each.name for each in everything
    ]
    assert not any(tmp_path.iterdir())
    assert "No run of the base" in run("--table-only")[1]
    status, out, _ = run("--only", "fgm,more_epochs", "--seeds", "5,6")
    assert status == 0
    assert (
        "| fgm | FGM, a step of 0.2 | +0.0000 ± 0.0000 | 2 | 1.00x | 1.00x | does nothing |" in out
    )
    assert "| fgm | more_epochs |" in out
    for arguments, message in (
        (("--only", "fmg"), "did you mean 'fgm'"),
        (("--seeds", "a"), "cannot be read"),
        (("--settings", "{"), "cannot be read"),
        (("--settings", "[]"), "is no JSON object"),
        (("--settings", '{"keep": "best"}'), "selects on the fold that it reports"),
        (("--settings", '{"folds": [1]}'), "names folds: give"),
        (("--data", "x"), "go together"),
    ):
        status, _, error = run(*arguments)
        assert (status, message in error) == (1, True), error
