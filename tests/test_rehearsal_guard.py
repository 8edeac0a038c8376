"""The guard notes what code reaches for, hides what Kaggle lacks, and lets all else pass."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NO_NETWORK


@dataclass
class Seen:
    """How some guarded code ended."""

    attempts: list[tuple[str, str]]
    status: int
    out: str
    err: str


@pytest.fixture
def guarded(tmp_path: Path) -> Any:
    """Runs code in a fresh Python under the guard, in the one folder that it may write to."""
    work = tmp_path / "work"
    work.mkdir()

    def run(code: str, *, refuse: bool = False, **config: Any) -> Seen:
        log = tmp_path / "attempts.jsonl"
        values = {"log": str(log), "refuse": refuse, "may_write": [str(work)], **config}
        (tmp_path / "guard.json").write_text(json.dumps(values))
        environment = {
            **os.environ,
            "PYTHONPATH": str(NO_NETWORK),
            "KERNEL_LIB_GUARD": str(tmp_path / "guard.json"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=work, env=environment, capture_output=True, text=True
        )
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        found = [(line["kind"], line["what"]) for line in lines]
        return Seen(found, done.returncode, done.stdout, done.stderr)

    return run


def swallowed(statement: str) -> str:
    return f"import os, socket\ntry:\n    {statement}\nexcept OSError: pass"


# network

OUT = "('192.0.2.1', 9)"
UDP = "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
LOOKED_FOR = {
    "a connection": (f"socket.socket().connect({OUT})", "socket.connect 192.0.2.1"),
    "one that gives a number": (f"socket.socket().connect_ex({OUT})", "socket.connect 192.0.2.1"),
    "one of version 6": (
        "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 9))",
        "socket.connect 2001:db8::1",
    ),
    "a packet": (f"{UDP}.sendto(b'x', {OUT})", "socket.sendto 192.0.2.1"),
    "a message": (f"{UDP}.sendmsg([b'x'], [], 0, {OUT})", "socket.sendmsg 192.0.2.1"),
    "a name": ("socket.getaddrinfo('hub.invalid', 443)", "socket.getaddrinfo hub.invalid"),
    "a name in bytes": ("socket.getaddrinfo(b'hub.invalid', 1)", "socket.getaddrinfo hub.invalid"),
    "a name, the old way": ("socket.gethostbyname('a.invalid')", "socket.gethostbyname a.invalid"),
    "a name of an address": ("socket.gethostbyaddr('192.0.2.1')", "socket.gethostbyaddr 192.0.2.1"),
}


@pytest.mark.parametrize("what", LOOKED_FOR)
def test_an_attempt_to_reach_a_network_is_noted_although_the_error_is_swallowed(
    guarded, what: str
) -> None:
    statement, expected = LOOKED_FOR[what]
    seen = guarded(swallowed(statement), refuse=True)
    assert seen.status == 0, seen.err
    assert ("network", expected) in seen.attempts


LOCAL = """
import os, socket, tempfile
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
socket.create_connection(("localhost", port)).close()
if socket.has_ipv6:
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).connect(("::1", 9))
for name in (None, "", "localhost", "0.0.0.0", "::", socket.gethostname()):
    try:
        socket.getaddrinfo(name, 80)
    except socket.gaierror:
        pass
