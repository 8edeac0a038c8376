"""What a stranger's dataset holds is read, never run: each file here would leave a mark if it ran.

Where a hostile file asks for leave to run code, as transformers does, the answer here is yes: the
kit must not have asked.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jupytext
import pandas as pd
import pytest
import torch

from kernel_lib.artifacts import CONFIG, MANIFEST, RUN_RECORD, TOKENIZER, WEIGHTS
from kernel_lib.config import InferenceSettings
from kernel_lib.errors import ArtifactError, BackboneError, KernelLibError
from kernel_lib.model.backbone import build_backbone, load_backbone, read_config
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.runtime.files import sha256
from kernel_lib.runtime.paths import KAGGLE_ROOT_VARIABLE
from kernel_lib.runtime.wheels import CARRIED, attach_wheels
from kernel_lib.tasks.submission import check_submission
from kernel_lib.text.tokenizer import build_tokenizer
from kernel_lib.training.state import RESUME, read_progress
from tests.conftest import ROOT

PACKAGE = ROOT / "kernel_lib"


class Trap:
    """Code and pickles that leave a file when they run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker
        self.code = f"open({str(marker)!r}, 'w').close()\n"
        self.asked: list[Any] = []

    @property
    def sprung(self) -> bool:
        return self.marker.exists()

    def __reduce__(self) -> tuple[Any, ...]:
        """What pickle takes for the way to make such an object."""
        return exec, (self.code,)

    def answer(self, *question: Any) -> str:
        self.asked.append(question)
        return "y"


@pytest.fixture(autouse=True)
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    """Set before every test, and looked at after it."""
    made = Trap(tmp_path / "it-ran")
    monkeypatch.setattr(builtins, "input", made.answer)
    yield made
    assert not made.sprung, "a stranger's code ran"
    assert not made.asked, f"leave to run a stranger's code was asked for: {made.asked}"


def test_the_trap_is_sprung_by_whoever_runs_or_unpickles_it(trap: Trap) -> None:
    for run in (lambda: exec(trap.code), lambda: pickle.loads(pickle.dumps(trap))):
        run()
        assert trap.sprung
        trap.marker.unlink()


# pickles among the weights


def as_plain_pickle(path: Path, trap: Trap) -> None:
    path.write_bytes(pickle.dumps({"weight": trap}))


def as_torch_writes_it(path: Path, trap: Trap) -> None:
    torch.save({"weight": torch.ones(2), "more": trap}, path)


def as_torch_wrote_it_long_ago(path: Path, trap: Trap) -> None:
    torch.save({"weight": trap}, path, _use_new_zipfile_serialization=False)


PICKLES = [as_plain_pickle, as_torch_writes_it, as_torch_wrote_it_long_ago]


@pytest.fixture
def backbone(material, tmp_path: Path) -> Path:
    """A copy of the tiny backbone, to be tampered with."""
    return Path(shutil.copytree(material.backbone, tmp_path / "stranger/deberta-v3-tiny"))


@pytest.mark.parametrize("write", PICKLES)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_for_weights_is_refused(backbone: Path, trap: Trap, write, name: str) -> None:
    (backbone / "model.safetensors").unlink()
    write(backbone / name, trap)
    with pytest.raises(BackboneError, match="deberta-v3-tiny"):
        load_backbone(backbone, dropout=0.0)


