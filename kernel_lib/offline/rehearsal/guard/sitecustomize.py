"""Loaded by every Python that has this folder on its path: notes what code reaches for.

Without more said, a connection that leaves this machine is refused. The environment variable
KERNEL_LIB_GUARD can name a JSON file that says more:

    {"log": FILE, "refuse": true | false, "may_write": [FOLDER, ...],
     "hidden": {MODULE: DISTRIBUTION, ...}, "site_folders": [FOLDER, ...]}

``log`` gets a line of JSON for every attempt to reach a network or to write outside ``may_write``;
``refuse`` makes such an attempt fail. ``hidden`` modules cannot be imported from ``site_folders``,
only from elsewhere, such as a wheel among the inputs. Standard library only.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
from collections.abc import Callable
from typing import Any

HERE = ("127.", "::1", "::ffff:127.", "localhost", "ip6-localhost", "0.0.0.0")
ALSO_HERE = ("", "::", "0", os.uname().nodename)
# The position of the host, or of an address that begins with it, in each event's arguments.
NETWORK_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}
# The positions of the paths that are changed, each with that of the folder it may be relative to.
WRITE_EVENTS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "open": ((0, None),),
    "os.truncate": ((0, None),),
    "os.chmod": ((0, 2),),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((1, 3),),
    "os.symlink": ((1, 2),),
}
INTO_LINKS = ("open", "os.truncate", "os.chmod")  # the others change the link itself
OF_WHAT_IS_THERE = ("os.remove", "os.rmdir", "os.chmod", "os.truncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NEITHER_HERE_NOR_THERE = ("/dev/", "/proc/")


class _Guard:
    """An audit hook: sees what the interpreter itself sees, whatever library asks."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.refuse = config.get("refuse", True)
        # A test wants to hear of it even through somebody's `except OSError`.
        self.refusal: type[Exception] = ConnectionRefusedError if config else RuntimeError
        self.may_write = [os.path.realpath(folder) for folder in config.get("may_write", [])]
        self.log = os.path.realpath(config["log"]) if "log" in config else ""
        self.noted: set[tuple[str, str]] = set()
        self.handlers: dict[str, Callable[[str, tuple], None]] = {}
        self.handlers |= dict.fromkeys(NETWORK_EVENTS, self._see_network)
        if self.may_write:
            self.handlers |= dict.fromkeys(WRITE_EVENTS, self._see_write)
        if self.log:  # that it is there shows that the guard was on
            os.close(os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644))

    def __call__(self, event: str, arguments: tuple) -> None:
        handler = self.handlers.get(event)
        if handler is not None:
            handler(event, arguments)

    def _see_network(self, event: str, arguments: tuple) -> None:
        target = arguments[NETWORK_EVENTS[event]]
        if event.startswith("socket.get"):
            host = target
        elif isinstance(target, tuple) and target:
            host = target[0]
        else:  # the path of a Unix socket, or connected before
            return
        if isinstance(host, bytes | bytearray):
            host = bytes(host).decode(errors="replace")
        if not isinstance(host, str) or host in ALSO_HERE or host.startswith(HERE):
            return
        self.note("network", f"{event} {host}")
        if self.refuse:
            raise self.refusal(f"this run has no network, and something tried to reach {host!r}")

    def _see_write(self, event: str, arguments: tuple) -> None:
        if event == "open" and not (arguments[2] or 0) & WRITING:
            return
        for position, folder in WRITE_EVENTS[event]:
            base = arguments[folder] if folder is not None else -1
            full = _full_path(arguments[position], base, into_link=event in INTO_LINKS)
            if full and full != self.log and not self._may_write(full, event):
                self.note("write", full)
                if self.refuse:
                    raise PermissionError(13, "outside of the working folder", full)

    def _may_write(self, full: str, event: str) -> bool:
        # Python's own cache of compiled modules is nobody's doing.
        if full.startswith(NEITHER_HERE_NOR_THERE) or "__pycache__" in full:
            return True
        if any(f"{full}/".startswith(f"{folder}/") for folder in self.may_write):
            return True
        # mkdir(exist_ok=True) of what is there, unlink(missing_ok=True) of what is not
        there = os.path.lexists(full)
        return there if event == "os.mkdir" else not there and event in OF_WHAT_IS_THERE

    def note(self, kind: str, what: str) -> None:
        """Writes a line into the log, once for each attempt."""
        if self.log and (kind, what) not in self.noted:
            self.noted.add((kind, what))
            line = json.dumps({"kind": kind, "what": what}) + "\n"
            # Opened anew: a program may have closed whatever was open.
            log = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(log, line.encode())
            finally:
                os.close(log)


def _full_path(path: Any, base: int, *, into_link: bool) -> str | None:
    """The file that is meant; None when its folder cannot be told."""
    try:
        text = os.fsdecode(path)
    except TypeError:  # a number: what is open already has been seen
        return None
    if base >= 0 and not os.path.isabs(text):
        try:
            text = os.path.join(os.readlink(f"/proc/self/fd/{base}"), text)
        except OSError:
            return None
    if into_link:
        return os.path.realpath(text)
    folder, name = os.path.split(text.rstrip("/") or "/")
    return os.path.join(os.path.realpath(folder), name)


class _ImageFinder(importlib.machinery.PathFinder):
    """Finds modules as ever, but the hidden ones outside of ``site_folders`` only."""

    hidden: dict[str, str]
    site_folders: frozenset[str]
    note: Callable[[str, str], None]

    @classmethod
    def find_spec(cls, fullname: str, path: Any = None, target: Any = None) -> Any:
        if path is not None or fullname not in cls.hidden:
            return super().find_spec(fullname, path, target)
        others = [f for f in sys.path if os.path.realpath(f) not in cls.site_folders]
        spec = super().find_spec(fullname, others, target)
        if spec is None:  # and no error: a library may only want to know whether it is there
            cls.note("hidden", f"{fullname} {cls.hidden[fullname]}")
        return spec


def _start() -> None:
    path, config = os.environ.get("KERNEL_LIB_GUARD"), {}
    if path:
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
    guard = _Guard(config)
    if config.get("hidden"):
        _ImageFinder.hidden = config["hidden"]
        _ImageFinder.site_folders = frozenset(map(os.path.realpath, config["site_folders"]))
        _ImageFinder.note = guard.note
        usual = sys.meta_path.index(importlib.machinery.PathFinder)
        sys.meta_path[usual] = _ImageFinder
    sys.addaudithook(guard)


_start()
