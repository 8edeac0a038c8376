"""Goes into namespaces of its own and becomes the command: ``enter.py PLAN.json COMMAND...``

The plan lists what the new root holds, nothing else of this machine is there:

    {"root": FOLDER, "mounts": [{"kind": "bind" | "read-only" | "empty", "source", "target"}, ...]}

Run as a script of its own, since a new user namespace wants a process with one thread, and with
nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE = 0x1000, 0x4000, 0x40000
MOUNT_SETATTR, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, 0x8000, 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

_libc = ctypes.CDLL(None, use_errno=True)


def enter(plan: dict) -> None:
    """Leaves the network and the file system behind, but for what the plan names."""
    user, group = os.getuid(), os.getgid()
    _checked(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _loopback_up()
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    root = plan["root"]
    _mount("rehearsal", root, "tmpfs", 0)
    for entry in plan["mounts"]:
        _put(root, entry)
    # The root itself, so that no folder can be made where Kaggle's would have none.
    _read_only(root, recursive=False)
    os.chroot(root)
    os.chdir(plan["work_folder"])


def _put(root: str, entry: dict) -> None:
    target = root + entry["target"]
    if entry["kind"] == "empty":
        os.makedirs(target, exist_ok=True)
        _mount("rehearsal", target, "tmpfs", 0)
        return
    source = entry["source"]
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):  # a file of a folder that is there already cannot be touched
        os.makedirs(os.path.dirname(target), exist_ok=True)
        Path(target).touch()
    _mount(source, target, None, MS_BIND | MS_REC)
    if entry["kind"] == "read-only":
        _read_only(target, recursive=True)


def _mount(source: str | None, target: str, kind: str | None, flags: int) -> None:
    texts = [os.fsencode(text) if text is not None else None for text in (source, target, kind)]
    _checked(_libc.mount(*texts, ctypes.c_ulong(flags), None), f"mount {target}")


def _read_only(target: str, *, recursive: bool) -> None:
    attributes = struct.pack("4Q", MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(MOUNT_SETATTR),
        ctypes.c_int(-100),
        os.fsencode(target),
        ctypes.c_uint(AT_RECURSIVE if recursive else 0),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _checked(result, f"mount_setattr {target}")


def _loopback_up() -> None:
    """A notebook's kernel talks to its client over 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def main() -> None:
    """Command line."""
    try:
        enter(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    except (OSError, AttributeError) as error:  # a system other than Linux has no unshare
        sys.exit(f"cannot enter the namespaces: {error}")
    os.execvp(sys.argv[2], sys.argv[2:])


if __name__ == "__main__":
    main()
