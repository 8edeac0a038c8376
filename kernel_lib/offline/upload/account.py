"""Whose Kaggle account this is, and which values must never leave this machine.

Both are read where the ``kaggle`` command itself looks: the environment, ``kaggle.json``, and the
files of its newer log-ins. A key is only ever compared with, never shown.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kernel_lib.errors import DataError, SettingsError

OWNER_UNKNOWN = "your-kaggle-name"
SECRET_VARIABLES = (
    "KAGGLE_KEY",
    "KAGGLE_API_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "WANDB_API_KEY",
)
SHORTEST_SECRET = 8  # a shorter value would be found in any text
_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
NOT_SEARCHED = (".safetensors", ".bin", ".whl")  # gigabytes of numbers, and what is compressed


def find_owner() -> str | None:
    """The user name of the Kaggle account on this machine; None when no file or variable says it.

    An access token alone (``KAGGLE_API_TOKEN``, ``~/.kaggle/access_token``) names nobody.
    """
    name = os.environ.get("KAGGLE_USERNAME")
    for path in _login_files():
        name = name or _text_of(_read(path), "username")
    return name or None


def choose_owner(given: str | None = None) -> str:
    """The owner whose name goes into the metadata; a stand-in, and a line that says so, if unknown.

    Args:
        given: the name from the command line, which comes first.

    Raises:
        SettingsError: no user could be called that.
    """
    owner = given or find_owner()
    if owner:
        return check_owner(owner)
    print(
        f"your Kaggle name is not known, {OWNER_UNKNOWN!r} stands in its place: add OWNER=<name> "
        "(an access token does not tell it), or save your API key as ~/.kaggle/kaggle.json"
    )
    return OWNER_UNKNOWN


def check_owner(owner: str) -> str:
    """The name itself. Raises SettingsError when no Kaggle user could be called that."""
    if not _OWNER.fullmatch(owner):
        raise SettingsError(
            f"OWNER={owner!r} is no Kaggle user name. It is the last part of the address of your "
            "profile page, www.kaggle.com/<name>."
        )
    return owner


def known_secrets() -> dict[str, str]:
    """The user's own keys and tokens: where each comes from, and its value."""
    found = {name: os.environ.get(name, "") for name in SECRET_VARIABLES}
    token = found["KAGGLE_API_TOKEN"]
    if os.path.isfile(token):  # the client takes a path as well
        found["KAGGLE_API_TOKEN"] = _content(Path(token))
    for path in _login_files():
        values = _read(path)
        for key in ("key", "access_token", "refresh_token"):
            found[f"{key} of {path}"] = _text_of(values, key)
    for path in (Path.home() / ".kaggle" / name for name in ("access_token", "access_token.txt")):
        found[str(path)] = _content(path)
    stripped = {source: value.strip() for source, value in found.items()}
    return {source: value for source, value in stripped.items() if len(value) >= SHORTEST_SECRET}


def refuse_secrets(folder: Path) -> None:
    """Looks for the user's own keys in all files of a folder.

    Raises:
        DataError: one holds one; the message names the file and the key's place, not its value.
    """
    secrets = {source: value.encode() for source, value in known_secrets().items()}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()] if secrets else []
    for path in files:
        content = b"" if path.suffix in NOT_SEARCHED else path.read_bytes()
        for source, value in secrets.items():
            if value in content:
                raise DataError(
                    f"{path.relative_to(folder)} holds the value of your {source}. Take it out of "
                    "the file it was made from; if that was ever shared, make a new key."
                )


def _login_files() -> Iterator[Path]:
    """The JSON files of the client's log-ins, the ones it reads first in front."""
    given = os.environ.get("KAGGLE_CONFIG_DIR")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    home = Path.home() / ".kaggle"
    for folder in [Path(given)] if given else [home, config / "kaggle"]:
        yield folder / "kaggle.json"
    yield home / "credentials.json"


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _read(path: Path) -> Any:
    try:
        return json.loads(_content(path))
    except json.JSONDecodeError:
        return None


def _text_of(values: Any, key: str) -> str:
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""