@pytest.mark.parametrize("shard", ["shard.bin", "../shard.bin", "shard.safetensors"])
@pytest.mark.parametrize("index", ["pytorch_model.bin", "model.safetensors"])
def test_a_pickle_that_an_index_points_to_is_refused(
    backbone: Path, trap: Trap, index: str, shard: str
) -> None:
    (backbone / "model.safetensors").unlink()
    as_torch_writes_it(backbone / shard, trap)
    names = {"weight": shard, "embeddings.word_embeddings.weight": shard}
    content = {"metadata": {"total_size": 8}, "weight_map": names}
    (backbone / f"{index}.index.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError, match="deberta-v3-tiny"):
        load_backbone(backbone, dropout=0.0)


# code beside a config

OWN_CODE = {"auto_map": {"AutoConfig": "own.Own", "AutoModel": "own.Own"}}
CONFIGS = {
    "a kind that only the code knows": {"model_type": "own", **OWN_CODE},
    "a known kind": OWN_CODE,  # with the folder's own model_type
    "a known kind without an encoder": {"model_type": "depth_anything", **OWN_CODE},
    "code of another repository": {
        "model_type": "own",
        "auto_map": {"AutoConfig": "stranger/code--own.Own"},
    },
}


def put_code(folder: Path, trap: Trap) -> None:
    for name in ("own.py", "__init__.py", "configuration_own.py", "modeling_own.py"):
        (folder / name).write_text(
            f"{trap.code}from transformers import DebertaV2Config, DebertaV2Model as Own\n"
        )


def change_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize(
    "read", [read_config, build_backbone, lambda folder: load_backbone(folder, dropout=0.0)]
)
def test_code_that_a_config_names_is_not_run(backbone: Path, trap: Trap, config, read) -> None:
    put_code(backbone, trap)
    change_json(backbone / "config.json", **config)
    try:
        read(backbone)
    except BackboneError as error:
        assert str(backbone) in str(error)


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
@pytest.mark.parametrize("on_gpu", [False, True])
def test_an_attention_that_a_hub_would_have_to_send_is_not_asked_for(
    backbone: Path, monkeypatch: pytest.MonkeyPatch, key: str, on_gpu: bool
) -> None:
    """transformers takes "owner/name" there for compiled code to be fetched and run."""
    change_json(backbone / "config.json", **{key: "stranger/kernel"})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    assert build_backbone(backbone).config._attn_implementation in ("eager", "sdpa")


VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]


def test_an_adapter_that_points_to_other_weights_is_refused(backbone: Path) -> None:
    """With peft, which Kaggle's image has, transformers would load those in their stead."""
    content = {"base_model_name_or_path": "/elsewhere", "peft_type": "LORA"}
    (backbone / "adapter_config.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError, match=r"deberta-v3-tiny.*adapter"):
        load_backbone(backbone, dropout=0.0)


@pytest.mark.parametrize("tokenizer_class", ["Own", "BertTokenizer", None])
@pytest.mark.parametrize("model_type", ["own", "bert", None])
@pytest.mark.parametrize("file", ["spm.model", "tokenizer.json", "vocab.txt"])
def test_code_that_a_tokenizers_config_names_is_not_run(
    material, tmp_path: Path, trap: Trap, file: str, model_type, tokenizer_class
) -> None:
    folder = tmp_path / "stranger"
    folder.mkdir()
    if file == "vocab.txt":
        (folder / file).write_text("\n".join(VOCABULARY))
    elif file == "spm.model":
        shutil.copy(material.backbone / file, folder)
    else:
        build_tokenizer(material.backbone, keep_newlines=True).backend_tokenizer.save(
            str(folder / file)
        )
    put_code(folder, trap)
    own = {"auto_map": {"AutoConfig": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**own, **({"tokenizer_class": tokenizer_class} if tokenizer_class else {})})
    )
    if model_type:
        (folder / "config.json").write_text(json.dumps({**own, "model_type": model_type}))
    try:
        build_tokenizer(folder, keep_newlines=True)
    except BackboneError as error:
        assert str(folder) in str(error)


# a run folder


@pytest.fixture
def run(own_run: Callable[..., Path]) -> Path:
    """A run as training leaves it, attached as a stranger's dataset, to be tampered with."""
    return own_run("input/datasets/stranger/weights", max_length=32, fgm_epsilon=0.0)


@pytest.fixture
def infer(run: Path, material, tmp_path: Path) -> Callable[..., pd.DataFrame | None]:
    """Predicts with the run; None when it is refused, by a message that names the folder.

    Or, given ``about``, one that names any of these. Whatever happens, nothing is written but the
    submission, and that one is valid.
    """
    settings = InferenceSettings(
        runs=(str(run),),
        data_dir=str(material.competition),
        submission=str(tmp_path / "work/submission.csv"),
        precision="float32",
    )

    def everything() -> dict[Path, str]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path: sha256(path) for path in files}

    def predict(*about: str) -> pd.DataFrame | None:
        before, found = everything(), None
        path, refused = tmp_path / "work/submission.csv", None
        try:
            predict_submission(settings)
        except KernelLibError as error:
            refused = error
        if path.exists():
            found = check_submission(
                path, material.competition / "sample_submission.csv", lowest=1.0, highest=5.0
            )
        assert {**everything(), path: ""} == {**before, path: ""}
        if refused:
            assert any(text in str(refused) for text in (str(run), *about)), refused
            return None
        assert found is not None
        return found

    return predict


