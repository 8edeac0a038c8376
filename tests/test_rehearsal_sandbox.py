"""The sandbox shows what is listed and no more, cuts the network, and ends what runs too long."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kernel_lib.offline.rehearsal import enter, leftovers, sandbox
from kernel_lib.offline.rehearsal.leftovers import kill_children
from kernel_lib.offline.rehearsal.sandbox import (
    BUBBLEWRAP,
    GUARD,
    NAMESPACES,
    Mount,
    Outcome,
    best_isolation,
    run,
)

BEST = best_isolation()
ROOTED = [
    pytest.param(
        NAMESPACES,
        marks=pytest.mark.skipif(BEST != NAMESPACES, reason="no namespaces on this machine"),
    ),
    pytest.param(
        BUBBLEWRAP,
        marks=pytest.mark.skipif(
            BEST == GUARD or not shutil.which("bwrap"), reason="bwrap is not installed"
        ),
    ),
]
KAGGLE = "/kaggle/working"


@pytest.fixture
def inside(tmp_path: Path) -> Any:
    """Runs Python code in a sandbox whose working folder is ``tmp_path/work``."""

    def run_code(isolation: str, code: str, *mounts: Mount, limit_seconds: float = 60) -> Outcome:
        work, scratch = tmp_path / "work", tmp_path / "scratch"
        work.mkdir(exist_ok=True)
        scratch.mkdir(exist_ok=True)
        return run(
            [sys.executable, "-I", "-S", "-c", code],
            isolation=isolation,
            mounts=[Mount(KAGGLE, work, writable=True), *mounts],
            work_folder=KAGGLE if isolation != GUARD else str(work),
            environment={"PATH": os.environ["PATH"], "ONLY": "this"},
            limit_seconds=limit_seconds,
            scratch=scratch,
        )

    return run_code


def answer(tmp_path: Path) -> Any:
    return json.loads((tmp_path / "work/answer.json").read_text())


ANSWER = "import json, os; json.dump({}, open('answer.json', 'w'))"


# what is seen


@pytest.mark.parametrize("isolation", ROOTED)
def test_only_the_system_and_what_is_mounted_is_there(
    inside, tmp_path: Path, isolation: str
) -> None:
    (tmp_path / "ein Ordner für Daten").mkdir()
    (tmp_path / "ein Ordner für Daten/a b.txt").write_text("hier")
    data = Mount("/kaggle/input/my data", tmp_path / "ein Ordner für Daten")
    look = "[os.listdir('/'), open('/kaggle/input/my data/a b.txt').read(), dict(os.environ)]"
    assert inside(isolation, ANSWER.format(look), data).status == 0
    top, text, environment = answer(tmp_path)
    system = {*sandbox.SYSTEM, "dev", "proc", "kaggle", "root", "tmp", "var"}
    assert set(top) <= system | {sys.prefix.split("/")[1], sys.base_prefix.split("/")[1]}
    assert text == "hier" and environment["ONLY"] == "this" and "HOME" not in environment


@pytest.mark.parametrize("isolation", ROOTED)
def test_nothing_can_be_written_but_what_is_meant_to_be(
    inside, tmp_path: Path, isolation: str
) -> None:
    (tmp_path / "input").mkdir()
    (tmp_path / "input/a.csv").write_text("as it was")
    code = """
import json
places = ["/kaggle/input/a.csv", "/kaggle/input/new", "/new", "/kaggle/new", "/usr/new", "/etc/new",
          "/kaggle/working/new", "/kaggle/temp/new", "/tmp/new", "/var/tmp/new", "/root/new"]
done = []
for place in places:
    try:
        open(place, "w").close()
        done.append(place)
    except OSError:
        pass
