"""Each of Kaggle's rules is met by what the kit makes, and each broken one is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.errors import DataError, SettingsError
from kernel_lib.offline.upload import metadata, templates
from kernel_lib.offline.upload.account import OWNER_UNKNOWN, SECRET_VARIABLES
from kernel_lib.offline.upload.metadata import (
    check_all,
    check_dataset,
    check_kernel,
    check_notebook,
    needs_dir_mode,
)
from kernel_lib.offline.upload.problems import NOT_THERE, Problem
from kernel_lib.offline.upload.template_rules import check_templates
from kernel_lib.offline.upload.templates import render
from tests.conftest import ROOT

GONE = object()


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SECRET_VARIABLES, "KAGGLE_USERNAME", "KAGGLE_CONFIG_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset's folder that breaks no rule, with every key that Kaggle reads on an upload."""
    folder = tmp_path / "essays"
    (folder / "inner").mkdir(parents=True)
    (folder / "essays.csv").write_text("id,text\n")
    (folder / "inner/more.csv").write_text("id,text\n")
    schema = {"fields": [{"name": "id", "description": "of the essay", "type": "string"}]}
    values = {
        "title": "Essays and their scores",
        "id": "somebody/essays-scores",
        "id_no": 12,
        "subtitle": "Essays with six scores each",
        "description": "Made up.",
        "licenses": [{"name": "other"}],
        "keywords": ["nlp"],
        "resources": [{"path": "essays.csv", "description": "all", "schema": schema}],
    }
    write(folder / "dataset-metadata.json", values)
    return folder


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A notebook's folder that breaks no rule, with every key that Kaggle reads on a push."""
    folder = tmp_path / "fb3_train"
    folder.mkdir()
    shutil.copy(ROOT / "notebooks/fb3_train.ipynb", folder)
    values = {
        **render("fb3_train.kernel", owner="somebody"),
        "id_no": 12,
        "keywords": ["nlp"],
        "dataset_sources": ["somebody/kernel-lib", "else_where/Old_Data/3"],
        "kernel_sources": ["somebody/fb3-other", "somebody/fb3-other-one/7"],
        "model_sources": ["google/gemma-2/transformers/2.1-2b_it/1"],
        "docker_image_pinning_type": "original",
        "docker_image": "gcr.io/kaggle-gpu-images/python@sha256:37c64f",
    }
    write(folder / "kernel-metadata.json", values)
    return folder


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of datasets_meta/ and notebooks/ and an empty build/, which the checker looks at."""
    for name, constant in (("datasets_meta", "TEMPLATES"), ("notebooks", "NOTEBOOKS")):
        shutil.copytree(ROOT / name, tmp_path / name)
        monkeypatch.setattr(templates, constant, tmp_path / name)
    monkeypatch.setattr(templates, "BUILD", tmp_path / "build")
    return tmp_path


def write(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))


def change(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file; ``a__b`` is the key b inside of a."""
    values = json.loads(path.read_text())
    for name, value in changes.items():
        *outer, key = name.split("__")
        inner = values
        for part in outer:
            inner = inner[part]
        if value is GONE:
            del inner[key]
        else:
            inner[key] = value
    write(path, values)


def only(problems: list[Problem]) -> Problem:
    (problem,) = problems
    return problem


def test_a_good_dataset_and_a_good_kernel_have_no_problem(dataset: Path, kernel: Path) -> None:
    assert check_dataset(dataset) == []
    assert check_kernel(kernel) == []


