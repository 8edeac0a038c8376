"""The notebooks: pairs in step, short, alike where they must be, green on a stand-in of Kaggle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pandas as pd
import pytest

from kernel_lib.artifacts import open_run
from kernel_lib.blending.blend import blend_runs
from kernel_lib.config import InferenceSettings
from kernel_lib.offline.execute import NotebookError, execute_notebook
from kernel_lib.results.ensemble import predict_submission
from tests.conftest import NO_NETWORK, ROOT

FOLDER = ROOT / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
FB3 = "feedback-prize-english-language-learning"
SMALL = {
    "n_folds": 2,
    "epochs": 1,
    "max_length": 64,
    "learning_rate": 1e-3,
    "head_learning_rate": 1e-3,
}


def cells(notebook: nbformat.NotebookNode) -> list[tuple]:
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


def test_every_source_has_its_notebook_and_the_reverse() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES and NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_pair_is_in_step(name: str) -> None:
    source = jupytext.read(FOLDER / f"{name}.py")
    made = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    assert cells(made) == cells(source), "run: make notebooks"
    for key in ("kernelspec", "kaggle"):
        assert made.metadata[key] == source.metadata[key], "run: make notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_committed_without_outputs(name: str) -> None:
    for cell in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_offline_on_a_t4(name: str) -> None:
    kaggle = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).metadata.kaggle
    assert kaggle.isInternetEnabled is False and kaggle.isGpuEnabled is True
    assert kaggle.accelerator == "nvidiaTeslaT4"


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_is_short(name: str) -> None:
    code = [c for c in nbformat.read(FOLDER / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
    assert len(code) <= 14
    assert max(len(cell.source.splitlines()) for cell in code) <= 20
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1


def test_the_first_cell_is_the_same_everywhere() -> None:
    first = {
        next(
            c.source for c in nbformat.read(FOLDER / f"{n}.ipynb", 4).cells if c.cell_type == "code"
        )
        for n in NAMES
    }
    assert len(first) == 1


@pytest.fixture
def kaggle(material, tmp_path: Path) -> Path:
    """``/kaggle`` with library, competition and backbone attached in the flat layout, the backbone
    as a Kaggle Model; the rehearsal's tests have the nested one."""
    root = tmp_path / "kaggle"
    place = {
        FB3: FB3,
        "kernel-lib": "kernel-lib",
        "deberta-v3-base": "deberta-v3/pytorch/deberta-v3-base/1",
    }
    shutil.copytree(material.competition, root / "input" / place[FB3])
    shutil.copytree(material.backbone, root / "input" / place["deberta-v3-base"])
    shutil.copytree(
        ROOT / "kernel_lib",
        root / "input" / place["kernel-lib"] / "kernel_lib",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return root


def execute(name: str, root: Path, work: Path, **settings) -> str:
    """Runs a notebook as on Kaggle and gives back all that it printed."""
    executed = execute_notebook(
        FOLDER / f"{name}.ipynb",
        work_folder=work,
        executed=work.with_suffix(".ipynb"),
        environment={
            "KERNEL_LIB_KAGGLE_ROOT": str(root),
            "KERNEL_LIB_SETTINGS": json.dumps(settings),
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "PYTHONPATH": str(NO_NETWORK),
        },
        show=None,
        cell_timeout_seconds=240,
    )
    return json.dumps(executed, ensure_ascii=False)


def check_what_two_workers_showed(executed: Path) -> None:
    """Spawned from a real kernel, as on Kaggle: all lines with their fold's name, no error."""
    cells = nbformat.read(executed, as_version=4).cells
    (cell,) = [cell for cell in cells if "cross_validate(" in cell.source]
    shown = {"stdout": "", "stderr": ""}
    for output in cell.outputs:
        shown[output["name"]] += output["text"]
    for fold in (0, 1):
        assert f"fold {fold}: on cpu\n" in shown["stdout"]
        assert f"\nfold {fold}  epoch 1.00/1  loss " in shown["stdout"]
        assert f"fold {fold}: 100% 3/3 [" in shown["stderr"]
    assert "Traceback" not in json.dumps(shown)


def test_the_fb3_pair_stopped_by_its_clock_goes_on_to_a_checked_submission(
    kaggle: Path, tmp_path: Path
) -> None:
    printed = execute("fb3_train", kaggle, tmp_path / "one", **SMALL, time_budget_seconds=0.001)
    assert "state saved" in printed and "no fold is finished yet" in printed
    assert (tmp_path / "one/run/fold0/resume.safetensors").is_file()
    output = kaggle / "input/notebooks/somebody/fb3-train"  # as Kaggle attaches an output
    shutil.copytree(tmp_path / "one", output)
    more = {"devices": 2, "resume_from": f"{output}/run"}
    printed = execute("fb3_train", kaggle, tmp_path / "train", **SMALL, **more)
    assert str(kaggle / "input") in printed.split("kernel_lib 0")[1][:400]  # the attached library
    assert "CV mcrmse" in printed and "image/png" in printed
    assert (tmp_path / "train/run/report.html").stat().st_size > 10_000
    assert open_run(tmp_path / "train/run").finished_folds() == [0, 1]
    check_what_two_workers_showed(tmp_path / "train.ipynb")

    shutil.rmtree(output)
    shutil.copytree(tmp_path / "train", output)
    execute("fb3_infer", kaggle, tmp_path / "infer")
    found = pd.read_csv(tmp_path / "infer/submission.csv", dtype={"text_id": str})
    (sample_path,) = (kaggle / "input").rglob("sample_submission.csv")
    sample = pd.read_csv(sample_path, dtype={"text_id": str})
    assert found["text_id"].tolist() == sample["text_id"].tolist()
    assert list(found.columns) == list(sample.columns)
    values = found.drop(columns="text_id").to_numpy()
    assert np.isfinite(values).all() and values.std() > 0
    assert [path.name for path in (tmp_path / "infer").iterdir()] == ["submission.csv"]


def test_a_blend_of_frozen_features_and_fine_tuned_folds(
    kaggle: Path, trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_LIB_KAGGLE_ROOT", str(kaggle))  # where the encoder is found again
    printed = execute("fb3_features", kaggle, tmp_path / "features", **SMALL)
    assert "CV mcrmse" in printed and "log_words" in printed
    run = open_run(tmp_path / "features/run")
    assert run.finished_folds() == [0, 1] and (run.folder / "report.html").is_file()
    outputs = kaggle / "input/notebooks/somebody"
    shutil.copytree(tmp_path / "features", outputs / "fb3-features")
    shutil.copytree(trained(), outputs / "fb3-train/run")
    runs = [outputs / name / "run" for name in ("fb3-features", "fb3-train")]
    found = blend_runs(runs, kaggle / "input/blend", method="ridge", keep_all=True)
    weights, intercepts = found.found.weights.values, found.found.weights.intercepts
    assert np.abs(weights[0] - weights[1]).max() > 0.01  # no mean

    printed = execute("fb3_infer", kaggle, tmp_path / "infer")
    assert "folds used: fb3-features/run: 0 1; fb3-train/run: 0 1" in printed
    shutil.rmtree(kaggle / "input/blend")
    blended, *alone = [
        pd.read_csv(path, index_col="text_id").to_numpy()
        for path in (tmp_path / "infer/submission.csv", *predicted_alone(kaggle, runs, tmp_path))
    ]
    expected = intercepts + weights[0] * alone[0] + weights[1] * alone[1]
    assert np.allclose(blended, np.clip(expected, 1, 5), atol=1e-4)
    assert blended.std() > 0 and np.abs(alone[0] - alone[1]).max() > 1e-3


def predicted_alone(root: Path, runs: list[Path], folder: Path) -> list[Path]:
    """The submission of each run, without the blend."""
    (data,) = (path.parent for path in (root / "input").rglob("sample_submission.csv"))
    paths = []
    for run in runs:
        settings = InferenceSettings(
            runs=(str(run),), data_dir=str(data), submission=str(folder / f"{run.parent.name}.csv")
        )
        paths.append(predict_submission(settings))
    return paths


def test_the_csc_pair_both_systems_stopped_resumed_ensembled(
    spelling_material, tmp_path: Path
) -> None:
    root = tmp_path / "kaggle"
    shutil.copytree(spelling_material.competition, root / "input/csc-data")
    shutil.copytree(spelling_material.backbone, root / "input/chinese-macbert-base")
    shutil.copytree(
        ROOT / "kernel_lib",
        root / "input/kernel-lib/kernel_lib",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    copy = {**SMALL, "batch_size": 8, "system": "copy"}
    printed = execute("csc_train", root, tmp_path / "stopped", **copy, time_budget_seconds=0.001)
    assert "state saved" in printed and "no fold is finished yet" in printed
    shutil.copytree(tmp_path / "stopped", root / "input/notebooks/me/csc-train-stopped")
    stopped = root / "input/notebooks/me/csc-train-stopped/run"
    printed = execute("csc_train", root, tmp_path / "copy", **copy, resume_from=str(stopped))
    assert "CV correction_f1" in printed and "S-strict" in printed and "image/png" in printed
    assert (tmp_path / "copy/run/report.html").stat().st_size > 10_000
    # What else may differ of runs that are averaged: the system, folds, windows, noise.
    detect = {**SMALL, "system": "detect", "n_folds": 3, "folds": [1], "max_length": 32}
    noise = {"confusion_files": ["confusion.txt"], "noise_rate": 0.1, "window_overlap": 8}
    execute("csc_train", root, tmp_path / "detect", **detect, **noise)
    shutil.rmtree(stopped.parent)
    for name in ("copy", "detect"):
        shutil.copytree(tmp_path / name, root / f"input/notebooks/me/{name}")

    printed = execute("csc_infer", root, tmp_path / "infer", passes=2)
    assert "folds used: copy/run: 0 1; detect/run: 1" in printed
    test, sample, found = (
        pd.read_csv(path, dtype=str, keep_default_na=False)
        for path in (
            root / "input/csc-data/test.csv",
            root / "input/csc-data/sample_submission.csv",
            tmp_path / "infer/submission.csv",
        )
    )
    assert found["id"].tolist() == sample["id"].tolist()
    both = test.merge(found, on="id", validate="one_to_one")
    assert both["source"].str.len().tolist() == both["target"].str.len().tolist()
    lines = (tmp_path / "infer/corrections.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    assert [json.loads(line)["id"] for line in lines] == test["id"].tolist()


def test_the_ner_pair_with_lora_and_a_crf_from_words_to_a_checked_submission(
    entity_material, tmp_path: Path
) -> None:
    root = tmp_path / "kaggle"
    shutil.copytree(entity_material.competition, root / "input/ner-data")
    shutil.copytree(entity_material.backbone, root / "input/deberta-v3-base")
    shutil.copytree(
        ROOT / "kernel_lib",
        root / "input/kernel-lib/kernel_lib",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    small = {**SMALL, "window_overlap": 16, "lora_rank": 4, "decoder": "crf"}
    printed = execute("ner_train", root, tmp_path / "train", **small)
    assert "CV entity_f1" in printed and "LoRA of rank 4" in printed
    assert (tmp_path / "train/run/report.html").stat().st_size > 10_000
    shutil.copytree(tmp_path / "train", root / "input/notebooks/me/ner-train")
    printed = execute("ner_infer", root, tmp_path / "infer", o_bias=-2.0)
    assert "folds used: run: 0 1" in printed
    test, sample, found = (
        pd.read_csv(path, dtype=str, keep_default_na=False)
        for path in (
            root / "input/ner-data/test.csv",
            root / "input/ner-data/sample_submission.csv",
            tmp_path / "infer/submission.csv",
        )
    )
    assert found["id"].tolist() == sample["id"].tolist()
    both = test.merge(found, on="id", validate="one_to_one")
    assert [len(tags.split()) for tags in both["tags"]] == [
        len(tokens.split()) for tokens in both["tokens"]
    ]
    assert (tmp_path / "infer/entities.jsonl").is_file()


def test_bad_input_ends_in_one_clear_message_and_no_file(material, tmp_path: Path) -> None:
    root = tmp_path / "kaggle"
    shutil.copytree(material.competition, root / "input" / FB3)
    shutil.copytree(
        ROOT / "kernel_lib",
        root / "input/kernel-lib/kernel_lib",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    with pytest.raises(NotebookError) as caught:
        execute("fb3_train", root, tmp_path / "work", backbone="microsoft/deberta-v3-base")
    message = str(caught.value)
    assert "BackboneError: backbone='microsoft/deberta-v3-base' is no folder" in message
    assert "nothing is ever downloaded" in message
    assert "Traceback" not in message
    assert list((tmp_path / "work").iterdir()) == []
