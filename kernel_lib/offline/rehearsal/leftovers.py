"""What a run leaves, which may be anything: reading it, clearing it away, ending what runs on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from pathlib import Path

import psutil

KILL_ROUNDS = 50


def read_lines(path: Path) -> list[dict]:
    """The objects of a JSONL file; lines that a kill cut short are left out."""
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError):  # of JSON, and of the encoding
            value = json.loads(line)
            if isinstance(value, dict):
                found.append(value)
    return found


def open_up(folder: Path) -> None:
    """Gives the owner all rights to a folder and what is in it, so that it can be read and
    removed; links are not followed."""
    folder.chmod(folder.stat().st_mode | 0o700)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            wanted = mode | (0o700 if name in folders else 0o600)
            if not path.is_symlink() and mode != wanted:
                path.chmod(wanted)


def remove(folder: Path) -> None:
    """Removes a folder, if there is one, read-only parts of it too."""
    if folder.is_dir():
        open_up(folder)
        shutil.rmtree(folder)


def kill_children(process: psutil.Process) -> None:
    """Kills all that a process started, and what they started, in rounds until none is left."""
    for _ in range(KILL_ROUNDS):
        alive = [child for child in process.children(recursive=True) if _is_alive(child)]
        for child in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        if not alive:
            break
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
