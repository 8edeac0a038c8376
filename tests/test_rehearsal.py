"""The rehearsal passes an honest notebook and catches each way to be green here and red there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd
import pytest

from kernel_lib.errors import DataError
from kernel_lib.offline.rehearsal import rehearse as module
from kernel_lib.offline.rehearsal.plan import Pass
from kernel_lib.offline.rehearsal.rehearse import Kernel, Plan, rehearse, source_notes, verdict
from kernel_lib.offline.rehearsal.sandbox import BUBBLEWRAP, GUARD, NAMESPACES, best_isolation
from kernel_lib.offline.upload.package import build_kernel, build_library
from kernel_lib.offline.upload.templates import render
from kernel_lib.runtime.files import write_json
from tests.conftest import ROOT

FB3 = "feedback-prize-english-language-learning"
ISOLATION = best_isolation()
needs_namespaces = pytest.mark.skipif(
    ISOLATION == GUARD, reason="this machine allows neither namespaces nor bubblewrap"
)

FIND = f"""
import os
from pathlib import Path
import pandas as pd

inputs = Path(os.environ.get("KERNEL_LIB_KAGGLE_ROOT", "/kaggle")) / "input"
data = next(inputs.rglob("{FB3}"))
"""
READ = """
train = pd.read_csv(data / "train.csv")
test = pd.read_csv(data / "test.csv", dtype=str, keep_default_na=False)
sample = pd.read_csv(data / "sample_submission.csv")
columns = list(sample.columns[1:])
"""
PREDICT = """
answer = test[["text_id"]].merge(sample[["text_id"]], how="right")
answer[columns] = train[columns].mean().to_numpy()
"""
WRITE = 'answer.to_csv("submission.csv", index=False)'


def notebook(path: Path, *cells: str) -> Path:
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    content.metadata = nbformat.read(ROOT / "notebooks/fb3_infer.ipynb", 4).metadata
    nbformat.write(content, path)
    return path


@pytest.fixture
def plan(material, tmp_path: Path) -> Plan:
    datasets = tmp_path / "datasets"
    datasets.mkdir()
    return Plan(
        data=material.competition,
        backbone=material.backbone,
        datasets=datasets,
        folder=tmp_path / "rehearsal",
        limit_seconds=120,
    )


@pytest.fixture
def predicting(tmp_path: Path) -> Any:
    """Makes a kernel of some cells, by default of those of an honest notebook."""

    def make(*cells: str, **metadata: Any) -> Kernel:
        folder = tmp_path / "kernels/train_means"
        folder.mkdir(parents=True)
        values = render("fb3_infer.kernel", owner="me")
        values |= {"id": "me/train-means", "title": "train-means", "code_file": "means.ipynb"}
        values |= {"dataset_sources": [], "kernel_sources": [], **metadata}
        write_json(folder / "kernel-metadata.json", values)
        notebook(folder / "means.ipynb", *(cells or (FIND, READ, PREDICT, WRITE)))
        return Kernel(folder, predicts=True)

    return make


def problems(kernel: Kernel, plan: Plan) -> list[str]:
    """Every problem of a rehearsal, as ``title: check: detail``."""
    return [line for one in rehearse([kernel], plan) for line in as_lines(one)]


def as_lines(one: Pass) -> list[str]:
    return [f"{one.title}: {check.name}: {check.detail}" for check in one.problems]


class Caught(Exception):
    """Holds a pass that has problems."""


def caught(kernel: Kernel, plan: Plan) -> str:
    """The problems of the first pass that has one. What would run after it does not."""
    run = module._run

    def run_until_caught(*args: Any) -> Any:
        one, working = run(*args)
        if one.problems:
            raise Caught(one)
        return one, working

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_run", run_until_caught)
        try:
            found = problems(kernel, plan)
        except Caught as end:
            found = as_lines(*end.args)
    assert found, "the rehearsal found nothing wrong"
    return "\n".join(found)


@pytest.mark.parametrize(
    "isolation",
    [
        pytest.param(NAMESPACES, marks=needs_namespaces),
        pytest.param(
            BUBBLEWRAP,
            marks=pytest.mark.skipif(not shutil.which("bwrap"), reason="bwrap is not installed"),
        ),
        GUARD,
    ],
)
def test_an_honest_notebook_is_ready_however_it_is_isolated(
    predicting, plan: Plan, isolation: str
) -> None:
    plan = replace(plan, isolation=isolation)
    passes = rehearse([predicting()], plan)
    assert [one.problems for one in passes] == [[], [], []]
    assert [one.rows for one in passes] == [0, 3, 53]
    text = verdict(passes, plan)
    assert "READY to push" in text and "NOT READY" not in text
    assert "hidden rows would take about" in text and f"isolation   {isolation}" in text
    log = json.loads((plan.folder / "train-means-hidden/log.json").read_text())
    assert all(set(line) == {"stream_name", "time", "data"} for line in log)
    assert {path.name for path in (plan.folder / "train-means-hidden").iterdir()} == {
        "working",
        "log.json",
        "executed.ipynb",
    }


def test_the_real_pair_from_training_to_two_submissions(plan: Plan, tmp_path: Path) -> None:
    build_library(plan.datasets / "kernel-lib", "me")
    kernels = []
    for name, predicts in (("fb3_train", False), ("fb3_infer", True)):
        build_kernel(name, tmp_path / name, "me")
        kernels.append(Kernel(tmp_path / name, predicts))
    # iterative-stratification is not on the image, and no wheel is attached here.
    settings = {"n_folds": 2, "epochs": 1, "max_length": 64, "fold_scheme": "stratified"}
    (plan.datasets / "kernel-lib-wheels").mkdir()
    passes = rehearse(kernels, replace(plan, settings=json.dumps(settings), limit_seconds=300))
    assert [one.problems for one in passes] == [[]] * 5
    assert [one.rows for one in passes] == [0, 0, 0, 3, 53]
    assert (plan.folder / "fb3-train/working/run/report.html").is_file()


SWALLOWED_LOOK_UP = """
from huggingface_hub import HfApi
try:
    HfApi().model_info("microsoft/deberta-v3-base", timeout=1)