FIELD = {"name": "id"}
DATASET_RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("title missing", {"title": GONE}, "title", "must be a text"),
    ("title no text", {"title": 5}, "title", "must be a text"),
    ("title short", {"title": "Essay"}, "title", "6 to 50 characters, has 5"),
    ("title long", {"title": "E" * 51}, "title", "6 to 50 characters, has 51"),
    ("id missing", {"id": GONE}, "id", "must be a text"),
    ("id without owner", {"id": "essays-scores"}, "id", "must be owner/slug"),
    ("id with a version", {"id": "me/essays-scores/2"}, "id", "must be owner/slug"),
    ("owner not filled in", {"id": "OWNER/essays-scores"}, "id", "must be owner/slug"),
    ("slug short", {"id": "me/essay"}, "id", "6 to 50 characters, has 5"),
    ("slug long", {"id": "me/" + "e" * 51}, "id", "6 to 50 characters, has 51"),
    ("slug with underscore", {"id": "me/essays_scores"}, "id", "small letters, digits"),
    ("slug of the client's init", {"id": "me/INSERT_SLUG_HERE"}, "id", "small letters, digits"),
    ("id_no no number", {"id_no": "12"}, "id_no", "must be the dataset's number"),
    ("subtitle short", {"subtitle": "s" * 19}, "subtitle", "20 to 80 characters, has 19"),
    ("subtitle long", {"subtitle": "s" * 81}, "subtitle", "20 to 80 characters, has 81"),
    ("description no text", {"description": ["a"]}, "description", "must be a text"),
    ("keywords no list", {"keywords": "nlp"}, "keywords", "must be a list of texts"),
    ("keyword no text", {"keywords": [1]}, "keywords", "must be a list of texts"),
    ("keyword twice", {"keywords": ["nlp", "nlp"]}, "keywords", "twice"),
    ("licence missing", {"licenses": GONE}, "licenses", "exactly one"),
    ("no licence", {"licenses": []}, "licenses", "exactly one"),
    (
        "two licences",
        {"licenses": [{"name": "other"}, {"name": "unknown"}]},
        "licenses",
        "exactly one",
    ),
    ("licence as text", {"licenses": ["other"]}, "licenses", "exactly one"),
    ("MIT", {"licenses": [{"name": "MIT"}]}, "licenses[0].name", "is not in Kaggle's list"),
    (
        "licence misspelled",
        {"licenses": [{"name": "Apache-2.0"}]},
        "licenses[0].name",
        "did you mean 'apache-2.0'",
    ),
    ("licence nameless", {"licenses": [{}]}, "licenses[0].name", "is not in Kaggle's list"),
    ("other not described", {"description": GONE}, "description", '"other" must be told here'),
    ("unknown key", {"licences": []}, "licences", "unknown key, did you mean 'licenses'"),
    ("key of an update", {"image": "a.png"}, "image", "datasets metadata --update"),
    ("resources no list", {"resources": {"path": "a"}}, "resources", "must be a list of objects"),
    ("resource as text", {"resources": ["a.csv"]}, "resources", "must be a list of objects"),
    ("resource nameless", {"resources": [{}]}, "resources[0].path", "must be the path"),
    ("resource absent", {"resources": [{"path": "b.csv"}]}, "resources[0].path", "no such file"),
    ("resource a folder", {"resources": [{"path": "inner"}]}, "resources[0].path", "no such file"),
    (
        "resource outside",
        {"resources": [{"path": "../essays/essays.csv"}]},
        "resources[0].path",
        "inside the folder",
    ),
    (
        "resource twice",
        {"resources": [{"path": "essays.csv"}, {"path": "essays.csv"}]},
        "resources[1].path",
        "twice",
    ),
    (
        "resource with an unknown key",
        {"resources": [{"path": "essays.csv", "descriptoin": "all"}]},
        "resources[0].descriptoin",
        "did you mean 'description'",
    ),
    (
        "resource described by a number",
        {"resources": [{"path": "essays.csv", "description": 1}]},
        "resources[0].description",
        "must be a text",
    ),
    (
        "schema without fields",
        {"resources": [{"path": "essays.csv", "schema": []}]},
        "resources[0].schema",
        "fields",
    ),
    *(
        (
            f"field {field}",
            {"resources": [{"path": "essays.csv", "schema": {"fields": [FIELD, field]}}]},
            "resources[0].schema.fields[1]",
            "must hold a name",
        )
        for field in ("id", {}, {"name": "id", "type": 1}, {"name": "id", "kind": "string"})
    ),
]