json.dump(done, open("answer.json", "w"))
"""
    assert inside(isolation, code, Mount("/kaggle/input", tmp_path / "input")).status == 0
    assert answer(tmp_path) == [
        *("/kaggle/working/new", "/kaggle/temp/new", "/tmp/new", "/var/tmp/new", "/root/new")
    ]
    assert (tmp_path / "input/a.csv").read_text() == "as it was"
    assert not Path("/tmp/new").exists() and not Path("/var/tmp/new").exists()


@pytest.mark.parametrize("isolation", ROOTED)
def test_a_file_can_stand_in_front_of_one_in_a_read_only_folder(
    inside, tmp_path: Path, isolation: str
) -> None:
    for name in ("given/test.csv", "given/train.csv", "made up/test.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    mounts = [
        Mount("/kaggle/input/c/test.csv", tmp_path / "made up/test.csv"),
        Mount("/kaggle/input/c", tmp_path / "given"),
    ]
    look = "[open(f'/kaggle/input/c/{name}.csv').read() for name in ('test', 'train')]"
    assert inside(isolation, ANSWER.format(look), *mounts).status == 0
    assert answer(tmp_path) == ["made up/test.csv", "given/train.csv"]


@pytest.mark.parametrize("isolation", ROOTED)
def test_a_folder_that_is_a_link_here_is_a_folder_there(
    inside, tmp_path: Path, isolation: str
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a.txt").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    look = ANSWER.format("os.listdir('/kaggle/input/link')")
    assert inside(isolation, look, Mount("/kaggle/input/link", tmp_path / "link")).status == 0
    assert answer(tmp_path) == ["a.txt"]


# the network


LOOK_UP = """
import json, socket
found = {}
for name in ("localhost", socket.gethostname(), "example.org"):
    try:
        found[name] = socket.getaddrinfo(name, 80, socket.AF_INET)[0][4][0]
    except OSError:
        found[name] = None
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
lines = [line.split() for line in open("/proc/self/net/snmp") if line.startswith("Ip:")]
found["packets"] = int(dict(zip(*lines))["OutNoRoutes"])
json.dump(found, open("answer.json", "w"))
"""


@pytest.mark.parametrize("isolation", ROOTED)
def test_the_own_machine_is_reached_and_a_look_up_of_another_is_counted(
    inside, tmp_path: Path, isolation: str
) -> None:
    assert inside(isolation, LOOK_UP).status == 0
    found = answer(tmp_path)
    assert found.pop("packets") > 0
    assert found == {
        "localhost": "127.0.0.1",
        socket.gethostname(): "127.0.0.1",
        "example.org": None,
    }


@pytest.mark.parametrize("isolation", ROOTED)
def test_a_look_up_of_the_own_machine_is_no_packet(inside, tmp_path: Path, isolation: str) -> None:
    assert inside(isolation, LOOK_UP.replace('"example.org"', '"127.0.0.1"')).status == 0
    assert answer(tmp_path)["packets"] == 0


@pytest.mark.parametrize("exists", [True, False])
def test_a_resolver_file_that_is_a_link_is_replaced_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    target = tmp_path / "run/systemd/stub-resolv.conf"
    (tmp_path / "resolv.conf").symlink_to(target)
    if exists:
        target.parent.mkdir(parents=True)
        target.touch()
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(sandbox, "NAME_FILES", {str(tmp_path / "resolv.conf"): "text of {host}"})
    (mount,) = sandbox._name_mounts(tmp_path / "scratch")
    assert mount.target == os.path.realpath(target)
    assert mount.source is not None
    assert mount.source.read_text() == f"text of {socket.gethostname()}"


def test_no_file_is_put_into_a_system_folder_that_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "NAME_FILES", {"/etc/no-such-file.conf": ""})
    assert list(sandbox._name_mounts(tmp_path)) == []


# where Python lies


@pytest.fixture
def linked_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This Python, as a venv in a path with blanks, over a link to a folder and one to a file."""
    base = Path(sys.base_prefix)
    pythons, venv = tmp_path / "my pythons", tmp_path / "my project/.venv"
    pythons.mkdir()
    (pythons / "3.x").symlink_to(base)
    real = Path(os.path.realpath(sys.executable))
    within = real.relative_to(os.path.realpath(base))
    (venv / "bin").mkdir(parents=True)
    (pythons / "python").symlink_to(pythons / "3.x" / within)
    (venv / "bin/python").symlink_to("../../../my pythons/python")
    (venv / "pyvenv.cfg").write_text(f"home = {(pythons / '3.x' / within).parent}\n")
    monkeypatch.setattr(sys, "executable", str(venv / "bin/python"))
    monkeypatch.setattr(sys, "prefix", str(venv))
    monkeypatch.setattr(sys, "base_prefix", str(pythons / "3.x"))
    return venv


