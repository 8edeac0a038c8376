"""The command builds what would be pushed, rehearses that, and ends with a verdict one can read."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from kernel_lib.errors import ArtifactError, DataError
from kernel_lib.offline.rehearsal import __main__ as command
from kernel_lib.offline.rehearsal import rehearse as rehearsing
from kernel_lib.offline.rehearsal.checks import Check
from kernel_lib.offline.rehearsal.kaggle_run import KaggleRun
from kernel_lib.offline.rehearsal.plan import Kernel, Pass, Plan
from kernel_lib.offline.rehearsal.rehearse import rehearse, source_notes
from kernel_lib.offline.rehearsal.sandbox import GUARD, NAMESPACES, Outcome
from kernel_lib.offline.rehearsal.verdict import WIDTH, verdict
from kernel_lib.offline.upload.problems import shown
from kernel_lib.offline.upload.templates import render
from kernel_lib.runtime.files import write_json
from tests.conftest import ROOT

HELD, BROKEN = Check("a"), Check("b", "what was found", "what to do")


def plan_of(folder: Path, **changes: Any) -> Plan:
    values: dict[str, Any] = {"data": folder, "backbone": None, "datasets": folder}
    return Plan(**{**values, "folder": folder, "isolation": GUARD, **changes})


# the verdict


def test_a_good_rehearsal_is_a_line_a_run_and_ready_at_the_end(tmp_path: Path) -> None:
    passes = [
        Pass("fb3-train: metadata", 0.0, 0, [HELD]),
        Pass("fb3-infer: public test, 3 rows, flat mounts", 75.0, 3, [HELD, HELD]),
        Pass("fb3-infer: hidden test, 53 rows, nested mounts", 175.0, 53, [HELD, HELD]),
    ]
    plan = plan_of(tmp_path, isolation=NAMESPACES, hidden_rows=1_003)
    assert verdict(passes, plan, notes=["training ran with {}"]).splitlines() == [
        "",
        "REHEARSAL",
        "isolation   namespaces: no network, inputs read-only, only /kaggle and the system visible",
        "",
        "ok    fb3-train: metadata                                            1 of 1 checks",
        "ok    fb3-infer: public test, 3 rows, flat mounts       1 min 15 s   2 of 2 checks",
        "ok    fb3-infer: hidden test, 53 rows, nested mounts    2 min 55 s   2 of 2 checks",
        "",
        "note  training ran with {}",
        "note  1,003 hidden rows would take about 34 min 35 s here, within the limit of 9 h 00 min",
        "      (2.00 s a row)",
        "",
        "READY to push",
    ]


def test_a_bad_one_says_what_was_found_and_the_cure_and_what_was_not_run(tmp_path: Path) -> None:
    passes = [Pass("a: metadata", 0.0, 0, [HELD, BROKEN]), Pass("b: not run", 0.0, 0, [])]
    lines = verdict(passes, plan_of(tmp_path)).splitlines()
    assert lines[-7:] == [
        "FAIL  a: metadata                 1 of 2 checks",
        "      - b",
        "        found  what was found",
        "        cure   what to do",
        "--    b: not run",
        "",
        "NOT READY: 1 problem, see above",
    ]
    twice = [*passes, Pass("c", 1.0, 0, [BROKEN])]
    assert verdict(twice, plan_of(tmp_path)).endswith("NOT READY: 2 problems, see above")


def test_a_long_or_ugly_detail_stays_readable(tmp_path: Path) -> None:
    detail = "\x1b[0;31mKeyError\x1b[0m: \udcff\n\n  " + "word " * 400 + "/a/path" * 40
    text = verdict([Pass("a", 1.0, 0, [Check("ran", detail)])], plan_of(tmp_path))
    text.encode("utf-8")  # a terminal can show it
    lines = text.splitlines()
    assert any(line.startswith("        found  KeyError: \\udcff word word") for line in lines)
    assert all(len(line) <= WIDTH for line in lines) and len(lines) < 20
    assert "\x1b" not in text and " ..." in text


def test_a_name_longer_than_a_line_is_not_lost(tmp_path: Path) -> None:
    name = "/kaggle/input/" + "long-" * 40
    text = verdict([Pass("a", 1.0, 0, [Check("written", name)])], plan_of(tmp_path))
    assert name in text.replace("\n", "").replace(" ", "")


@pytest.mark.parametrize(
    ("seconds", "words"), [((10.0, 60.0), "within the limit"), ((10.0, 1000.0), "OVER the limit")]
)
def test_the_projection_says_whether_the_real_test_fits(
    tmp_path: Path, seconds: tuple[float, float], words: str
) -> None:
    passes = [
        Pass("p", seconds[0], 3, [HELD]),
        Pass("h", seconds[1], 53, [HELD]),
    ]
    plan = plan_of(tmp_path, limit_seconds=3600.0)
    assert words in " ".join(verdict(passes, plan).split())
    broken = [passes[0], Pass("h", 60.0, 53, [BROKEN])]
    assert "hidden rows would take" not in verdict(broken, plan)
    quicker = [Pass("p", 9.0, 3, [HELD]), Pass("h", 8.0, 53, [HELD])]
    assert "would take about 9 s" in verdict(quicker, plan)
    three = [*passes, Pass("w", 10.0 + 2697.0, 2700, [HELD])]
    assert "would take about 45 min 07 s" in " ".join(verdict(three, plan_of(tmp_path)).split())


# the order of things


CSC = ["me/kernel-lib", "me/csc-data"]


@pytest.fixture
def kernel(tmp_path: Path) -> Callable[..., Kernel]:
    """Makes the folder of a kernel, of the inference template, with the cells given."""

    def make(name: str = "fb3_infer", *cells: str, **metadata: Any) -> Kernel:
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        values = render(f"{name}.kernel", owner="me") | {"kernel_sources": []} | metadata
        write_json(folder / "kernel-metadata.json", values)
        content = nbformat.read(ROOT / f"notebooks/{name}.ipynb", 4)
        if cells:
            content.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
        nbformat.write(content, folder / f"{name}.ipynb")
        return Kernel(folder, predicts=not name.endswith("_train"))

    return make


@pytest.fixture
def runs(tmp_path: Path, material: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rehearses with an answer in place of each run; gives the passes and what each run was
    given."""
    for slug in ("kernel-lib", "kernel-lib-wheels", "deberta-v3-base"):
        (tmp_path / "datasets" / slug).mkdir(parents=True)

    def run_all(kernels: list[Kernel], answer: Any = None, **changes: Any) -> Any:
        given: list[dict[str, Any]] = []

        def run_one(notebook: Path, sources: Any, folder: Path, **options: Any) -> KaggleRun:
            given.append({"sources": sources, "folder": folder, **options})
            working = folder / "working"
            working.mkdir(parents=True)
            (sample,) = [one.instead for one in sources if one.instead]
            shutil.copyfile(sample["sample_submission.csv"], working / "submission.csv")
            status = answer(len(given)) if answer else 0
            return KaggleRun(
                Outcome(status, 1.0, False), working, folder / "executed.ipynb", tokens=("x" * 32,)
            )

        monkeypatch.setattr(rehearsing, "run_notebook", run_one)
        plan = plan_of(
            tmp_path / "rehearsal",
            data=material.competition,
            datasets=tmp_path / "datasets",
            **changes,
        )
        return rehearse(kernels, plan), given

    return run_all