def seal(run: Path) -> None:
    """Makes the hashes of the manifests fit the files, as a stranger would."""
    for path in run.glob(f"fold*/{MANIFEST}"):
        manifest = json.loads(path.read_text())
        manifest["sha256"] = {name: sha256(path.parent / name) for name in manifest["sha256"]}
        path.write_text(json.dumps(manifest))


def test_a_genuine_run_predicts(infer) -> None:
    assert infer() is not None


@pytest.mark.parametrize("write", PICKLES)
def test_a_pickle_in_the_place_of_a_folds_weights_is_refused(
    run: Path, trap: Trap, infer, capsys, write
) -> None:
    write(run / "fold1" / WEIGHTS, trap)
    seal(run)
    assert infer() is None


@pytest.mark.parametrize("write", PICKLES)
def test_a_pickle_in_the_place_of_a_saved_state_is_refused(
    tmp_path: Path, trap: Trap, write
) -> None:
    write(tmp_path / RESUME, trap)
    with pytest.raises(ArtifactError, match="resume"):
        read_progress(tmp_path / RESUME, "any")


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_code_that_a_folds_config_names_is_not_run(run: Path, trap: Trap, infer, config) -> None:
    for fold in (run / "fold0", run / "fold1"):
        put_code(fold, trap)
        change_json(fold / CONFIG, **config)
    seal(run)
    infer()


def test_code_beside_a_runs_tokenizer_is_not_run_and_changes_nothing(
    run: Path, trap: Trap, infer
) -> None:
    expected = infer()
    put_code(run, trap)
    put_code(run / TOKENIZER, trap)
    change_json(
        run / TOKENIZER / "tokenizer_config.json",
        tokenizer_class="Own",
        auto_map={"AutoTokenizer": ["own.Own", "own.Own"]},
    )
    assert infer().equals(expected)