@pytest.mark.parametrize("isolation", ROOTED)
def test_a_python_behind_links_in_folders_with_blanks_is_found(
    inside, tmp_path: Path, linked_python: Path, isolation: str
) -> None:
    (linked_python.parent / "data.csv").touch()
    look = f"[__import__('sys').executable, os.listdir({str(linked_python.parent)!r})]"
    code = ANSWER.format(look)
    assert inside(isolation, code).status == 0
    assert answer(tmp_path) == [str(linked_python / "bin/python"), [".venv"]]


def targets() -> list[str]:
    return [mount.target for mount in sandbox._system_mounts()]


@pytest.mark.parametrize("executable", ["/bin/python3", "/home/me/bin/python3"])
def test_a_python_called_from_an_odd_place_does_not_bring_all_around_it(
    monkeypatch: pytest.MonkeyPatch, executable: str
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "prefix", "/" if executable.startswith("/bin") else sys.prefix)
    assert "/" not in targets() and "/home/me" not in targets()
    assert str(Path(executable).parent) in targets()


def test_a_link_that_leads_to_itself_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python").symlink_to("python")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert str(tmp_path) in targets()


def test_a_system_folder_that_the_machine_lacks_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sandbox, "SYSTEM", ("usr", "no-such-folder"))
    assert "/usr" in targets() and "/no-such-folder" not in targets()


def order(*mounts: Mount) -> list[str]:
    return [mount.target for mount in sandbox._in_order(mounts)]


def test_parents_come_first_and_what_they_show_already_is_left_out() -> None:
    usr = Mount("/usr", Path("/usr"))
    assert order(Mount("/usr/local", Path("/usr/local")), usr) == ["/usr"]
    assert order(usr, usr) == ["/usr"]
    # under an empty folder, writable, or of another place: not shown yet
    assert order(Mount("/tmp/venv", Path("/tmp/venv")), Mount("/tmp")) == ["/tmp", "/tmp/venv"]
    assert order(Mount("/usr/a", Path("/usr/a"), writable=True), usr) == ["/usr", "/usr/a"]
    assert order(Mount("/usr/a", Path("/opt/a")), usr) == ["/usr", "/usr/a"]
    assert order(Mount("/usrlocal", Path("/usrlocal")), usr) == ["/usrlocal", "/usr"]
    assert order(Mount("/usr/empty"), usr) == ["/usr", "/usr/empty"]


def test_of_two_mounts_at_one_place_the_later_one_counts() -> None:
    kept = sandbox._in_order([Mount("/tmp"), Mount("/tmp", Path("/data"), writable=True)])
    assert kept == [Mount("/tmp", Path("/data"), writable=True)]


# how it ends


@pytest.mark.parametrize("isolation", [*ROOTED, GUARD])
def test_the_exit_status_is_the_commands_own(inside, isolation: str) -> None:
    outcome = inside(isolation, "raise SystemExit(7)")
    assert (outcome.status, outcome.timed_out) == (7, False)
    assert inside(isolation, "import os; os.kill(os.getpid(), 9)").status in (-9, 137)


@pytest.mark.parametrize("isolation", [*ROOTED, GUARD])
def test_no_one_waits_at_the_keyboard(inside, isolation: str) -> None:
    keyboard, typed = os.pipe()
    os.write(typed, b"typed")
    os.close(typed)
    mine = os.dup(0)
    os.dup2(keyboard, 0)
    try:
        assert inside(isolation, "import sys; sys.exit(len(sys.stdin.read()))").status == 0
    finally:
        os.dup2(mine, 0)
        os.close(mine)
        os.close(keyboard)


STUBBORN = """
import os, signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
child = "import time; time.sleep({})"
subprocess.Popen([sys.executable, "-I", "-S", "-c", child], start_new_session=True)
open("started", "w").close()
time.sleep({})
"""


def command_lines() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout


@pytest.mark.parametrize("isolation", [*ROOTED, GUARD])
def test_at_the_limit_what_ignores_signals_ends_and_its_children_too(
    inside, tmp_path: Path, isolation: str
) -> None:
    mark = f"1{os.getpid()}"
    outcome = inside(isolation, STUBBORN.format(mark, mark), limit_seconds=2)
    assert outcome.timed_out and outcome.seconds >= 2
    assert (tmp_path / "work/started").exists()
    assert f"sleep({mark})" not in command_lines()


