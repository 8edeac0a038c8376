"""Kaggle's rules for ``kernel-metadata.json`` and for the notebook that goes up with it.

From the code of the kaggle client (``kernels_push``), which only checks some of them, and from
what its users met: a wrong source or accelerator is reported after the fact or not at all.
"""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from kernel_lib.config import nearest
from kernel_lib.offline.upload.problems import NOT_THERE, Inspection, read_values
from kernel_lib.offline.upload.templates import slugify

METADATA = "kernel-metadata.json"
SHORTEST = 5  # characters of a title, and of a slug
LANGUAGES = ("python", "r", "rmarkdown")
KERNEL_TYPES = ("script", "notebook")
PINNING_TYPES = ("original", "latest")
GPUS = (
    *("NvidiaTeslaT4", "NvidiaTeslaA100", "NvidiaL4", "NvidiaL4X1", "NvidiaH100"),
    "NvidiaRtxPro6000",
)
TPUS = ("TpuV5E8", "TpuV6E8")
RETIRED = {
    "NvidiaTeslaP100": "retired in September 2026, and the image cannot compute on it",
    "NvidiaTeslaT4Highmem": "a pool of Kaggle's own; NvidiaTeslaT4 gives the two T4",
    "TpuV38": "retired",
    "Tpu1VmV38": "retired",
}
_NAME, _PART = r"[A-Za-z0-9][A-Za-z0-9_-]*", r"[\w.-]+"
SOURCES = {
    "dataset_sources": (rf"{_NAME}/{_NAME}(/\d+)?", "owner/slug or owner/slug/version"),
    "competition_sources": (_NAME, "the bare slug, the last part of the competition's address"),
    "kernel_sources": (rf"{_NAME}/{_NAME}(/\d+)?", "owner/slug, or owner/slug/version"),
    "model_sources": (
        rf"{_NAME}/{_PART}/{_PART}/{_PART}/\d+",
        "owner/model/framework/variation/version",
    ),
}
KEYS = (
    *("id", "id_no", "title", "code_file", "language", "kernel_type", "is_private"),
    *("enable_gpu", "enable_tpu", "enable_internet", "machine_shape", "keywords"),
    *("docker_image_pinning_type", "docker_image", *SOURCES),
)


def inspect_kernel(found: Inspection, folder: Path) -> None:
    """Notes every rule that a kernel's metadata breaks.

    Args:
        found: the metadata; its problems grow.
        folder: where its ``code_file`` stands.
    """
    found.known_keys(KEYS)
    _inspect_names(found)
    if found.values.get("language") not in LANGUAGES:
        found.report("language", f"must be one of {', '.join(LANGUAGES)}")
    if found.values.get("kernel_type") not in KERNEL_TYPES:
        found.report("kernel_type", f"must be one of {', '.join(KERNEL_TYPES)}")
    _inspect_code_file(found, folder)
    found.truth("is_private")
    if "enable_internet" not in found.values:
        found.report("enable_internet", "must be written, as false: left out, the client says true")
    elif found.truth("enable_internet"):
        found.report("enable_internet", "must be false: the run that is scored has no internet")
    _inspect_machine(found)
    for key, (form, words) in SOURCES.items():
        for source in found.texts(key):
            if not re.fullmatch(form, source) or source.startswith("OWNER/"):
                found.report(key, f"must be {words}", source)
            elif key == "kernel_sources" and len(source.split("/")[1]) < SHORTEST:
                found.report(key, f"the slug must have at least {SHORTEST} characters", source)
    found.texts("keywords")
    pinning = found.values.get("docker_image_pinning_type", PINNING_TYPES[0])
    if pinning not in PINNING_TYPES:
        found.report("docker_image_pinning_type", f"must be {' or '.join(PINNING_TYPES)}")
    found.text("docker_image")


