"""Runs a command as on Kaggle: no network, read-only inputs, an empty home, a time limit.

Three ways, the best that the machine has, and the verdict says which:

    namespaces  user, network and mount namespaces; the root holds only system, inputs and work
    bubblewrap  the same by ``bwrap``, on machines that let only that make user namespaces
    guard       neither: connections and writes outside are refused inside Python alone, and
                ``/kaggle`` is a folder that KERNEL_LIB_KAGGLE_ROOT names
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel_lib.offline.rehearsal.leftovers import kill_children

ENTER = Path(__file__).with_name("enter.py")
NAMESPACES, BUBBLEWRAP, GUARD = "namespaces", "bubblewrap", "guard"
DESCRIPTIONS = {
    NAMESPACES: "namespaces: no network, inputs read-only, only /kaggle and the system visible",
    BUBBLEWRAP: "bubblewrap: no network, inputs read-only, only /kaggle and the system visible",
    GUARD: "guard only: connections and outside writes refused inside Python; this machine "
    "allows no namespaces and has no bwrap",
}
# What a system needs to run Python; homes, data and repositories are not among it.
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "opt", "nix", "sys")
HOME = "/root"
EMPTY_FOLDERS = ("/tmp", "/var/tmp", HOME, "/kaggle/temp")
# The machine knows its own name, and any other is asked for at an address that cannot be: so a
# look-up by native code ends at once, and as a packet that the kernel counts.
NAME_FILES = {
    "/etc/hosts": "127.0.0.1 localhost {host}\n",
    "/etc/resolv.conf": "nameserver 192.0.2.1\n",
}
TRIAL_SECONDS = 30.0


@dataclass(frozen=True)
class Mount:
    """Something of this machine and where the command sees it.

    Attributes:
        target: absolute path in the sandbox.
        source: file or folder here; None: an empty folder in memory.
        writable: whether the command may change it.
    """

    target: str
    source: Path | None = None
    writable: bool = False

    def as_entry(self) -> dict[str, str]:
        """For ``enter.py``."""
        if self.source is None:
            return {"kind": "empty", "target": self.target}
        kind = "bind" if self.writable else "read-only"
        return {"kind": kind, "source": str(self.source), "target": self.target}

    def as_arguments(self) -> list[str]:
        """For ``bwrap``."""
        if self.source is None:
            return ["--tmpfs", self.target]
        # Only a dev-bind lets device files be opened.
        kind = "--dev-bind" if self.writable else "--ro-bind"
        return [kind, str(self.source), self.target]


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: its exit status; negative: the signal that ended it.
        seconds: wall clock.
        timed_out: whether it was killed at the limit.
    """

    status: int
    seconds: float
    timed_out: bool


@functools.cache
def best_isolation() -> str:
    """The strongest isolation that this machine gives, found by trying it with this Python."""
    for isolation in (NAMESPACES, BUBBLEWRAP):
        trouble = (OSError, subprocess.SubprocessError)
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(*trouble):
            work = Mount("/kaggle/working", Path(folder), writable=True)
            python = [sys.executable, "-I", "-c", ""]
            command = _command(isolation, python, [work], work.target, Path(folder))
            subprocess.run(command, capture_output=True, check=True, timeout=TRIAL_SECONDS)
            return isolation
    return GUARD


def run(
    command: Sequence[str],
    *,
    isolation: str,
    mounts: Sequence[Mount],
    work_folder: str,
    environment: Mapping[str, str],
    limit_seconds: float,
    scratch: Path,
) -> Outcome:
    """Runs a command to its end or to the limit; then it and all its children are killed.

    Args:
        command: program and arguments, as paths in the sandbox.
        isolation: from :func:`best_isolation`; with ``guard`` the mounts are not looked at.
        mounts: what it sees beside the system and this Python.
        work_folder: its working directory, in the sandbox.
        environment: all of its environment.
        limit_seconds: wall clock.
        scratch: an empty folder of ours to work in.
    """
    whole = _command(isolation, command, mounts, work_folder, scratch)
    started = time.monotonic()
    process = subprocess.Popen(
        whole,
        env=dict(environment),
        cwd=None if isolation != GUARD else work_folder,
        stdin=subprocess.DEVNULL,
    )
    try:
        status, timed_out = process.wait(timeout=limit_seconds), False
    except subprocess.TimeoutExpired:
        status, timed_out = -9, True
    finally:
        _kill_tree(process)
    return Outcome(status, time.monotonic() - started, timed_out)


