"""The rules for our own templates: Kaggle's, once they are filled in, and those of the house."""

from __future__ import annotations

from typing import Any

from kernel_lib.errors import KernelLibError
from kernel_lib.offline.upload import templates
from kernel_lib.offline.upload.dataset_rules import inspect_dataset
from kernel_lib.offline.upload.kernel_rules import inspect_kernel
from kernel_lib.offline.upload.problems import NOT_THERE, Inspection, Problem, read_values, shown
from kernel_lib.offline.upload.templates import (
    DATASET,
    KERNEL,
    render,
    template_names,
    template_path,
)

MADE_UP = "a-made-up-name"
LIBRARY_SLUG = "kernel-lib"


def check_templates(owner: str) -> list[Problem]:
    """What is wrong with the templates filled in for an owner, and which of them are missing."""
    problems: list[Problem] = []
    kernel_ids: dict[str, str] = {}
    for name in template_names(DATASET) + template_names(KERNEL):
        found = _fill(name, owner)
        if found.problems:
            pass
        elif name.endswith(DATASET):
            inspect_dataset(found, None)
        else:
            inspect_kernel(found, templates.NOTEBOOKS)
            _inspect_house_rules(found, name.removesuffix(KERNEL), owner)
            _inspect_uniqueness(found, kernel_ids)
        problems += found.problems
    return problems + _notebooks_without_template()


def _fill(name: str, owner: str) -> Inspection:
    """The template's values filled in, with made-up ones where a dataset is named when built."""
    found = read_values(template_path(name))
    if not found.problems:
        fields = {word.lower(): MADE_UP for word in templates.placeholders(name) - {"OWNER"}}
        try:
            found.values = render(name, owner=owner, **fields)
        except KernelLibError as error:
            found.report("", str(error))
    return found


def _inspect_house_rules(found: Inspection, notebook: str, owner: str) -> None:
    """What our own notebooks need, beyond Kaggle's rules."""
    if found.values.get("code_file") != f"{notebook}.ipynb":
        found.report("code_file", f"must be {notebook}.ipynb, as the template is called")
    library = f"{owner}/{LIBRARY_SLUG}"
    if library not in _sources(found, "dataset_sources"):
        found.report("dataset_sources", f"must hold {library}: every notebook imports kernel_lib")
    ours = {read_values(template_path(name)).values.get("id") for name in template_names(KERNEL)}
    for source in _sources(found, "kernel_sources"):
        if source.startswith(f"{owner}/") and source.replace(owner, "OWNER", 1) not in ours:
            found.report("kernel_sources", "no template makes a notebook of that name", source)


def _sources(found: Inspection, key: str) -> list[str]:
    listed: Any = found.values.get(key)
    return [str(source) for source in listed] if isinstance(listed, list) else []


def _inspect_uniqueness(found: Inspection, kernel_ids: dict[str, str]) -> None:
    own_id = str(found.values.get("id"))
    if own_id in kernel_ids:
        found.report("id", f"{kernel_ids[own_id]} has the same: a push would replace that notebook")
    kernel_ids.setdefault(own_id, found.file)


def _notebooks_without_template() -> list[Problem]:
    with_template = {name.removesuffix(KERNEL) for name in template_names(KERNEL)}
    return [
        Problem(
            shown(path),
            "",
            NOT_THERE,
            f"has no template: write {shown(template_path(path.stem + KERNEL))}",
        )
        for path in sorted(templates.NOTEBOOKS.glob("*.ipynb"))
        if path.stem not in with_template
    ]
