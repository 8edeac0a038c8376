"""What a run leaves, which may be anything: reading it, clearing it away, ending what runs on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

KILL_ROUNDS = 50
PROCESSES = Path("/proc")  # of Linux; another system has the command ps


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


def kill_children(root: int) -> None:
    """Kills all that a process started, and what they started, in rounds until none is left.

    Args:
        root: the process's number; it lives on.
    """
    for _ in range(KILL_ROUNDS):
        alive = _descendants(root)
        for child in alive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        if not alive:
            break
        time.sleep(0.02)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for number, parent in _processes():
        children.setdefault(parent, []).append(number)
    found, waiting = [], [root]
    while waiting:
        started = children.pop(waiting.pop(), [])
        found += started
        waiting += started
    return found


def _processes() -> Iterator[tuple[int, int]]:
    """Number and parent's number of every process that runs."""
    if PROCESSES.is_dir():
        for path in PROCESSES.glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it may have ended
                after_the_name = path.read_bytes().rpartition(b")")[2].decode("ascii")
                state, parent, *_ = after_the_name.split()
                if state not in "ZX":
                    yield int(path.parent.name), int(parent)
        return
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        number, parent, state = line.split(maxsplit=2)
        if not state.startswith("Z"):
            yield int(number), int(parent)