def _command(
    isolation: str,
    command: Sequence[str],
    mounts: Sequence[Mount],
    work_folder: str,
    scratch: Path,
) -> list[str]:
    if isolation == GUARD:
        return list(command)
    everything = _in_order([*_system_mounts(), *_name_mounts(scratch), *mounts])
    if isolation == BUBBLEWRAP:
        arguments = [argument for mount in everything for argument in mount.as_arguments()]
        return [
            *("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--unshare-net"),
            *("--die-with-parent", *arguments, "--remount-ro", "/", "--chdir", work_folder),
            *("--", *command),
        ]
    root, plan = scratch / "root", scratch / "plan.json"
    root.mkdir(exist_ok=True)
    entries = [mount.as_entry() for mount in everything]
    content = {"root": str(root), "work_folder": work_folder, "mounts": entries}
    plan.write_text(json.dumps(content), encoding="utf-8")
    return [sys.executable, "-I", str(ENTER), str(plan), *command]


def _system_mounts() -> list[Mount]:
    """The system and this Python, read-only, and the folders that are empty on Kaggle."""
    system = [Path("/", name) for name in SYSTEM]
    # Resolved: of the link /bin -> usr/bin stands usr/bin itself at /bin.
    found = [Mount(str(folder), folder.resolve()) for folder in system if folder.is_dir()]
    found += [Mount(str(folder), folder.resolve()) for folder in _python_folders()]
    found += [Mount(folder) for folder in EMPTY_FOLDERS]
    # Devices stay writable: /dev/null, /dev/shm, a GPU.
    return [*found, Mount("/dev", Path("/dev"), True), Mount("/proc", Path("/proc"), True)]


def _python_folders() -> Iterator[Path]:
    """Where this Python lies: its prefixes, and the folder of every link on the way to it."""
    program = Path(sys.executable)
    folders = [Path(sys.prefix), Path(sys.base_prefix), program.parent]
    for _ in range(40):  # as many links as the system itself would follow
        if not program.is_symlink():
            break
        program = Path(os.path.normpath(program.parent / os.readlink(program)))
        folders.append(program.parent)
    # What is reached through a link to a folder is needed at the link's end, too.
    folders += [folder.resolve() for folder in folders]
    # Python called as /bin/python3 may take the whole machine for its prefix.
    return (folder for folder in dict.fromkeys(folders) if folder != Path("/"))


def _name_mounts(scratch: Path) -> Iterator[Mount]:
    for path, text in NAME_FILES.items():
        # A link, such as /etc/resolv.conf -> /run/..., is followed: there the file will stand.
        real = Path(os.path.realpath(path))
        if real.exists() or real.parts[1] not in SYSTEM:
            stand_in = scratch / real.name
            stand_in.write_text(text.format(host=socket.gethostname()), encoding="utf-8")
            yield Mount(str(real), stand_in)


def _in_order(mounts: Sequence[Mount]) -> list[Mount]:
    """Parents before children, each target once, the last one named; nothing that a mount before
    it already shows."""
    ordered: list[Mount] = []
    last = {mount.target: mount for mount in mounts}
    for mount in sorted(last.values(), key=lambda mount: mount.target.count("/")):
        parents = [above for above in ordered if mount.target.startswith(f"{above.target}/")]
        if not parents or not _shows(parents[-1], mount):
            ordered.append(mount)
    return ordered


def _shows(parent: Mount, child: Mount) -> bool:
    """Whether the child is already there, as a part of its parent, or as a link in it."""
    if parent.source is None or child.source is None:
        return False
    inside = parent.source / Path(child.target).relative_to(parent.target)
    return child.source == inside.resolve() and child.writable == parent.writable


def _kill_tree(process: subprocess.Popen) -> None:
    """A notebook's kernel has a session of its own, so that killing a group would miss it."""
    if process.poll() is not None:  # its number may be another's by now
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGSTOP)  # or it would report its notebook's end as a crash
    kill_children(process.pid)
    process.kill()
    process.wait()