KERNEL_RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("id missing", {"id": GONE}, "id", "must be a text"),
    ("id with a version", {"id": "me/fb3-train/2"}, "id", "no version"),
    ("id without owner", {"id": "fb3-train"}, "id", "must be owner/slug"),
    ("id without slug", {"id": "me/"}, "id", "must be owner/slug"),
    ("id without a name before", {"id": "/fb3-train"}, "id", "must be owner/slug"),
    ("owner not filled in", {"id": "OWNER/fb3-train"}, "id", "must be owner/slug"),
    ("slug short", {"id": "me/fb3t", "title": "fb3 t"}, "id", "at least 5 characters, has 4"),
    ("slug with underscore", {"id": "me/fb3_train"}, "id", "small letters, digits"),
    ("id_no no number", {"id_no": "12"}, "id_no", "must be the notebook's number"),
    ("title missing", {"title": GONE}, "title", "must be a text"),
    ("title short", {"title": "fb3!"}, "title", "at least 5 characters, has 4"),
    ("title of another slug", {"title": "fb3 training"}, "title", "makes the slug 'fb3-training'"),
    ("code_file missing", {"code_file": GONE}, "code_file", "must be a text"),
    ("code_file empty", {"code_file": ""}, "code_file", "at least 1"),
    ("code_file outside", {"code_file": "../fb3_train/fb3_train.ipynb"}, "code_file", "inside"),
    ("code_file absolute", {"code_file": "/fb3_train.ipynb"}, "code_file", "inside"),
    ("language missing", {"language": GONE}, "language", "one of python, r, rmarkdown"),
    ("kernel_type wrong", {"kernel_type": "Notebook"}, "kernel_type", "one of script, notebook"),
    ("is_private quoted", {"is_private": "true"}, "is_private", "without quotes"),
    ("enable_gpu quoted", {"enable_gpu": "true"}, "enable_gpu", "without quotes"),
    ("enable_tpu quoted", {"enable_tpu": "false"}, "enable_tpu", "without quotes"),
    ("internet unsaid", {"enable_internet": GONE}, "enable_internet", "must be written"),
    ("internet on", {"enable_internet": True}, "enable_internet", "must be false"),
    ("internet quoted", {"enable_internet": "false"}, "enable_internet", "without quotes"),
    ("GPU and TPU", {"enable_tpu": True}, "enable_tpu", "not both"),
    ("P100", {"machine_shape": "NvidiaTeslaP100"}, "machine_shape", "retired"),
    ("old TPU", {"machine_shape": "Tpu1VmV38"}, "machine_shape", "retired"),
    ("Kaggle's own", {"machine_shape": "NvidiaTeslaT4Highmem"}, "machine_shape", "Kaggle's own"),
    (
        "shape misspelled",
        {"machine_shape": "NvidiaTelsaT4"},
        "machine_shape",
        "did you mean 'NvidiaTeslaT4'",
    ),
    ("shape no text", {"machine_shape": 4}, "machine_shape", "must be a text"),
    ("GPU unnamed", {"machine_shape": ""}, "machine_shape", "enable_gpu asks for a GPU"),
    ("GPU named a TPU", {"machine_shape": "TpuV5E8"}, "machine_shape", "asks for a GPU"),
    (
        "TPU named a GPU",
        {"enable_gpu": False, "enable_tpu": True},
        "machine_shape",
        "asks for a TPU",
    ),
    ("GPU not enabled", {"enable_gpu": False}, "machine_shape", "neither"),
    ("dataset bare", {"dataset_sources": ["kernel-lib"]}, "dataset_sources", "must be owner/slug"),
    (
        "dataset's address",
        {"dataset_sources": ["datasets/me/kernel-lib"]},
        "dataset_sources",
        "must be owner/slug",
    ),
    (
        "dataset of nobody",
        {"dataset_sources": ["OWNER/kernel-lib"]},
        "dataset_sources",
        "must be owner/slug",
    ),
    ("dataset twice", {"dataset_sources": ["a/bcdef", "a/bcdef"]}, "dataset_sources", "twice"),
    ("datasets no list", {"dataset_sources": "a/bcdef"}, "dataset_sources", "list of texts"),
    ("competition c/", {"competition_sources": ["c/fb3"]}, "competition_sources", "the bare slug"),
    (
        "competition's address",
        {"competition_sources": ["https://www.kaggle.com/competitions/fb3"]},
        "competition_sources",
        "the bare slug",
    ),
    ("kernel bare", {"kernel_sources": ["fb3-train"]}, "kernel_sources", "must be owner/slug"),
    ("kernel's slug short", {"kernel_sources": ["me/fb3"]}, "kernel_sources", "at least 5"),
    (
        "kernel's version wordy",
        {"kernel_sources": ["me/fb3-train/v2"]},
        "kernel_sources",
        "must be owner/slug",
    ),
    (
        "model without version",
        {"model_sources": ["google/gemma/transformers/2b"]},
        "model_sources",
        "owner/model/framework/variation/version",
    ),
    (
        "model's version wordy",
        {"model_sources": ["google/gemma/transformers/2b/latest"]},
        "model_sources",
        "owner/model/framework/variation/version",
    ),
    ("keywords no list", {"keywords": "nlp"}, "keywords", "list of texts"),
    ("pinning", {"docker_image_pinning_type": "newest"}, "docker_image_pinning_type", "original"),
    ("image no text", {"docker_image": 1}, "docker_image", "must be a text"),
    ("unknown key", {"enable_intrenet": False}, "enable_intrenet", "mean 'enable_internet'"),
]


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [pytest.param(*rule[1:], id=rule[0]) for rule in DATASET_RULES],
)
def test_a_dataset_that_breaks_a_rule_is_named_with_key_value_and_rule(
    dataset: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    change(dataset / "dataset-metadata.json", **changes)
    problem = only(check_dataset(dataset))
    assert problem.key == key and words in problem.rule
    assert "dataset-metadata.json" in str(problem) and key in str(problem)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [pytest.param(*rule[1:], id=rule[0]) for rule in KERNEL_RULES],
)
def test_a_kernel_that_breaks_a_rule_is_named_with_key_value_and_rule(
    kernel: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    change(kernel / "kernel-metadata.json", **changes)
    problems = [
        problem
        for problem in check_kernel(kernel)
        if problem.file.endswith("kernel-metadata.json") and problem.key
    ]
    problem = only(problems)
    assert problem.key == key and words in problem.rule
    assert key in str(problem)


def test_a_missing_code_file_or_one_of_another_kind_is_named(kernel: Path) -> None:
    (kernel / "fb3_train.ipynb").rename(kernel / "fb3_train.py")
    first, beside = check_kernel(kernel)
    assert first.key == "code_file" and "no such file in fb3_train/" in first.rule
    assert "fb3_train.py: a push takes the code_file and nothing else" in beside.rule
    change(kernel / "kernel-metadata.json", code_file="fb3_train.py")
    assert "ends in .ipynb" in only(check_kernel(kernel)).rule
    change(kernel / "kernel-metadata.json", kernel_type="script")
    assert check_kernel(kernel) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".env", "hidden files and caches"),
        (".git/config", "hidden files and caches"),
        ("inner/.DS_Store", "hidden files and caches"),
        ("inner/__pycache__/a.cpython-312.nbi", "hidden files and caches"),
        ("a.pyc", "hidden files and caches"),
        ("wheels.zip", "Kaggle unpacks it"),
        ("inner/sources.tar.gz", "Kaggle unpacks it"),
        ("all.7z", "Kaggle unpacks it"),
        ("kernel-metadata.json", "the client never uploads a file of this name"),
    ],
)
def test_a_file_that_would_go_up_wrongly_is_named(dataset: Path, name: str, words: str) -> None:
    (dataset / name).parent.mkdir(parents=True, exist_ok=True)
    (dataset / name).write_text("x")
    problem = only(check_dataset(dataset))
    assert words in problem.rule and problem.rule.startswith(name.split("/config")[0])