NOT_JSON = {
    "nothing": b"",
    "brackets without end": b"[" * 200_000,
    "a number without end": b'{"format": ' + b"9" * 10_000 + b"}",
    "zeros": b"\0" * 1000,
    "a pickle": pickle.dumps({"format": 1}),
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize(
    "name", [RUN_RECORD, f"fold0/{MANIFEST}", f"fold0/{CONFIG}", f"{TOKENIZER}/tokenizer.json"]
)
def test_a_file_that_is_no_json_is_refused(run: Path, infer, name: str, content: bytes) -> None:
    (run / name).write_bytes(content)
    seal(run) if name.endswith(CONFIG) else None
    assert infer() is None


@pytest.mark.parametrize(
    "content", ["[]", "7", "{}", '{"pad_token": 7}', '{"pad_token": {"a": 1}}', '{"cls_token": []}']
)
def test_a_tokenizers_config_with_odd_values_is_refused(run: Path, infer, content: str) -> None:
    (run / TOKENIZER / "tokenizer_config.json").write_text(content)
    assert infer() is None


RECORDS = [
    {"run_id": None},
    {"run_id": ["x"]},
    {"run_id": "x" * 100_000},
    {"task": []},
    {"settings": None},
    {"settings": []},
    {"settings": [["seed", 1]]},
    {"settings": {"no_such_setting": 1}},
    {"settings": {"target_columns": 7}},
    {"settings": {"target_columns": [["a"]]}},
    {"settings": {"target_columns": ["../../a", "b"]}},
    {"settings": {"id_column": "no such column"}},
    {"settings": {"max_length": 2**62}},
    {"settings": {"pooling": "no such pooling"}},
    {"settings": {"pooling_layers": 2**62}},
    {"settings": {"dropout": float("nan")}},
    {"settings": {"n_folds": 2**62}},
    {"settings": {"competition": "../../.."}},
    {"settings": {"output_dir": "../../outside", "resume_from": "/", "data_dir": "/"}},
    {"identity": None},
    {"identity": []},
    {"identity": {}},
    {"identity": {"tokens": 7}},
    {"folds": None},
    {"folds": 7},
    {"folds": "abc"},
    {"folds": [7]},
    {"folds": [{}]},
    {"folds": [{"fold": "../../../outside"}]},
    {"folds": [{"fold": [1]}]},
    {"pooled": None},
    {"pooled": []},
    {"pooled": {"scores": None}},
    {"pooled": {"scores": {"mcrmse": "best"}}},
    {"pooled": {"scores": {"mcrmse": [1]}}},
    {"target_means": "abc"},
    {"target_means": [[1]]},
    {"target_means": {"a": 1}},
    {"target_means": [float("inf")] * 6},
    {"versions": None},
    {"versions": ["5.0"]},
    {"versions": {"python": 3, "torch": ["2"]}},
]


@pytest.mark.parametrize("changes", RECORDS, ids=lambda changes: json.dumps(changes)[:60])
def test_a_record_with_odd_values_is_refused_or_does_no_harm(run: Path, infer, changes) -> None:
    record = json.loads((run / RUN_RECORD).read_text())
    about = []
    if isinstance(changes.get("settings"), dict):  # it may be the data that does not fit
        about = [*map(repr, changes["settings"].values()), "sample_submission.csv"]
        changes = {"settings": {**record["settings"], **changes["settings"]}}
    (run / RUN_RECORD).write_text(json.dumps({**record, **changes}))
    infer(*about)


MANIFESTS = [
    {"fold": "../../../outside"},
    {"fold": "0"},
    {"fold": None},
    {"fold": [0]},
    {"fold": 2**70},
    {"run_id": None},
    {"run_id": {"a": 1}},
    {"sha256": None},
    {"sha256": []},
    {"sha256": {}},
    {"sha256": {WEIGHTS: None, CONFIG: None}},
    {"sha256": {WEIGHTS: 7, CONFIG: 7}},
    {"sha256": {WEIGHTS: "", CONFIG: ""}},
]


@pytest.mark.parametrize("changes", MANIFESTS, ids=lambda changes: json.dumps(changes)[:60])
def test_a_manifest_with_odd_values_is_refused(run: Path, infer, changes) -> None:
    change_json(run / "fold0" / MANIFEST, **changes)
    assert infer() is None


@pytest.mark.parametrize("name", ["fold007", "fold\u0663", "fold" + "9" * 200, "fold-1"])
def test_a_fold_folder_of_an_odd_name_is_refused_or_passed_over(
    run: Path, infer, name: str
) -> None:
    shutil.copytree(run / "fold1", run / name)
    infer()


def test_a_fold_that_is_a_link_to_a_folder_outside_is_read_and_not_changed(
    run: Path, infer, tmp_path: Path
) -> None:
    (run / "fold1").rename(tmp_path / "elsewhere")
    (run / "fold1").symlink_to(tmp_path / "elsewhere")
    infer()


# wheels


def write_hostile_wheel(path: Path, trap: Trap, *modules: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as wheel:
        for module in modules:
            wheel.writestr(f"{module}/__init__.py", trap.code)
            wheel.writestr(f"{module}.py", trap.code)
        wheel.writestr("stranger-1.0.dist-info/METADATA", "Name: stranger\nVersion: 1.0\n")
        wheel.writestr("stranger-1.0.dist-info/RECORD", "")
        wheel.writestr("stranger-1.0.dist-info/entry_points.txt", "[pytest11]\na = strange_b\n")


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stranger's dataset, whatever is put on ``sys.path`` taken off it again."""
    monkeypatch.setenv(KAGGLE_ROOT_VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "input/datasets/stranger/backbone").mkdir(parents=True)
    return tmp_path / "input/datasets/stranger/backbone"


@pytest.mark.parametrize("name", ["stranger-1.0-py3-none-any.whl", CARRIED[0].wheel])
@pytest.mark.parametrize("extracted", [False, True])
def test_code_in_a_strangers_wheel_cannot_be_imported(
    inputs: Path, trap: Trap, name: str, extracted: bool
) -> None:
    write_hostile_wheel(inputs / name, trap, "strange_a", "sitecustomize", "iterstrat")
    if extracted:
        with zipfile.ZipFile(inputs / name) as archive:
            archive.extractall(inputs / name.removesuffix(".whl"))
        (inputs / name).unlink()
    assert attach_wheels() == []
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("strange_a")
    assert not any(str(inputs) in entry for entry in sys.path)


def test_modules_lying_about_in_a_dataset_cannot_be_imported(inputs: Path, trap: Trap) -> None:
    for name in ("strange_b.py", "sitecustomize.py", "strange.pth", "strange_b/__init__.py"):
        (inputs / name).parent.mkdir(exist_ok=True)
        (inputs / name).write_text(trap.code)
    attach_wheels()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("strange_b")


# a second kernel_lib


def bootstrap_cell() -> str:
    notebook = jupytext.read(ROOT / "notebooks/fb3_infer.py")
    return str(next(cell.source for cell in notebook.cells if cell.cell_type == "code"))


def run_bootstrap(root: Path) -> subprocess.CompletedProcess[str]:
    """The notebooks' first cell, in a process and a folder of its own."""
    (root / "working").mkdir(parents=True)
    environment = {**os.environ, KAGGLE_ROOT_VARIABLE: str(root)}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        [sys.executable, "-c", bootstrap_cell()],
        cwd=root / "working",
        env=environment,
        capture_output=True,
        text=True,
    )


def attach_library(folder: Path) -> Path:
    skipped = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE, folder / "kernel_lib", ignore=skipped))


