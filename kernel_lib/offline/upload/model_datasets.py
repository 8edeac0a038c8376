"""The datasets of weights: a pretrained encoder's files, and a run folder's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from kernel_lib.errors import ArtifactError, BackboneError, SettingsError
from kernel_lib.offline.upload.dataset_rules import METADATA
from kernel_lib.offline.upload.staging import place, staged, write_metadata
from kernel_lib.offline.upload.templates import dataset_slug, render
from kernel_lib.runtime.files import read_json, sha256

# What ``kernel_lib.model`` and ``kernel_lib.text`` read of a backbone. The first weights that are
# there are taken, as transformers does.
BACKBONE_CONFIG = "config.json"
TOKENIZERS = ("spm.model", "tokenizer.json", "vocab.txt")
TOKENIZER_PARTS = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "sentencepiece.bpe.model"),
)
WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md")

# The run folder, as ``kernel_lib.artifacts`` writes it.
RUN, RECORD, MANIFEST = "run", "run.json", "manifest.json"
HASHED = ("model.safetensors", "config.json", "oof.csv")
RUN_FILES = ("folds.csv", "oof.csv", "report.html")
RUN_TOKENIZER = "tokenizer"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
LOG = "log.jsonl"


def build_backbone(source: Path, folder: Path, owner: str, name: str) -> None:
    """Makes the dataset of a pretrained encoder, with the files that training reads and no others.

    Args:
        source: a folder in Hugging Face's layout.
        folder: what is built.
        owner: the Kaggle name.
        name: the dataset's title, and, as a slug, the ``backbone`` of the training settings.

    Raises:
        BackboneError: config, tokenizer or weights are missing.
        SettingsError: Kaggle would not take the name.
    """
    if not (source / BACKBONE_CONFIG).is_file():
        inside = [path.parent for path in sorted(source.glob(f"*/{BACKBONE_CONFIG}"))]
        hint = f"Is {inside[0]} meant?" if inside else "Give the folder of a model's files."
        raise BackboneError(f"the backbone folder {source} has no {BACKBONE_CONFIG}. {hint}")
    if not any((source / file).is_file() for file in TOKENIZERS):
        raise BackboneError(f"{source} has no tokenizer: none of {', '.join(TOKENIZERS)}.")
    optional = [*TOKENIZERS, *TOKENIZER_PARTS, *LICENSES]
    files = [file for file in optional if (source / file).is_file()]
    values = render("backbone.dataset", owner=owner, slug=dataset_slug(name), title=name)
    kinds = (".json", ".txt", ".md", ".model", ".safetensors", ".bin", "LICENSE")
    with staged(folder, kinds=kinds) as new:
        for file in [BACKBONE_CONFIG, *files, *_weight_files(source)]:
            place(source / file, new / file)
        write_metadata(new / METADATA, values)


def _weight_files(source: Path) -> list[str]:
    """The names of the first complete set of weights. Raises BackboneError without one."""
    first = next((file for file in WEIGHTS if (source / file).is_file()), None)
    if first is None:
        raise BackboneError(f"{source} has no weights: none of {', '.join(WEIGHTS)}.")
    if not first.endswith(".index.json"):
        return [first]
    index = read_json(source / first)
    table = index.get("weight_map") if isinstance(index, dict) else None
    shards = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    for shard in shards:
        if not (_is_plain(shard) and (source / shard).is_file()):
            raise BackboneError(f"{source / first} names {shard!r}, which is not in the folder.")
    return [first, *shards]


def default_name(run: Path) -> str:
    """What the dataset of a run is called unless told otherwise: ``fb3-weights``, by its task."""
    return f"{_open_run(run)['task']}-weights"


def build_weights(run: Path, folder: Path, owner: str, name: str) -> None:
    """Makes the dataset of a run: its finished folds, as ``run/``, for inference and the report.

    Args:
        run: the run folder; every hash in its manifests is compared first.
        folder: what is built.
        owner: the Kaggle name.
        name: the dataset's title.

    Raises:
        ArtifactError: it is no run folder, no fold is finished, or a file is missing or altered.
        SettingsError: Kaggle would not take the name, or it is that of another run's dataset.
    """
    record = _open_run(run)
    run_id = record["run_id"]
    _refuse_other_run(folder, run_id)
    numbers = [path.parent.name.removeprefix("fold") for path in run.glob(f"fold*/{MANIFEST}")]
    folds = sorted(int(number) for number in numbers if number.isdecimal())
    if not folds:
        raise ArtifactError(
            f"{run} has no finished fold (fold<n>/{MANIFEST}): let the training go on first."
        )
    files = [RECORD, *(file for file in RUN_FILES if (run / file).is_file())]
    for file in _tokenizer_files(record):
        if not (run / file).is_file():
            raise ArtifactError(f"{run / file} is missing. Copy the whole run folder.")
        files.append(file)
    for fold in folds:
        _refuse_altered(run / f"fold{fold}", fold, run_id)
        log = [LOG] if (run / f"fold{fold}" / LOG).is_file() else []
        files += [f"fold{fold}/{file}" for file in (*HASHED, *log, MANIFEST)]
    values = render("weights.dataset", owner=owner, slug=dataset_slug(name), title=name)
    kinds = (".json", ".jsonl", ".csv", ".html", ".safetensors")
    with staged(folder, kinds=kinds) as new:
        for file in files:
            place(run / file, new / RUN / file)
        write_metadata(new / METADATA, values)


def _refuse_other_run(folder: Path, run_id: str) -> None:
    """Raises SettingsError when what is there is of another run, uploaded under the same name."""
    if not (folder / RUN / RECORD).is_file():
        return
    theirs = _open_run(folder / RUN)["run_id"]
    if theirs != run_id:
        raise SettingsError(
            f"{folder} holds another run ({theirs}, here {run_id}), and on Kaggle too it would be "
            "replaced. Give this one a name of its own (NAME=...), or remove the folder if it is "
            "to be replaced."
        )


def _tokenizer_files(record: dict[str, Any]) -> list[str]:
    """Those of the run's tokenizer; on frozen features, of each encoder's, ``tokenizer/0/`` on."""
    folders = [RUN_TOKENIZER]
    resources = record.get("resources")
    if isinstance(resources, dict) and isinstance(resources.get("encoders"), list):
        folders = [f"{RUN_TOKENIZER}/{number}" for number in range(len(resources["encoders"]))]
    return [f"{folder}/{file}" for folder in folders for file in TOKENIZER_FILES]


def _open_run(run: Path) -> dict[str, Any]:
    """A run's record. Raises ArtifactError when there is none."""
    record = read_json(run / RECORD)
    if not isinstance(record, dict) or {"run_id", "task"} - set(record):
        raise ArtifactError(f"{run / RECORD} is not a run's record: damaged? Copy it again.")
    return record


def _refuse_altered(folder: Path, fold: int, run_id: str) -> None:
    """Raises ArtifactError when a fold is of another run, or not as training wrote it."""
    manifest = read_json(folder / MANIFEST)
    written = manifest.get("sha256") if isinstance(manifest, dict) else None
    if not isinstance(written, dict) or set(HASHED) - set(written):
        raise ArtifactError(f"{folder / MANIFEST} is not a manifest: damaged? Copy it again.")
    if (manifest.get("run_id"), manifest.get("fold")) != (run_id, fold):
        raise ArtifactError(
            f"{folder} holds fold {manifest.get('fold')} of run {manifest.get('run_id')}, not fold "
            f"{fold} of {run_id}. Keep each run's folders together."
        )
    for file, digest in written.items():
        if not _is_plain(file) or not (folder / file).is_file():
            raise ArtifactError(f"{folder / file} is missing. Copy the whole fold folder.")
        if sha256(folder / file) != digest:
            raise ArtifactError(
                f"{folder / file} is not the file that training wrote: truncated or altered. "
                "Copy it again."
            )


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder."""
    return re.fullmatch(r"[\w-][\w.-]*", name) is not None
