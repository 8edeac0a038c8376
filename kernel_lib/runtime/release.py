"""Which kernel_lib this is, and under which versions the weights were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kernel_lib import __version__
from kernel_lib.errors import ArtifactError
from kernel_lib.runtime.files import read_json, sha256

RELEASE_RECORD = "RELEASE.json"
SHOWN = 3  # how many files are named


def describe_release(package: Path | None = None) -> str:
    """One line that says what is imported: the version, its commit, and what was changed since.

    An edited library is no error: people mend what they attach. A part of it is.

    Args:
        package: the folder of ``kernel_lib``; None: of the one that is imported.

    Raises:
        ArtifactError: a file of the release is missing, or its record is damaged.
    """
    package = package or Path(__file__).parents[1]
    if not (package / RELEASE_RECORD).is_file():
        return f"kernel_lib {__version__} (a checkout)"
    record = read_json(package / RELEASE_RECORD)
    try:
        version, commit, changed = record["version"], record["commit"], record["changed"]
        built = dict(record["files"])
    except (KeyError, TypeError, ValueError):
        raise ArtifactError(
            f"{package / RELEASE_RECORD} is not what a build writes. Build and upload it again."
        ) from None
    there = _files(package)
    missing = sorted(built.keys() - there.keys())
    if missing:
        raise ArtifactError(
            f"{package} lacks {_counted(missing, 'file')} of the {len(built)} that were built: "
            f"{_listed(missing)}. The usual cause: uploaded without --dir-mode zip, which drops "
            "sub-folders. Upload it again with it."
        )
    edited = sorted(name for name, written in built.items() if sha256(there[name]) != written)
    added = sorted(there.keys() - built.keys())
    source = f"commit {commit[:7]}" if commit else "no commit"
    parts = [f"{len(built) - len(edited)} files as built"]
    parts += [f"{_counted(edited, 'file')} edited since: {_listed(edited)}"] if edited else []
    parts += [f"{_counted(added, 'file')} added: {_listed(added)}"] if added else []
    changes = " with changes" if changed else ""
    return f"kernel_lib {version} ({source}{changes}), {', '.join(parts)}"


def compare_versions(then: dict[str, str], now: dict[str, str]) -> str:
    """One line on the drift of the image: training's versions against those here.

    Example: ``versions differ from training: numpy 2.4.1 -> 2.0.2; python 3.11 -> 3.12``. Of python
    only the minor version counts, as for wheels.

    Args:
        then: name to version, as a run's record holds them; ``python`` is one of the names.
        now: the same here (``runtime.device.versions``).
    """
    if not isinstance(then, dict) or not then:  # it was read from a file
        return "versions: the training did not record them"
    packages = [
        f"{name} {version} -> {now.get(name, 'absent')}"
        for name, version in then.items()
        if name != "python" and version != now.get(name)
    ]
    differences = [", ".join(packages)] if packages else []
    pythons = [_minor(versions["python"]) for versions in (then, now) if "python" in versions]
    if len(set(pythons)) == 2:
        differences.append("python " + " -> ".join(pythons))
    if not differences:
        return "versions: as in training"
    return f"versions differ from training: {'; '.join(differences)}"


def _files(package: Path) -> dict[str, Path]:
    """The package's files by their path in it; Python's own cache is not of the release."""
    return {
        path.relative_to(package).as_posix(): path
        for path in package.rglob("*")
        if path.is_file() and path.name != RELEASE_RECORD and path.parent.name != "__pycache__"
    }


def _minor(version: str) -> str:
    return ".".join(str(version).split(".")[:2])


def _counted(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