def test_training_runs_once_and_inference_on_both_tests_with_what_training_left(
    runs, kernel, tmp_path: Path, material: Any
) -> None:
    kernels = [kernel("fb3_train"), kernel("fb3_infer", kernel_sources=["me/fb3-train"])]
    passes, given = runs(kernels, settings="{}")
    assert [one.problems for one in passes] == [[]] * 5
    assert [one.title for one in passes] == [
        "fb3-train: metadata",
        "fb3-train: nested mounts",
        "fb3-infer: metadata",
        "fb3-infer: public test, 3 rows, flat mounts",
        "fb3-infer: hidden test, 53 rows, nested mounts",
    ]
    assert [one["layout"] for one in given] == ["nested", "flat", "nested"]
    assert [one["rerun"] for one in given] == [False, False, True]
    assert [one["settings"] for one in given] == ["{}", "", ""]
    assert [one["folder"].name for one in given] == [
        *("fb3-train", "fb3-infer-public", "fb3-infer-hidden")
    ]
    for one in given[1:]:
        sources = {source.kind: source for source in one["sources"]}
        assert sources["notebook"].folder == given[0]["folder"] / "working"
        assert sources["competition"].folder == material.competition
        assert set(sources["competition"].instead) == {"test.csv", "sample_submission.csv"}


def test_the_datas_own_test_is_predicted_as_a_rerun_when_it_is_wanted(
    runs, kernel, material: Any
) -> None:
    passes, given = runs([kernel()], whole_test=True)
    assert passes[-1].title == "fb3-infer: whole test, 7 rows, nested mounts"
    assert [one.problems for one in passes] == [[]] * 4
    assert given[-1]["rerun"] and given[-1]["folder"].name == "fb3-infer-whole"
    (shown,) = [one.instead for one in given[-1]["sources"] if one.instead]
    assert shown["test.csv"] == (material.competition / "test.csv").resolve()


def test_what_is_attached_is_seen_by_notebooks_that_predict_alone(
    runs, kernel, tmp_path: Path
) -> None:
    (tmp_path / "finished").mkdir()
    kernels = [kernel("fb3_train"), kernel("fb3_infer", kernel_sources=["me/other"])]
    passes, given = runs(kernels, settings="{}", attached=(tmp_path / "finished",))
    assert [one.problems for one in passes] == [[]] * 5
    names = [[source.name for source in one["sources"]] for one in given]
    assert ["me/finished" in each for each in names] == [False, True, True]