there = socket.socket(socket.AF_UNIX)
there.bind("of-this-folder")
there.listen()
socket.socket(socket.AF_UNIX).connect("of-this-folder")
a, b = socket.socketpair()
a.sendmsg([b"x"])
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port))
print("done")
"""


def test_the_own_machine_may_be_reached_by_all_its_names(guarded) -> None:
    seen = guarded(LOCAL, refuse=True)
    assert seen.out == "done\n", seen.err
    assert [what for kind, what in seen.attempts if kind == "network"] == []


def test_a_refused_connection_is_an_oserror_as_without_a_network(guarded) -> None:
    seen = guarded("import socket; socket.getaddrinfo('hub.invalid', 443)", refuse=True)
    assert "ConnectionRefusedError: this run has no network" in seen.err


def test_an_attempt_is_noted_once_however_often_it_is_made(guarded) -> None:
    again = swallowed("socket.gethostbyname('a.invalid')").replace("\n", "\n    ")
    seen = guarded(f"for _ in range(50):\n    {again}", refuse=True)
    assert seen.attempts == [("network", "socket.gethostbyname a.invalid")]


# writing

WRITES = {
    "text": "open({outside!r} + '/new', 'w')",
    "bytes for a path": "open(os.fsencode({outside!r} + '/new'), 'ab')",
    "a path object": "__import__('pathlib').Path({outside!r}, 'new').touch()",
    "a bare file": "__import__('_io').FileIO(__import__('pathlib').Path({outside!r}, 'new'), 'w')",
    "the system's open": "os.close(os.open({outside!r} + '/new', os.O_RDWR | os.O_CREAT))",
    "a relative path": "open('../outside/new', 'w')",
    "through a link": "os.symlink({outside!r}, 'door'), open('door/new', 'w')",
    "into a link": "os.symlink({outside!r} + '/new', 'door'), open('door', 'w')",
    "a folder": "os.mkdir({outside!r} + '/new')",
    "folders": "os.makedirs({outside!r} + '/new/and/more', exist_ok=True)",
    "from the folder that is open": (
        "os.mkdir('new', dir_fd=os.open({outside!r}, os.O_RDONLY | os.O_DIRECTORY))"
    ),
    "moved away": "open('mine', 'w').close(), os.rename('mine', {outside!r} + '/new')",
    "a link": "os.symlink('/nowhere', {outside!r} + '/new')",
    "a second name": "open('mine', 'w').close(), os.link('mine', {outside!r} + '/new')",
}
CHANGES = {
    "written over": "open({outside!r} + '/old', 'r+')",
    "cut": "os.truncate({outside!r} + '/old', 0)",
    "removed": "os.remove({outside!r} + '/old')",
    "removed from an open folder": (
        "os.unlink('old', dir_fd=os.open({outside!r}, os.O_RDONLY | os.O_DIRECTORY))"
    ),
    "taken": "os.replace({outside!r} + '/old', 'mine')",
    "made writable": "os.chmod({outside!r} + '/old', 0o666)",
}


@pytest.mark.parametrize("way", [*WRITES, *CHANGES])
@pytest.mark.parametrize("refuse", [False, True])
def test_a_change_outside_is_noted_and_refused_where_nothing_else_would(
    guarded, tmp_path: Path, way: str, refuse: bool
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").write_text("old")
    statement = (WRITES | CHANGES)[way].format(outside=str(outside))
    seen = guarded(swallowed(statement), refuse=refuse)
    assert seen.status == 0, seen.err
    name = "old" if way in CHANGES else "new"
    assert ("write", f"{outside}/{name}") in seen.attempts
    if refuse:
        assert [path.name for path in outside.iterdir()] == ["old"]
        assert (outside / "old").read_text() == "old"


HARMLESS = """
import os, pathlib, shutil, subprocess, sys, tempfile
outside = pathlib.Path("../outside")
outside.mkdir(exist_ok=True)
os.makedirs(outside, exist_ok=True)
(outside / "not-there").unlink(missing_ok=True)
(outside / "a.txt").read_text()
open(outside / "a.txt", "rb").close()
os.close(os.open(outside / "a.txt", os.O_RDONLY))
open("/dev/null", "w").write("x")
shutil.copytree(outside, "copy")
os.chmod("copy/a.txt", 0o600)
os.rename("copy", "moved")
os.symlink(outside.resolve(), "door")
os.unlink("door")
shutil.rmtree("moved")
number = os.open("a file", os.O_RDWR | os.O_CREAT)
os.truncate(number, 0)
os.fchmod(number, 0o600)
open(number, "w").close()
with tempfile.TemporaryDirectory(dir=".") as folder:
    pathlib.Path(folder, "b").write_bytes(b"")
