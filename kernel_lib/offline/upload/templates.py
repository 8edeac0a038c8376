"""The metadata templates of ``datasets_meta/``, and filling them in.

    <slug>.dataset.json      a Kaggle Dataset; backbone and weights get slug and title when made
    <notebook>.kernel.json   the notebook of that name

The words OWNER, SLUG and TITLE in a template's values are filled in; no word may be left over.
"""

from __future__ import annotations

import html
import re
import unicodedata
from pathlib import Path
from typing import Any

from kernel_lib.config import nearest
from kernel_lib.errors import DataError, SettingsError
from kernel_lib.offline.upload.account import check_owner
from kernel_lib.offline.upload.account import choose_owner as choose_owner
from kernel_lib.offline.upload.account import find_owner as find_owner
from kernel_lib.runtime.files import read_json

ROOT = Path(__file__).parents[3]
TEMPLATES = ROOT / "datasets_meta"
NOTEBOOKS = ROOT / "notebooks"
BUILD = ROOT / "build"

DATASET, KERNEL = ".dataset", ".kernel"
SLUG_LENGTH = (6, 50)  # of a dataset; the client's code is stricter than its page, which says 3
_PLACEHOLDER = re.compile(r"\b(OWNER|SLUG|TITLE)\b")


def template_path(name: str) -> Path:
    """The file of a template, such as ``fb3_train.kernel``."""
    return TEMPLATES / f"{name}.json"


def template_names(kind: str) -> list[str]:
    """The templates of a kind, ``DATASET`` or ``KERNEL``, in order."""
    return sorted(path.stem for path in TEMPLATES.glob(f"*{kind}.json"))


def kernel_names() -> list[str]:
    """The notebooks that have a template."""
    return [name.removesuffix(KERNEL) for name in template_names(KERNEL)]


def placeholders(name: str) -> set[str]:
    """The words of a template that :func:`render` fills in."""
    return set(_PLACEHOLDER.findall("\n".join(_strings(_read(name)))))


def render(name: str, *, owner: str, **fields: str) -> dict[str, Any]:
    """A template's metadata with its words filled in.

    Args:
        name: the template, such as ``kernel-lib.dataset`` or ``fb3_train.kernel``.
        owner: the Kaggle user or organization.
        fields: ``slug`` and ``title``, for the templates that ask for them.

    Raises:
        DataError: there is no such template, or it is not a JSON object.
        SettingsError: the owner cannot be one, a word is left over, or a field has no place.
    """
    values = {"OWNER": check_owner(owner), **{key.upper(): value for key, value in fields.items()}}
    wanted = placeholders(name)
    if wanted - set(values):
        left = ", ".join(sorted(wanted - set(values)))
        raise SettingsError(f"{template_path(name).name}: nothing was given for {left}.")
    if set(values) - wanted - {"OWNER"}:
        unused = ", ".join(sorted(set(values) - wanted - {"OWNER"}))
        raise SettingsError(f"{template_path(name).name} has no place for {unused}.")
    filled: dict[str, Any] = _filled(_read(name), values)
    return filled


def slugify(title: str) -> str:
    """What Kaggle makes of a title: lower case, a dash for whatever is no letter or digit.

    Example: ``FB3: train, 1st`` gives ``fb3-train-1st``.
    """
    plain = unicodedata.normalize("NFKD", html.unescape(title)).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"(?<=\d),(?=\d)", "", plain).lower()).strip("-")


def dataset_slug(name: str) -> str:
    """The slug of a dataset of that name.

    Raises:
        SettingsError: name or slug would be shorter or longer than Kaggle takes.
    """
    slug, (shortest, longest) = slugify(name), SLUG_LENGTH
    if not (shortest <= len(slug) <= longest and shortest <= len(name) <= longest):
        raise SettingsError(
            f"a dataset cannot be called {name!r} (slug {slug!r}): Kaggle wants {shortest} to "
            f"{longest} characters. Add NAME=<another>."
        )
    return slug


def _read(name: str) -> dict[str, Any]:
    path = template_path(name)
    if not path.is_file():
        known = template_names(DATASET) + template_names(KERNEL)
        raise DataError(f"there is no template {path}: {nearest(name, known)}")
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object.")
    return content


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        items = value.values() if isinstance(value, dict) else value
        return [text for item in items for text in _strings(item)]
    return [value] if isinstance(value, str) else []


def _filled(value: Any, words: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: words[match.group()], value)
    return value