def test_without_a_competition_the_dataset_of_data_shows_the_tests_and_nothing_is_a_rerun(
    runs, kernel, material: Any
) -> None:
    passes, given = runs([kernel(competition_sources=[], dataset_sources=CSC)])
    assert [one.problems for one in passes] == [[]] * 3
    assert [one["rerun"] for one in given] == [False, False]
    for one, kind in zip(given, ("public", "hidden"), strict=True):
        library, data = one["sources"]
        assert data.name == "me/csc-data" and data.folder == material.competition
        assert data.instead["test.csv"].parent.name == f"data-{kind}" and not library.instead


def test_the_answers_are_judged_beside_the_test_that_was_shown(
    runs, kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        rehearsing, "check_submission", lambda *paths, test: seen.append((paths[1], test)) or []
    )
    runs([kernel()])
    assert [test.parent.name for _, test in seen] == ["data-public", "data-hidden"]
    assert all(sample.parent == test.parent for sample, test in seen)


@pytest.mark.parametrize("layout", ["nested", "flat"])
def test_one_layout_can_be_asked_for(runs, kernel, layout: str) -> None:
    _, given = runs([kernel()], layout=layout)
    assert [one["layout"] for one in given] == [layout, layout]


def test_after_a_failure_the_same_notebook_goes_on_and_the_next_is_not_run(runs, kernel) -> None:
    passes, given = runs(
        [kernel("fb3_infer"), kernel("fb3_train")], answer=lambda number: int(number == 1)
    )
    assert [one["folder"].name for one in given] == ["fb3-infer-public", "fb3-infer-hidden"]
    assert [(one.title.split(",")[0], len(one.problems)) for one in passes] == [
        ("fb3-infer: metadata", 0),
        ("fb3-infer: public test", 1),
        ("fb3-infer: hidden test", 0),
        ("fb3-train: not run", 0),
    ]


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON", '{"id": null}'])
def test_metadata_that_are_no_metadata_are_a_problem_and_no_crash(
    runs, kernel, content: str
) -> None:
    broken = kernel()
    (broken.folder / "kernel-metadata.json").write_text(content)
    passes, given = runs([broken])
    assert given == [] and len(passes) == 1
    assert passes[0].problems and passes[0].title.endswith(": metadata")


def test_what_an_earlier_rehearsal_left_is_cleared_away(runs, kernel, tmp_path: Path) -> None:
    locked = tmp_path / "rehearsal/fb3-infer-public/kaggle-x/kaggle/input/d"
    locked.mkdir(parents=True)
    (locked / "a.txt").touch(mode=0o444)
    for folder in (locked, locked.parent):
        folder.chmod(0)
    passes, _ = runs([kernel()])
    assert [one.problems for one in passes] == [[], [], []]
    assert not locked.exists()


def test_a_notebook_that_names_a_mount_is_noted_with_its_cell(kernel) -> None:
    made = kernel("fb3_infer", "a = 1", "open('/kaggle/input/x/a.csv')", "'/kaggle/input'")
    (note,) = source_notes(made)
    assert note.startswith("fb3_infer.ipynb, cell 2 names a path under /kaggle/input")


def test_a_folder_without_metadata_has_a_title_all_the_same(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path / "lost", predicts=True)
    assert kernel.title == "lost"
    with pytest.raises(ArtifactError, match="is missing"):
        _ = kernel.slug


