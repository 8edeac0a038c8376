"""The wheels that Kaggle's image lacks: imported from where they lie, if they are the genuine ones.

Whatever is attached to a notebook is among its inputs, a stranger's backbone too. What stands on
``sys.path`` can run code, so only the wheels named here get there, and only unaltered.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from kernel_lib.runtime.files import sha256
from kernel_lib.runtime.paths import input_folders

SHOWN = 5  # how many wheels that are left alone are named


@dataclass(frozen=True)
class CarriedWheel:
    """A pure-Python wheel that travels with the kit.

    Attributes:
        requirement: what pip is asked for.
        wheel: the file's name.
        record_sha256: of the bytes of ``RECORD``, which holds the hashes of all its files.
        wheel_sha256: of the file itself. A zip file can be made to read differently here and in
            Python's importer, so its list of files is not enough.
    """

    requirement: str
    wheel: str
    record_sha256: str
    wheel_sha256: str


CARRIED: tuple[CarriedWheel, ...] = (
    CarriedWheel(
        requirement="iterative-stratification==0.1.9",
        wheel="iterative_stratification-0.1.9-py3-none-any.whl",
        record_sha256="7782194e382f93565d94d9470f2292b64538416b9d9c7bf267049c70c758f0ed",
        wheel_sha256="476f8deff6753fb1725612fe41e59cc2058f8f2524ae5d1ccee88eb8c8d3de80",
    ),
)


def check_wheel(path: Path) -> CarriedWheel | None:
    """Which of the carried wheels this is, byte for byte; None when it is none of them.

    Args:
        path: a ``.whl`` file, or the folder that Kaggle may have extracted from it. The folder must
            hold the wheel's files and nothing else: a module beside them could be imported too.
    """
    for carried in CARRIED:
        if path.is_dir():
            if _is_extracted(path, carried):
                return carried
        elif path.name == carried.wheel and sha256(path) == carried.wheel_sha256:
            return carried
    return None


def attach_wheels() -> list[Path]:
    """Puts the carried wheels among the inputs on ``sys.path``; no installation, no network.

    Others are left alone, and named in a printed line.

    Returns:
        The wheels on the path: files, or the folders that Kaggle extracted from them.
    """
    genuine: list[Path] = []
    others: list[Path] = []
    for folder in input_folders():
        candidates = [path for path in sorted(folder.glob("*.whl")) if path.is_file()]
        if any(folder.glob("*.dist-info")):
            candidates.append(folder)
        for path in candidates:
            (genuine if check_wheel(path) else others).append(path)
    for path in genuine:
        if str(path) not in sys.path:
            sys.path.append(str(path))  # what the image has installed comes first
    if others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        print(
            f"wheels left alone: {', '.join(map(str, others[:SHOWN]))}{more}. Only those that "
            "kernel_lib/runtime/wheels.py names are used, unaltered: "
            f"{', '.join(carried.wheel for carried in CARRIED)}"
        )
    return genuine


def _is_extracted(folder: Path, carried: CarriedWheel) -> bool:
    """Whether a folder holds exactly the files that the wheel's ``RECORD`` lists."""
    distribution, version, *_ = carried.wheel.split("-")
    record = f"{distribution}-{version}.dist-info/RECORD"
    if not (folder / record).is_file():
        return False
    content = (folder / record).read_bytes()
    if hashlib.sha256(content).hexdigest() != carried.record_sha256:
        return False
    listed = {row[0]: row[1] for row in csv.reader(content.decode("utf-8").splitlines()) if row}
    there = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_symlink() or not path.is_dir()
    }
    return there.keys() == listed.keys() and all(
        path.is_file() and (name == record or _record_hash(path) == listed[name])
        for name, path in there.items()
    )


def _record_hash(path: Path) -> str:
    """A file's hash as ``RECORD`` writes it: URL-safe base64 without padding."""
    digest = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