except Exception as error:
    print(type(error).__name__)
"""
NATIVE_LOOK_UP = """
import subprocess, sys
ask = "import socket; s = socket.socket(); s.connect(('192.0.2.1', 443))"
subprocess.run([sys.executable, "-I", "-S", "-c", ask], stderr=subprocess.DEVNULL)
"""
SWALLOWED_WRITE = """
try:
    (data / "cache.json").write_text("{}")
except OSError:
    pass
"""
DROP_LAST = """
rows = range(len(test) // 3 * 3)  # as a loader's drop_last=True leaves them
answer = sample.iloc[rows].copy()
answer[columns] = train[columns].mean().to_numpy()
"""
TOKENS = """
print(dict(os.environ))
Path("env.txt").write_text(str(os.environ))
"""
# What lies in one notebook is found in one pass, each by its own words.
BROKEN = {
    "row order lost, a value missing, another far off the scale": (
        [
            *(FIND, READ, PREDICT),
            "answer = answer.iloc[::-1]\nanswer.iloc[1, 2] = None\nanswer.iloc[0, 1] = 50.0",
            WRITE,
        ],
        "in the sample's order",
        "no value empty or infinite",
        "values near those of the training data",
    ),
    "a hub look-up, too many files, another column name": (
        [
            *(FIND, SWALLOWED_LOOK_UP, READ, PREDICT),
            'answer = answer.rename(columns={"syntax": "Syntax"})',
            *(WRITE, 'for n in range(500): Path(f"{n}.txt").touch()'),
        ],
        "reach a network",
        "at most 500 files: 501",
        "columns as in the sample",
    ),
    "a token printed and saved, a row twice": (
        [FIND, READ, PREDICT, "answer = pd.concat([answer, answer[:1]])", WRITE, TOKENS],
        "no secret in any output: the log, the executed notebook, env.txt",
        "a row for every id: 4 rows instead of 3",
    ),
    "a file written into the input, the error swallowed; no submission": (
        [FIND, READ, SWALLOWED_WRITE, PREDICT, 'answer.to_csv("sub.csv")'],
        "nothing written outside",
        "submission.csv is there",
    ),
    "a file written into the input": (
        [FIND, READ, '(data / "cache.json").write_text("{}")', PREDICT, WRITE],
        "every cell ran",
    ),
    "drop_last": ([FIND, READ, DROP_LAST, WRITE], "a row for every id: 51 rows instead of 53"),
    "a package the image lacks": (
        [FIND, "import iterstrat", READ, PREDICT, WRITE],
        "iterative-stratification is not on Kaggle's image",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_notebook_is_caught(predicting, plan: Plan, fault: str) -> None:
    cells, *expected = BROKEN[fault]
    found = caught(predicting(*cells), plan)
    for words in expected:
        assert words in found


def test_public_ids_kept_are_caught_by_the_hidden_test(predicting, plan: Plan) -> None:
    ids = pd.read_csv(plan.data / "sample_submission.csv", dtype=str)["text_id"][:3].tolist()
    keep = f"answer = answer[answer.text_id.isin({ids!r})]"
    message = caught(predicting(FIND, READ, PREDICT, keep, WRITE), plan)
    assert "hidden test" in message and "a row for every id: 0 rows instead of 53" in message


def test_a_cached_answer_that_is_copied_is_caught_by_the_hidden_test(
    predicting, plan: Plan
) -> None:
    sample = pd.read_csv(plan.data / "sample_submission.csv", dtype=str)[:3]
    (plan.datasets / "answers").mkdir()
    sample.to_csv(plan.datasets / "answers/submission.csv", index=False)
    copy = 'import shutil\nshutil.copy(next(inputs.rglob("submission.csv")), "submission.csv")'
    kernel = predicting(FIND, copy, dataset_sources=["me/answers"])
    found = "\n".join(problems(kernel, plan))
    assert "public test" not in found
    assert "53 missing" in found and "3 unknown" in found


@needs_namespaces
@pytest.mark.parametrize(
    ("layout", "place"), [("flat", f"competitions/{FB3}"), ("nested", FB3), ("both", FB3)]
)
def test_a_path_keyed_to_one_mount_layout_is_caught(
    predicting, plan: Plan, layout: str, place: str
) -> None:
    find = FIND.replace(f'next(inputs.rglob("{FB3}"))', f'Path("/kaggle/input/{place}")')
    kernel = predicting(find, READ, PREDICT, WRITE)
    assert "FileNotFoundError" in caught(kernel, replace(plan, layout=layout))
    assert "cell 1 names a path under /kaggle/input" in source_notes(kernel)[0]


@needs_namespaces
def test_a_connection_that_python_does_not_see_is_caught_all_the_same(
    predicting, plan: Plan
) -> None:
    kernel = predicting(FIND, NATIVE_LOOK_UP, READ, PREDICT, WRITE)
    assert "no attempt to reach a network: 1 packets" in caught(kernel, plan)


def test_internet_left_on_is_caught_before_anything_runs(predicting, plan: Plan) -> None:
    kernel = predicting(enable_internet=True)
    assert "metadata: Kaggle's rules" in (message := caught(kernel, plan))
    assert "enable_internet = true" in message
    content = nbformat.read(kernel.notebook, as_version=4)
    content.metadata["kaggle"]["isInternetEnabled"] = True
    nbformat.write(content, kernel.notebook)
    assert "isInternetEnabled" in caught(kernel, plan)


def test_a_time_out_is_caught_and_nothing_runs_on(predicting, plan: Plan) -> None:
    forever = f"1{os.getpid()}"
    spin = f"import subprocess; subprocess.run(['sleep', '{forever}'])"
    slow = predicting(FIND, READ, PREDICT, WRITE, spin)
    message = caught(slow, replace(plan, limit_seconds=6))
    assert "in time: killed after" in message and "the limit is 6 s" in message
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"sleep {forever}" not in running
    log = (plan.folder / "train-means-public/log.json").read_text()
    assert json.loads(log) == []


def test_the_hidden_test_runs_as_a_rerun_and_the_public_one_does_not(
    predicting, plan: Plan
) -> None:
    only = 'assert not os.getenv("KAGGLE_IS_COMPETITION_RERUN"), "a rerun"'
    message = caught(predicting(FIND, only, READ, PREDICT, WRITE), plan)
    assert "hidden test" in message and "a rerun" in message


def test_the_home_is_empty_and_own_tokens_are_gone(
    predicting, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh12345678")
    look = 'assert not (Path.home() / ".cache").exists() and "HF_TOKEN" not in os.environ'
    batch = 'assert os.environ["KAGGLE_KERNEL_RUN_TYPE"] == "Batch"'
    assert problems(predicting(FIND, look, batch, READ, PREDICT, WRITE), plan) == []


def test_an_input_that_nothing_stands_in_for_is_named_with_the_cure(predicting, plan: Plan) -> None:
    kernel = predicting(kernel_sources=["me/fb3-train"])
    with pytest.raises(DataError, match=r"reads the notebook me/fb3-train.*rehearse that notebook"):
        rehearse([kernel], plan)