# the command line


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """Calls the command with runs that find the problems given; gives status, plan and output."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(command, "BUILD", tmp_path / "build")

    def call_it(*arguments: str, problem: str = "") -> tuple[int, dict[str, Any], Any]:
        def rehearsed(kernels: list[Kernel], plan: Plan) -> list[Pass]:
            seen.update(kernels=kernels, plan=plan)
            return [Pass("one", 1.0, 0, [Check("holds", problem)])]

        monkeypatch.setattr(command, "rehearse", rehearsed)
        monkeypatch.setattr("sys.argv", ["rehearsal", *arguments])
        status = command.main()
        return status, seen, capsys.readouterr()

    return call_it


def test_with_made_up_data_it_is_ready_and_ends_with_0(call, tmp_path: Path) -> None:
    status, seen, printed = call("fb3_train", "fb3_infer", "--owner", "me")
    assert status == 0 and printed.out.endswith("\nREADY to push\n")
    assert [(one.folder.name, one.predicts) for one in seen["kernels"]] == [
        ("fb3_train", False),
        ("fb3_infer", True),
    ]
    plan = seen["plan"]
    assert json.loads(plan.settings)["n_folds"] == 2
    assert (plan.data / "train.csv").is_file() and (plan.backbone / "spm.model").is_file()
    assert plan.limit_seconds == 9 * 3600 and plan.layout == "both" and plan.hidden_rows == 2_700
    assert (plan.datasets / "kernel-lib/kernel_lib/errors.py").is_file()
    assert seen["kernels"][1].metadata["id"] == "me/fb3-infer"
    words = " ".join(printed.out.split())
    assert "the data are made up" in words
    assert "".join(f"outputs are in {shown(plan.folder)}".split()) in "".join(words.split())
    assert 'training ran with {"n_folds": 2' in words


def test_the_csc_pair_gets_sentences_and_a_bert_of_their_own(call) -> None:
    status, seen, printed = call("csc_train", "csc_infer", "--owner", "me")
    assert status == 0 and "the data are made up" in " ".join(printed.out.split())
    plan = seen["plan"]
    assert (plan.data / "confusion.txt").is_file() and (plan.backbone / "vocab.txt").is_file()
    assert json.loads(plan.settings)["confusion_files"] == ["confusion.txt"]
    essays = call("fb3_infer", "--owner", "me")[1]["plan"]
    assert essays.data != plan.data and not (essays.data / "confusion.txt").exists()


def test_notebooks_of_two_tasks_end_with_1_before_anything_is_built(call, tmp_path: Path) -> None:
    status, seen, printed = call("fb3_train", "csc_infer", "--owner", "me")
    assert status == 1 and not seen and not (tmp_path / "build").exists()
    assert printed.err.startswith("SettingsError: notebooks of several tasks (csc, fb3)")


def test_with_data_of_the_user_they_are_used_and_training_is_short(call, material: Any) -> None:
    arguments = ("--data", str(material.competition), "--backbone", str(material.backbone))
    status, seen, printed = call("fb3_infer", *arguments, "--owner", "me", "--limit-hours", "0.5")
    assert status == 0 and "made up" not in printed.out
    plan = seen["plan"]
    assert (plan.data, plan.backbone) == (material.competition, material.backbone)
    assert plan.settings == '{"debug": true}' and plan.limit_seconds == 1800
    _, seen, printed = call("fb3_infer", *arguments, "--settings", "", "--hidden-rows", "9")
    assert seen["plan"].settings == "" and seen["plan"].hidden_rows == 9
    assert "training ran with" not in printed.out


def test_a_problem_ends_with_1_and_one_line_on_standard_error(call, material: Any) -> None:
    status, _, printed = call(
        "fb3_infer", "--owner", "me", "--data", str(material.competition), problem="it does not"
    )
    assert status == 1
    assert "      - holds\n        found  it does not\n" in printed.out
    assert printed.out.endswith("\nNOT READY: 1 problem, see above\n")
    assert printed.err == "DataError: the rehearsal failed; nothing should be pushed like this.\n"


def test_an_unknown_notebook_ends_with_1_and_names_the_known(call) -> None:
    status, _, printed = call("fb3_trian", "--owner", "me")
    assert status == 1 and "fb3_trian" in printed.err and "fb3_train" in printed.err
    assert "Traceback" not in printed.err


def test_other_versions_than_the_images_are_told(call, material: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(command.image, "differences", lambda image: ["numpy 9 (image ==2.0.2)"])
    arguments = ("fb3_infer", "--owner", "me", "--data", str(material.competition))
    assert "numpy 9 (image ==2.0.2)" in call(*arguments)[2].out
    monkeypatch.setattr(command.image, "differences", lambda image: [])
    assert "other versions" not in call(*arguments)[2].out


def test_inference_alone_is_told_to_bring_its_training(
    call, material: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    call("fb3_infer", "--owner", "me", "--data", str(material.competition))
    monkeypatch.setattr(command, "rehearse", rehearse)
    assert command.main() == 1
    message = capsys.readouterr().err
    assert "reads the notebook me/fb3-train" in message and "rehearse that notebook too" in message


@pytest.mark.parametrize("broken", ["test.csv", "sample_submission.csv"])
def test_data_that_lack_a_file_end_with_its_name(
    call, material: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, broken: str
) -> None:
    shutil.copytree(material.competition, tmp_path / "data")
    (tmp_path / "data" / broken).unlink()
    call("fb3_infer", "--owner", "me", "--data", str(tmp_path / "data"))
    monkeypatch.setattr(command, "rehearse", rehearse)
    assert command.main() == 1
    message = capsys.readouterr().err
    assert broken in message and "give DATA=" in message and "Traceback" not in message


def test_a_list_of_the_image_that_is_gone_is_an_error_and_no_crash(
    runs, kernel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def gone() -> None:
        raise DataError("kaggle-image.txt is missing")

    monkeypatch.setattr(rehearsing.image, "read_image", gone)
    with pytest.raises(DataError, match="is missing"):
        runs([kernel()])
