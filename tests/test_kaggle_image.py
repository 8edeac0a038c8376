"""Kaggle's image: what is written down of it, and that this code is read by its Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kernel_lib.offline.rehearsal.image import IMAGE, read_image
from kernel_lib.runtime.wheels import CARRIED
from tests.conftest import ROOT

ABSENT = (
    *("iterative-stratification", "onnxruntime", "onnxruntime-gpu", "optimum", "bitsandbytes"),
    *("evaluate", "seqeval", "rapidfuzz", "sacremoses", "pycorrector", "flash-attn", "deepspeed"),
    *("xformers", "trl", "vllm"),
)
LAPTOP = "# The laptop's side"
SOURCES = sorted(
    path
    for folder in ("kernel_lib", "notebooks", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def requirements(text: str) -> dict[str, Requirement]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    found = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


REQUIRED = (ROOT / "requirements.txt").read_text(encoding="utf-8")


def test_names_are_written_in_the_normal_form_and_once() -> None:
    lines = (line.partition("#")[0] for line in IMAGE.read_text(encoding="utf-8").splitlines())
    names = [re.split(r"[^\w.-]", line.strip())[0] for line in lines if line.strip()]
    assert [canonicalize_name(name) for name in names] == names
    assert sorted(names) == sorted(read_image())


def test_it_says_where_it_comes_from_and_when() -> None:
    text = IMAGE.read_text(encoding="utf-8")
    assert "Kaggle/docker-python 78aaa43 (12 August 2026)" in text
    assert "# python 3.12" in text
    assert all(
        {part.operator for part in requirement.specifier} <= {"==", ">=", "!="}
        for requirement in read_image().values()
    )


def test_what_the_notebooks_need_is_on_the_image_or_travels_as_a_wheel() -> None:
    needed, laptop, _ = REQUIRED.partition(LAPTOP)
    assert laptop
    absent = requirements(needed).keys() - read_image().keys()
    assert absent == {canonicalize_name(Requirement(c.requirement).name) for c in CARRIED}


def test_what_the_image_lacks_is_not_named() -> None:
    assert not {canonicalize_name(name) for name in ABSENT} & read_image().keys()


def test_every_version_of_the_image_is_one_that_the_kit_supports() -> None:
    image, wanted = read_image(), requirements(REQUIRED)
    both = image.keys() & wanted.keys()
    pins = [(name, part) for name in both for part in image[name].specifier]
    pins = [(name, part.version) for name, part in pins if part.operator == "=="]
    assert pins and [pin for pin in pins if not wanted[pin[0]].specifier.contains(pin[1])] == []


def test_torch_is_left_to_the_requirements() -> None:
    """A constraint on it would bring gigabytes of CUDA packages, or contradict the pin."""
    assert not read_image()["torch"].specifier
    assert requirements(REQUIRED)["torch"].specifier


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_read_by_python_3_11_and_by_this_one(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 11))
    compile(source, str(path), "exec", dont_inherit=True)
