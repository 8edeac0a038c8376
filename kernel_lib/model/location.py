"""Where the files of a pretrained encoder are: a folder of this machine, never a hub."""

from __future__ import annotations

import re
from pathlib import Path

from kernel_lib.errors import BackboneError
from kernel_lib.runtime.paths import input_folders, input_root


def find_backbone(name: str) -> Path:
    """The folder of a pretrained encoder.

    Args:
        name: a path, or the name of a folder anywhere under the inputs that holds a ``config.json``
            (directly, or in one of its sub-folders, as Kaggle Models are mounted).

    Raises:
        BackboneError: there is none, or several; a hub name is never looked up on a network.
    """
    if Path(name).is_dir():
        return _with_config(Path(name))
    wanted = Path(name).name
    found = [
        folder
        for folder in input_folders()
        if wanted in folder.relative_to(input_root()).parts and (folder / "config.json").is_file()
    ]
    # Some encoders have parts with a config of their own in sub-folders.
    found = [folder for folder in found if not set(folder.parents) & set(found)]
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(map(str, found))
        raise BackboneError(f"backbone={name!r} fits several folders: {listed}. Give a path.")
    hint = (
        "It reads like a hub name, and nothing is ever downloaded here. "
        if re.fullmatch(r"[\w.-]+/[\w.-]+", name)
        else ""
    )
    raise BackboneError(
        f"backbone={name!r} is no folder, and no folder of that name with a config.json is under "
        f"{input_root()}. {hint}Attach the model's files as an input, or give their path."
    )


def _with_config(folder: Path) -> Path:
    """The folder, or its one sub-folder with a ``config.json``: a Kaggle Model's version, say."""
    if (folder / "config.json").is_file():
        return folder
    inside = sorted(path.parent for path in folder.glob("*/config.json"))
    if len(inside) != 1:
        raise BackboneError(
            f"the backbone folder {folder} has no config.json, and {len(inside)} of its folders do."
        )
    return inside[0]
