"""Which of the packages installed here Kaggle's image has, as ``datasets_meta/kaggle-image.txt``
says: a rehearsed notebook must not import what is only on the laptop."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kernel_lib.errors import DataError

IMAGE = Path(__file__).parents[3] / "datasets_meta/kaggle-image.txt"
KERNEL = ("ipykernel",)  # Kaggle's notebooks have a kernel of their own
COMPARED = (
    *("transformers", "tokenizers", "safetensors", "numpy", "pandas"),
    *("scikit-learn", "scipy", "protobuf", "matplotlib"),
)


def read_image(path: Path = IMAGE) -> dict[str, Requirement]:
    """The packages of the image by normalised name, with their versions where known.

    Raises:
        DataError: the file is missing, or a line is no requirement.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing, the list of what Kaggle's image has: restore it.")
    found: dict[str, Requirement] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        try:
            requirement = Requirement(text)
        except ValueError as error:
            raise DataError(f"{path}:{number}: {text!r} is no requirement ({error}).") from None
        found[canonicalize_name(requirement.name)] = requirement
    return found


def hidden_modules(image: Iterable[str]) -> dict[str, str]:
    """Importable modules that are installed here and not on the image, with their distribution.

    A package that one of the image's packages needs counts as being there, and so does a module
    that several packages share when one of them is there.

    Args:
        image: normalised names of the image's packages.
    """
    there = _with_requirements([*image, "torch", *KERNEL])
    hidden = {}
    for module, distributions in importlib.metadata.packages_distributions().items():
        names = [name for name in distributions if name]  # a broken installation has none
        if names and not {canonicalize_name(name) for name in names} & there:
            hidden[module] = names[0]
    return hidden


def differences(image: dict[str, Requirement]) -> list[str]:
    """Where the main packages here are of another version than on the image, a text each."""
    found = []
    for name in COMPARED:
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name in image and not image[name].specifier.contains(here, prereleases=True):
            found.append(f"{name} {here} (image {image[name].specifier})")
    return found


def _with_requirements(names: Iterable[str]) -> set[str]:
    """The names and, over and over, what the installed ones among them require."""
    reached: set[tuple[str, str]] = set()  # each with an extra, such as http of fsspec[http]
    waiting = [(canonicalize_name(name), "") for name in names]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in reached:
            continue
        reached.add((name, extra))
        try:
            lines = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, lines):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                waiting += [(needed, wanted) for wanted in ("", *requirement.extras)]
    return {name for name, _ in reached}