def test_a_dataset_of_nothing_is_named(dataset: Path) -> None:
    change(dataset / "dataset-metadata.json", resources=[])
    shutil.rmtree(dataset / "inner")
    (dataset / "essays.csv").rename(dataset / "dataset-cover-image.png")
    assert "nothing to upload" in only(check_dataset(dataset)).rule


def test_sub_folders_ask_for_the_folder_mode(dataset: Path) -> None:
    assert needs_dir_mode(dataset)
    shutil.rmtree(dataset / "inner")
    assert not needs_dir_mode(dataset)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "the file is missing"),
        ("{", "is not JSON"),
        ("[]", "must hold one JSON object"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_metadata_that_cannot_be_read_is_one_problem(
    dataset: Path, kernel: Path, content: str | bytes | None, words: str
) -> None:
    for path, check in (
        (dataset / "dataset-metadata.json", check_dataset),
        (kernel / "kernel-metadata.json", check_kernel),
    ):
        path.unlink()
        if content is not None:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        problem = only(check(path.parent))
        assert words in problem.rule and str(problem).startswith(problem.file)


def test_a_key_written_twice_is_named_since_only_the_last_one_counts(kernel: Path) -> None:
    path = kernel / "kernel-metadata.json"
    path.write_text(path.read_text().replace("{", '{"enable_internet": true, ', 1))
    problem = only(check_kernel(kernel))
    assert problem.key == "enable_internet" and "written twice" in problem.rule


NOTEBOOK_RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("internet", {"metadata__kaggle__isInternetEnabled": True}, "isInternetEnabled", "false"),
    ("internet unsaid", {"metadata__kaggle__isInternetEnabled": GONE}, "isInternetEnabled", ""),
    ("accelerator", {"metadata__kaggle__accelerator": "none"}, "accelerator", "nvidiaTeslaT4"),
    ("GPU", {"metadata__kaggle__isGpuEnabled": False}, "isGpuEnabled", "true"),
    ("language", {"metadata__kaggle__language": "r"}, "language", "python"),
    ("no block", {"metadata__kaggle": GONE}, "metadata.kaggle", "accelerator and internet"),
    ("kernelspec", {"metadata__kernelspec__name": "py311"}, "metadata.kernelspec", "python3"),
    ("old format", {"nbformat": 3}, "nbformat", "format 4"),
    ("no cells", {"cells": GONE}, "nbformat", "format 4"),
]