subprocess.run([sys.executable, "-c", "open('c', 'w').close()"], check=True)
print("done")
"""


def test_reading_and_what_happens_in_the_own_folder_is_nobodys_business(
    guarded, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a.txt").write_text("a")
    seen = guarded(HARMLESS, refuse=True)
    assert seen.out == "done\n", seen.err
    assert seen.attempts == []


def test_a_child_that_is_python_too_is_watched(guarded, tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'new')!r}, 'w').close()"
    seen = guarded(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])")
    assert seen.attempts == [("write", str(tmp_path / "new"))]


def test_closing_every_open_file_does_not_lose_an_attempt(guarded, tmp_path: Path) -> None:
    code = f"import os; os.closerange(3, 100); open({str(tmp_path / 'new')!r}, 'w').close()"
    assert guarded(code).attempts == [("write", str(tmp_path / "new"))]


def test_a_name_that_is_no_utf_8_is_noted_all_the_same(guarded, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/n\xffw"
    seen = guarded(swallowed(f"open({path!r}, 'w')"))
    assert seen.attempts == [("write", f"{tmp_path}/n\udcffw")]


def test_the_log_is_there_when_nothing_was_attempted_so_that_silence_can_be_told_from_absence(
    guarded,
) -> None:
    seen = guarded("print('nothing')")
    assert seen.attempts == [] and seen.status == 0


def test_other_events_pass_at_once() -> None:
    """The hook sees imports, compilations, every attribute of a code object: it asks nothing."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import sitecustomize as s\n"
        "guard = s._Guard({'may_write': ['/nowhere']})\n"
        "calls = []\n"
        "sys.setprofile(lambda frame, event, what: calls.append(event))\n"
        "guard('object.__getattr__', (1, 'x'))\n"
        "sys.setprofile(None)\n"
        "print(calls.count('call'), calls.count('c_call'))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, str(NO_NETWORK)],
        capture_output=True,
        text=True,
        check=True,
        env={"KERNEL_LIB_GUARD": ""},
    )
    assert done.stdout == "1 2\n"  # itself, and a look into a dict (and the end of this count)


# hidden modules


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages: ``onlyhere``, ``alsothere`` and the shared ``common``."""
    folder = tmp_path / "lib/site-packages"
    for name in ("onlyhere", "alsothere", "common/part"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("")
    (folder / "onlyhere/inner.py").write_text("")
    return folder


@pytest.fixture
def importing(guarded, site: Path) -> Any:
    def run(code: str, **config: Any) -> Seen:
        start = f"import sys; sys.path.append({str(site)!r})\n"
        hidden = {"onlyhere": "only-here"}
        return guarded(start + code, hidden=hidden, site_folders=[str(site)], **config)

    return run


def test_a_hidden_module_cannot_be_imported_and_it_is_noted_whose_it_is(importing) -> None:
    for statement in ("import onlyhere", "import onlyhere.inner", "from onlyhere import inner"):
        seen = importing(statement)
        assert "ModuleNotFoundError: No module named 'onlyhere'" in seen.err
        assert seen.attempts[-1] == ("hidden", "onlyhere only-here")


def test_asking_whether_a_hidden_module_is_there_is_answered_and_no_error(importing) -> None:
    """As transformers asks for dozens of packages when it is imported."""
    ask = "from importlib.util import find_spec; print(find_spec('onlyhere'), find_spec('no'))"
    seen = importing(f"{ask}\ntry:\n    import onlyhere\nexcept ImportError:\n    print('none')")
    assert seen.out == "None None\nnone\n"


def test_what_is_not_hidden_is_imported_as_ever(importing) -> None:
    seen = importing("import alsothere, common.part, json, xml.dom; print('done')")
    assert seen.out == "done\n", seen.err


def test_installed_packages_are_listed_as_ever(importing) -> None:
    seen = importing("import importlib.metadata as m; print(m.version('pytest'))")
    assert seen.out == f"{pytest.__version__}\n", seen.err


@pytest.mark.parametrize("where", ["folder", "wheel"])
def test_a_hidden_module_from_elsewhere_is_imported(
    importing, site: Path, tmp_path: Path, where: str
) -> None:
    elsewhere = tmp_path / "input"
    shutil.copytree(site / "onlyhere", elsewhere / "onlyhere")
    if where == "wheel":
        made = shutil.make_archive(str(tmp_path / "onlyhere-1.0"), "zip", elsewhere)
        elsewhere = Path(made).rename(tmp_path / "onlyhere-1.0-py3-none-any.whl")
    code = f"sys.path.append({str(elsewhere)!r}); import onlyhere.inner; print(onlyhere.__file__)"
    seen = importing(code)
    assert seen.out.startswith(str(elsewhere)), seen.err
    assert seen.attempts == []


@pytest.mark.parametrize("listed", ["site", "alias"])
def test_the_site_folder_is_known_under_another_name_too(
    guarded, site: Path, tmp_path: Path, listed: str
) -> None:
    (tmp_path / "alias").symlink_to(site)
    names = {"site": str(site), "alias": str(tmp_path / "alias")}
    other = names["alias" if listed == "site" else "site"]
    code = f"import sys; sys.path.append({other!r}); import onlyhere"
    seen = guarded(code, hidden={"onlyhere": "only-here"}, site_folders=[names[listed]])
    assert "No module named 'onlyhere'" in seen.err