def _inspect_names(found: Inspection) -> None:
    if not isinstance(found.values.get("id_no", 0), int):
        found.report("id_no", "must be the notebook's number")
    slug = found.own_id(shortest=SHORTEST)
    title = found.text("title", shortest=SHORTEST, required=True)
    if slug and title and slugify(title) != slug:
        rule = f"makes the slug {slugify(title)!r}, but id says {slug!r}: Kaggle wants them equal"
        found.report("title", rule)


def _inspect_code_file(found: Inspection, folder: Path) -> None:
    name = found.text("code_file", shortest=1, required=True)
    if name is None:
        return
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts:
        found.report("code_file", "must be inside the folder")
    elif not (folder / name).is_file():
        found.report("code_file", f"there is no such file in {folder.name}/")
    elif found.values.get("kernel_type") == ("script" if pure.suffix == ".ipynb" else "notebook"):
        found.report("code_file", "a notebook ends in .ipynb, a script does not")


def _inspect_machine(found: Inspection) -> None:
    before = len(found.problems)
    gpu, tpu = found.truth("enable_gpu"), found.truth("enable_tpu")
    shape = found.text("machine_shape") or ""
    if gpu and tpu:
        found.report("enable_tpu", "a machine has a GPU or a TPU, not both")
    if len(found.problems) > before:
        return
    if shape in RETIRED:
        found.report("machine_shape", f"{RETIRED[shape]}; take one of {', '.join(GPUS + TPUS)}")
    elif shape and shape not in GPUS + TPUS:
        found.report("machine_shape", f"is not known, {nearest(shape, list(GPUS + TPUS))}")
    elif gpu and shape not in GPUS:
        found.report("machine_shape", "enable_gpu asks for a GPU: name it, such as NvidiaTeslaT4")
    elif tpu and shape not in TPUS:
        found.report("machine_shape", "enable_tpu asks for a TPU: name it, such as TpuV5E8")
    elif shape and not gpu and not tpu:
        found.report("machine_shape", "neither enable_gpu nor enable_tpu is true")


def inspect_notebook(path: Path, kernel: dict[str, Any] | None) -> Inspection:
    """Notes what in a notebook's own metadata contradicts the kernel's, and its outputs.

    Args:
        path: the ``.ipynb``.
        kernel: the values of its ``kernel-metadata.json``; None: not compared.
    """
    found = read_values(path)
    if not found.readable:
        return found
    cells, metadata = found.values.get("cells"), found.values.get("metadata")
    if found.values.get("nbformat") != 4 or not isinstance(cells, list):
        found.report("nbformat", "must be a notebook of format 4, with cells")
        return found
    metadata = metadata if isinstance(metadata, dict) else {}
    _inspect_kaggle_block(found, metadata, kernel)
    for index, cell in enumerate(cells):
        if isinstance(cell, dict) and (cell.get("outputs") or cell.get("execution_count")):
            rule = "has outputs or an execution count: clear all outputs and save"
            found.report(f"cells[{index}]", rule, cell.get("execution_count"))
    return found


def _inspect_kaggle_block(
    found: Inspection, metadata: dict[str, Any], kernel: dict[str, Any] | None
) -> None:
    spec = metadata.get("kernelspec", NOT_THERE)
    if not isinstance(spec, dict) or spec.get("name") != "python3":
        found.report("metadata.kernelspec", 'must name the kernel "python3"', spec)
    block = metadata.get("kaggle", NOT_THERE)
    if not isinstance(block, dict):
        found.report("metadata.kaggle", "must hold accelerator and internet", block)
        return
    wanted: dict[str, Any] = {"isInternetEnabled": False}
    if kernel is not None:
        shape = str(kernel.get("machine_shape") or "none")
        wanted["accelerator"] = shape[0].lower() + shape[1:]  # as Kaggle's editor writes it
        wanted["isGpuEnabled"] = bool(kernel.get("enable_gpu"))
        wanted["language"] = kernel.get("language")
    for key, value in wanted.items():
        if block.get(key, NOT_THERE) != value:
            rule = f"must be {json.dumps(value)}, as in its kernel metadata"
            found.report(f"metadata.kaggle.{key}", rule, block.get(key, NOT_THERE))