def test_the_first_cell_finds_the_one_library_that_is_attached(tmp_path: Path) -> None:
    ours = attach_library(tmp_path / "input/datasets/me/kernel-lib")
    done = run_bootstrap(tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(ours) in done.stdout


@pytest.mark.parametrize("other", ["a", "zzz", "datasets/a/backbone", "models/a/b/c/d/1"])
def test_a_second_library_among_the_inputs_is_refused_and_both_are_named(
    tmp_path: Path, trap: Trap, other: str
) -> None:
    ours = attach_library(tmp_path / "input/datasets/me/kernel-lib")
    theirs = tmp_path / "input" / other / "kernel_lib"
    theirs.mkdir(parents=True)
    for name in ("__init__.py", "errors.py"):
        (theirs / name).write_text(f"{trap.code}__version__ = '9.9'\n")
    done = run_bootstrap(tmp_path)
    assert done.returncode != 0
    assert str(ours) in done.stderr and str(theirs) in done.stderr


# what the code must not contain

FILES = sorted(PACKAGE.rglob("*.py"))
ON_KAGGLE = [path for path in FILES if path.relative_to(PACKAGE).parts[0] != "offline"]


def names_in(path: Path) -> tuple[set[str], set[str], set[str]]:
    """What a file imports, the attributes it uses, and the plain names it calls."""
    imported, attributes, called = {""}, {""}, {""}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {node.module or "", *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Attribute):
            attributes.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called.add(node.func.id)
    return imported, attributes, called


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_archive_is_ever_extracted(path: Path) -> None:
    """So no archive can write outside its folder: wheels are imported as they are."""
    imported, attributes, called = names_in(path)
    assert "tarfile" not in imported
    assert not {"extractall", "extract", "unpack_archive"} & (attributes | called)
    assert not {"shutil.unpack_archive", "zipfile.main"} & imported


@pytest.mark.parametrize("path", ON_KAGGLE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_that_was_read_can_become_code(path: Path) -> None:
    imported, _, called = names_in(path)
    modules = {"pickle", "marshal", "shelve", "runpy", "code", "imp", "zipfile", "zipimport"}
    assert not modules & imported
    assert not {"exec", "eval", "compile", "__import__", "import_module"} & called
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert not {"allow_pickle"} & {keyword.arg for keyword in node.keywords}
            if node.func.attr == "import_module":
                assert isinstance(node.args[0], ast.Constant), "a name that was read is imported"
    if path != PACKAGE / "runtime/wheels.py":
        source = path.read_text(encoding="utf-8")
        assert "sys.path" not in source.replace("``sys.path``", "")
