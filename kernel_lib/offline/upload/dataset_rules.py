"""Kaggle's rules for ``dataset-metadata.json`` and for what stands beside it.

From the code of the kaggle client (``dataset_create_new``, ``upload_files``), stricter than its
pages, and from what its users met: the client checks few of them, and Kaggle some in silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from kernel_lib.config import nearest
from kernel_lib.offline.upload.problems import NOT_THERE, Inspection
from kernel_lib.offline.upload.templates import SLUG_LENGTH

METADATA = "dataset-metadata.json"
TITLE_LENGTH = (6, 50)
SUBTITLE_LENGTH = (20, 80)
LICENSES = (
    *("CC0-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-BY-ND-4.0"),
    *("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "CC-BY-NC-ND-4.0", "CC-BY-3.0-IGO"),
    *("CC-BY-NC-SA-3.0-IGO", "GPL-2.0", "GPL-3.0", "LGPL-3.0", "AGPL-3.0", "FDL-1.3"),
    *("apache-2.0", "ODbL-1.0", "DbCL-1.0", "PDDL", "ODC-BY-1.0", "CDLA-Permissive-1.0"),
    *("CDLA-Sharing-1.0", "US-Government-Works", "EU-ODP-Legal-Notice", "copyright-authors"),
    *("other", "unknown"),
)
KEYS = ("title", "id", "id_no", "subtitle", "description", "licenses", "keywords", "resources")
KEYS_OF_UPDATE = ("expectedUpdateFrequency", "userSpecifiedSources", "image")
COVERS = tuple(f"dataset-cover-image{suffix}" for suffix in (".png", ".jpg", ".jpeg", ".webp"))
NEVER_UPLOADED = (
    *("datapackage.json", "kernel-metadata.json", "model-metadata.json"),
    "model-instance-metadata.json",
)
UNPACKED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")


def inspect_dataset(found: Inspection, folder: Path | None) -> None:
    """Notes every rule that a dataset's metadata breaks.

    Args:
        found: the metadata; its problems grow.
        folder: what is to be uploaded; None for a template, which has no files yet.
    """
    update_only = [key for key in KEYS_OF_UPDATE if key in found.values]
    found.known_keys((*KEYS, *update_only))
    for key in update_only:
        found.report(key, "only `kaggle datasets metadata --update` reads it: leave it out")
    found.text("title", shortest=TITLE_LENGTH[0], longest=TITLE_LENGTH[1], required=True)
    found.own_id(shortest=SLUG_LENGTH[0], longest=SLUG_LENGTH[1])
    if not isinstance(found.values.get("id_no", 0), int):
        found.report("id_no", "must be the dataset's number")
    found.text("subtitle", shortest=SUBTITLE_LENGTH[0], longest=SUBTITLE_LENGTH[1])
    found.text("description")
    found.texts("keywords")
    _inspect_license(found)
    _inspect_resources(found, folder)
    if folder is not None:
        _inspect_files(found, folder)


def _inspect_license(found: Inspection) -> None:
    licenses = found.values.get("licenses", NOT_THERE)
    if not isinstance(licenses, list) or len(licenses) != 1 or not isinstance(licenses[0], dict):
        found.report("licenses", 'must be a list of exactly one, such as [{"name": "CC0-1.0"}]')
        return
    name = licenses[0].get("name", NOT_THERE)
    if name not in LICENSES:
        hint = nearest(str(name), list(LICENSES))
        other = 'What the list lacks (MIT, BSD) is "other", told in the description'
        found.report("licenses[0].name", f"is not in Kaggle's list; {hint} {other}", name)
    if name == "other" and not found.values.get("description"):
        found.report("description", 'the licence "other" must be told here')


def _inspect_resources(found: Inspection, folder: Path | None) -> None:
    resources = found.values.get("resources", [])
    if not isinstance(resources, list) or not all(isinstance(item, dict) for item in resources):
        found.report("resources", "must be a list of objects, each with a path")
        return
    paths: list[Any] = []
    for index, item in enumerate(resources):
        at = f"resources[{index}]"
        path = item.get("path", NOT_THERE)
        if not isinstance(path, str) or not path:
            found.report(f"{at}.path", "must be the path of a file in the folder", path)
            continue
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            found.report(f"{at}.path", "must be inside the folder", path)
        elif folder is not None and not (folder / path).is_file():
            found.report(f"{at}.path", "there is no such file in the folder", path)
        if path in paths:
            found.report(f"{at}.path", "stands there twice", path)
        paths.append(path)
        for key in item:
            if key not in ("path", "description", "schema"):
                hint = nearest(key, ["path", "description", "schema"])
                found.report(f"{at}.{key}", f"unknown key, {hint}", item[key])
        if not isinstance(item.get("description", ""), str):
            found.report(f"{at}.description", "must be a text", item["description"])
        _inspect_schema(found, at, item.get("schema", {"fields": []}))


def _inspect_schema(found: Inspection, at: str, schema: Any) -> None:
    fields = schema.get("fields") if isinstance(schema, dict) else None
    if not isinstance(fields, list):
        found.report(f"{at}.schema", 'must be {"fields": [...]}', schema)
        return
    for index, item in enumerate(fields):
        good = isinstance(item, dict) and isinstance(item.get("name"), str)
        texts = good and all(isinstance(value, str) for value in item.values())
        if not texts or set(item) - {"name", "title", "description", "type"}:
            rule = "must hold a name and may hold description (or title) and type, all texts"
            found.report(f"{at}.schema.fields[{index}]", rule, item)


def _inspect_files(found: Inspection, folder: Path) -> None:
    """Whatever lies in the folder goes up: the client knows no list of what to leave out."""
    top = {path.name for path in folder.iterdir()} - {METADATA, *COVERS}
    if not top:
        found.report("", "nothing to upload stands beside it")
    for name in sorted(top & set(NEVER_UPLOADED)):
        found.report("", f"{name}: the client never uploads a file of this name; rename it")
    for path in sorted(_files(folder)):
        inner = path.relative_to(folder)
        name = inner.as_posix()
        if path.suffix in UNPACKED:
            found.report("", f"{name}: Kaggle unpacks it; rename it if it is to stay whole")
        elif path.name.startswith(".") or "__pycache__" in inner.parts or path.suffix == ".pyc":
            found.report("", f"{name}: hidden files and caches would go up too; remove it")


def _files(folder: Path) -> Iterator[Path]:
    """All files, and hidden folders as one."""
    for path in folder.iterdir():
        if path.is_dir() and not path.name.startswith("."):
            yield from _files(path)
        else:
            yield path