@pytest.mark.parametrize(
    ("changes", "key", "words"), [pytest.param(*rule[1:], id=rule[0]) for rule in NOTEBOOK_RULES]
)
def test_a_notebook_that_says_other_than_its_template_is_named(
    house: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    path = house / "notebooks/fb3_train.ipynb"
    assert check_notebook(path) == []
    change(path, **changes)
    problem = only(check_notebook(path))
    assert problem.key.endswith(key) and words in problem.rule


@pytest.mark.parametrize("left", [{"outputs": [{"output_type": "stream"}]}, {"execution_count": 3}])
def test_a_notebook_with_outputs_is_named_with_its_cell(
    house: Path, kernel: Path, left: dict[str, Any]
) -> None:
    values = json.loads((kernel / "fb3_train.ipynb").read_text())
    number = next(i for i, cell in enumerate(values["cells"]) if cell["cell_type"] == "code")
    values["cells"][number].update(left)
    write(kernel / "fb3_train.ipynb", values)
    write(house / "notebooks/fb3_train.ipynb", values)
    for problems in (check_notebook(house / "notebooks/fb3_train.ipynb"), check_kernel(kernel)):
        problem = only(problems)
        assert problem.key == f"cells[{number}]" and "outputs" in problem.rule


def test_a_kernel_on_a_plain_cpu_has_a_notebook_that_says_none(kernel: Path) -> None:
    change(kernel / "kernel-metadata.json", enable_gpu=False, machine_shape=GONE)
    assert [problem.key for problem in check_kernel(kernel)] == [
        "metadata.kaggle.accelerator",
        "metadata.kaggle.isGpuEnabled",
    ]
    block = {"accelerator": "none", "isGpuEnabled": False}
    change(
        kernel / "fb3_train.ipynb",
        **{f"metadata__kaggle__{key}": value for key, value in block.items()},
    )
    assert check_kernel(kernel) == []


def test_our_templates_have_no_problem_for_any_owner(house: Path) -> None:
    assert check_templates("somebody") == []
    assert check_templates(OWNER_UNKNOWN) == []


def test_a_broken_template_is_named_by_its_file(house: Path) -> None:
    change(house / "datasets_meta/kernel-lib.dataset.json", subtitle="short")
    change(house / "datasets_meta/fb3_infer.kernel.json", enable_internet=True)
    first, second = check_templates("somebody")
    assert first.file.endswith("kernel-lib.dataset.json") and first.key == "subtitle"
    assert second.file.endswith("fb3_infer.kernel.json") and second.key == "enable_internet"
    (house / "datasets_meta/fb3_infer.kernel.json").write_text("{")
    assert [problem.file for problem in check_templates("somebody")][1:] == [second.file]


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"dataset_sources": []}, "dataset_sources", "must hold somebody/kernel-lib"),
        ({"kernel_sources": ["OWNER/fb3-trian"]}, "kernel_sources", "no template makes"),
        ({"code_file": "fb3_train.ipynb"}, "code_file", "must be fb3_infer.ipynb"),
        ({"id": "OWNER/fb3-train", "title": "FB3 train"}, "id", "a push would replace"),
    ],
)
def test_a_template_that_cannot_work_with_the_others_is_named(
    house: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    # In the order of the templates' names, the second of two equal ids is the one named.
    change(house / "datasets_meta/fb3_infer.kernel.json", **changes)
    problems = [problem for problem in check_templates("somebody") if problem.key == key]
    assert words in only(problems).rule


def test_a_notebook_without_template_and_a_template_without_notebook_are_named(
    house: Path,
) -> None:
    (house / "notebooks/fb3_infer.ipynb").rename(house / "notebooks/fb3_blend.ipynb")
    orphan, bare = check_templates("somebody")
    assert orphan.file.endswith("fb3_infer.kernel.json") and orphan.value == "fb3_infer.ipynb"
    assert bare.file.endswith("fb3_blend.ipynb") and "fb3_blend.kernel.json" in bare.rule


def test_the_command_says_one_line_when_all_is_well(
    house: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_all(None)
    before = int(capsys.readouterr().out.split()[0])
    shutil.copytree(dataset, house / "build/datasets/essays")
    (house / "build/datasets/.essays.1234.new.tmp").mkdir()  # of a build that was killed
    check_all(None)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{before + 1} files and folders checked, no problem"


def test_the_command_names_every_problem_and_fails(
    house: Path, dataset: Path, kernel: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    shutil.copytree(dataset, house / "build/datasets/essays")
    shutil.copytree(kernel, house / "build/kernels/fb3_train")
    change(house / "build/datasets/essays/dataset-metadata.json", title="E")
    change(house / "build/kernels/fb3_train/kernel-metadata.json", enable_internet=True)
    change(house / "notebooks/fb3_infer.ipynb", metadata__kaggle__isInternetEnabled=True)
    change(house / "datasets_meta/fb3_infer.kernel.json", machine_shape="NvidiaTeslaP100")
    monkeypatch.setattr(sys, "argv", ["metadata"])
    assert metadata.main() == 1
    said = capsys.readouterr()
    shape = 'machine_shape = "NvidiaTeslaP100"'
    for words in (shape, 'title = "E"', "isInternetEnabled = true", "enable_internet = true"):
        assert sum(words in line for line in said.out.splitlines()) == 1
    assert said.err.startswith("DataError: 5 problems in ")  # the accelerators differ as well


def test_a_folder_built_before_the_name_was_known_is_named(
    house: Path, kernel: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    shutil.copytree(kernel, house / "build/kernels/fb3_train")
    path = house / "build/kernels/fb3_train/kernel-metadata.json"
    change(path, id=f"{OWNER_UNKNOWN}/fb3-train")
    check_all(None)
    with pytest.raises(DataError, match="1 problem in"):
        check_all("somebody")
    shutil.copytree(dataset, house / "build/datasets/essays")  # this one has a name
    with pytest.raises(DataError, match="1 problem in"):
        check_all(None)
    monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
    with pytest.raises(DataError, match="1 problem in"):
        check_all(None)
    said = capsys.readouterr().out.splitlines()
    assert said.pop(0).endswith("no problem") and len(said) == 3
    assert all("build it for 'somebody'" in line and "fb3_train/" in line for line in said)
    change(path, id="an-organization/fb3-train")
    check_all(None)
    with pytest.raises(SettingsError, match="no Kaggle user name"):
        check_all("my name")


def test_a_problem_reads_file_key_value_rule() -> None:
    assert str(Problem("a.json", "id", "x", "must")) == 'a.json: id = "x": must'
    assert str(Problem("a.json", "id", NOT_THERE, "must")) == "a.json: id is not there: must"
    assert str(Problem("a.json", "", NOT_THERE, "is missing")) == "a.json: is missing"
    long = str(Problem("a.json", "description", "x" * 500, "must"))
    assert len(long) < 120 and long.endswith("...: must")


def test_the_checker_starts_without_the_heavy_packages() -> None:
    heavy = {"torch", "pandas", "numpy", "transformers", "nbformat", "jupytext", "packaging"}
    code = f"""
import contextlib, sys
from kernel_lib.errors import DataError
from kernel_lib.offline.upload.metadata import check_all
with contextlib.suppress(DataError):  # whatever stands in build/
    check_all("somebody")
assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
