"""The README names only what there is."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", TEXT))
    assert {"demo", "test", "notebooks"} <= named <= targets


def test_every_test_it_names_exists() -> None:
    source = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 15
    assert {name for name in named if f"def {name}(" not in source} == set()


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:tests|notebooks)/\w+(?:\.py)?)`", TEXT)))
)
def test_every_file_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists() or (ROOT / f"{path}.py").exists()


def test_the_reading_list_holds_every_module() -> None:
    rooms = {p.parent.name for p in (ROOT / "kernel_lib").glob("*/__init__.py")}
    chapter = TEXT[TEXT.index("## Reading the code") : TEXT.index("## What it needs")]
    assert {room for room in rooms if f"`{room}/" not in chapter} == set()


def test_every_setting_it_names_exists() -> None:
    from kernel_lib.tasks.entity_settings import EntityInferenceSettings
    from kernel_lib.tasks.registry import TASKS
    from kernel_lib.tasks.spelling_settings import SpellingInferenceSettings

    known = SpellingInferenceSettings().to_dict() | EntityInferenceSettings().to_dict()
    for _, settings in TASKS.values():
        known |= settings().to_dict()
    named = set(re.findall(r"`([a-z_]+)=", TEXT))
    assert len(named) > 10 and named - known.keys() == set()


def test_no_figure_is_left_to_be_filled_in() -> None:
    assert not re.search(r"^[A-Z_]{6,}$", TEXT, flags=re.M)