@pytest.mark.parametrize("listed", ["proc", "ps"])
def test_a_tree_is_killed_to_its_last_leaf_and_its_root_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    if listed == "ps":  # as where there is no /proc
        monkeypatch.setattr(leftovers, "PROCESSES", tmp_path / "proc")
    mark = f"3{os.getpid()}{listed}"
    code = f"import subprocess, sys, time; mark = {mark!r}; {{}}time.sleep(300)"
    python = [sys.executable, "-I", "-S", "-c"]
    leaf = [*python, code.format("")]
    child = [*python, code.format(f"subprocess.Popen({leaf!r}); ")]
    root = [*python, code.format(f"subprocess.Popen({child!r}, start_new_session=True); ")]
    process = subprocess.Popen(root)
    try:
        while len(below := leftovers._descendants(process.pid)) < 2:
            time.sleep(0.02)
        kill_children(process.pid)
        assert leftovers._descendants(process.pid) == []
        assert not set(below) & {number for number, _ in leftovers._processes()}
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()
    assert mark not in command_lines()


def test_a_process_with_an_odd_name_is_told_from_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = {
        7: b"7 (a \xff) S (b)) R 1 7",
        8: b"8 (x) S 7 7",
        9: b"9 (y) Z 8 7",
        10: b"10 (z) S 3 1",
    }
    for number, line in lines.items():
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stat").write_bytes(line)
    (tmp_path / "11/stat").mkdir(parents=True)  # gone in between
    monkeypatch.setattr(leftovers, "PROCESSES", tmp_path)
    assert sorted(leftovers._processes()) == [(7, 1), (8, 7), (10, 3)]
    assert leftovers._descendants(1) == [7, 8]


# other machines


def test_where_the_machine_allows_namespaces_they_are_used() -> None:
    """Else a fault in entering them would only show as skipped tests."""
    try:
        command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "true"]
        allowed = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        allowed = False
    if not allowed:
        pytest.skip("no namespaces, or no command that could tell")
    assert BEST == NAMESPACES


@pytest.fixture
def anew() -> Iterator[None]:
    best_isolation.cache_clear()
    yield
    best_isolation.cache_clear()


def test_a_machine_that_refuses_namespaces_and_has_no_bwrap_falls_to_the_guard(
    anew, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(command: list[str], **options: Any) -> None:
        tried.append(command[0])
        if command[0] == "bwrap":
            raise FileNotFoundError("bwrap")
        raise subprocess.CalledProcessError(1, command)

    monkeypatch.setattr(subprocess, "run", refuse)
    assert best_isolation() == GUARD
    assert tried == [sys.executable, "bwrap"]


def test_a_trial_that_hangs_is_a_refusal(anew, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)
    assert best_isolation() == GUARD


def test_on_a_system_like_macos_it_is_the_guard_and_the_commands_run(
    anew, inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No /proc, no /opt, no program that enters: the entering script itself cannot do it."""
    monkeypatch.setattr(sandbox, "SYSTEM", ("usr", "no-opt", "no-nix"))
    cannot = tmp_path / "enter.py"
    cannot.write_text("import sys; sys.exit('cannot enter the namespaces')")
    monkeypatch.setattr(sandbox, "ENTER", cannot)
    monkeypatch.setenv("PATH", str(tmp_path))
    isolation = best_isolation()
    assert isolation == GUARD
    assert inside(isolation, ANSWER.format("os.getcwd()")).status == 0
    assert answer(tmp_path) == str(tmp_path / "work")


@pytest.mark.parametrize(
    "libc", [SimpleNamespace(), SimpleNamespace(unshare=lambda flags: -1)], ids=["none", "refused"]
)
def test_entering_says_why_it_cannot_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, libc: Any
) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text('{"root": "/nowhere", "work_folder": "/", "mounts": []}')
    monkeypatch.setattr(enter, "_libc", libc)
    monkeypatch.setattr(sys, "argv", ["enter.py", str(plan), "true"])
    with pytest.raises(SystemExit, match="cannot enter the namespaces: "):
        enter.main()


def test_what_bwrap_is_asked_for_is_what_namespaces_give() -> None:
    folder = Path("/some where")
    assert Mount("/a").as_arguments() == ["--tmpfs", "/a"]
    assert Mount("/a", folder).as_arguments() == ["--ro-bind", "/some where", "/a"]
    assert Mount("/a", folder, writable=True).as_arguments()[0] == "--dev-bind"
    assert Mount("/a", folder).as_entry() == {
        "kind": "read-only",
        "source": "/some where",
        "target": "/a",
    }
