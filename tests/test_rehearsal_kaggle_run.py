"""One run of one notebook: it meets what Kaggle has, and whatever it leaves is read and cleared."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError

from kernel_lib.errors import DataError
from kernel_lib.offline.execute import NotebookError
from kernel_lib.offline.rehearsal import batch_run, kaggle_run
from kernel_lib.offline.rehearsal.kaggle_run import KaggleRun, run_notebook
from kernel_lib.offline.rehearsal.leftovers import open_up, read_lines, remove
from kernel_lib.offline.rehearsal.sandbox import GUARD, Outcome, best_isolation
from kernel_lib.offline.rehearsal.stage import FLAT, NESTED, Source

ISOLATIONS = dict.fromkeys((best_isolation(), GUARD))


def write_notebook(path: Path, *cells: str | nbformat.NotebookNode) -> Path:
    made = [nbformat.v4.new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    content = nbformat.v4.new_notebook(cells=made)
    content.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    nbformat.write(content, path)
    return path


# with a true notebook


SURROUNDINGS = """
import importlib.util, json, os, sys, tempfile
from pathlib import Path
kaggle = Path(os.environ.get("KERNEL_LIB_KAGGLE_ROOT", "/kaggle"))
assert Path.cwd() == kaggle / "working" and not list(Path.cwd().iterdir())
assert Path(tempfile.gettempdir()).name == "tmp"
assert importlib.util.find_spec("kernel_lib") is None
assert not [p for p in Path.cwd().parents if (p / "kernel_lib").exists()]
assert os.environ["KAGGLE_KERNEL_RUN_TYPE"] == "Batch" and sys.stdout.encoding.lower() == "utf-8"
data = kaggle / "input/my-contest"
assert (data / "test.csv").read_text() == "made up", (data / "test.csv").read_text()
assert (data / "train.csv").read_text() == "elsewhere"
assert (data / "sub folder/a b.txt").read_text() == "deep"
(kaggle / "temp/scratch").touch()
Path(tempfile.gettempdir(), "scratch").touch()
"""
UNTIDY = """
import os, socket, subprocess, sys
os.write(1, b"no \\xff utf-8\\n")
Path("mine").write_text("x")
Path("mine").unlink()
os.symlink("/etc/passwd", "link"); os.symlink("nowhere", "gone"); os.symlink("/", "root")
os.mkfifo("pipe")
listening = socket.socket(socket.AF_UNIX); listening.bind("socket")
os.makedirs("locked/inner"); Path("locked/inner/file").write_text("in"); Path("closed").touch()
for name in ("locked/inner/file", "locked/inner", "locked", "closed"):
    os.chmod(name, 0)
Path(os.fsdecode(b"n\\xffme")).write_text("odd")
with open("huge", "wb") as file:
    file.truncate(10**13)
code = "import time; time.sleep(MARK)"
subprocess.Popen([sys.executable, "-I", "-S", "-c", code], start_new_session=True)
"""


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_notebook_meets_kaggle_and_what_it_leaves_is_readable_and_quiet(
    tmp_path: Path, isolation: str
) -> None:
    (tmp_path / "data/sub folder").mkdir(parents=True)
    (tmp_path / "data/sub folder/a b.txt").write_text("deep")
    (tmp_path / "data/test.csv").write_text("public")
    (tmp_path / "elsewhere.csv").write_text("elsewhere")
    (tmp_path / "data/train.csv").symlink_to(tmp_path / "elsewhere.csv")
    (tmp_path / "made up.csv").write_text("made up")
    source = Source(
        "competition", "my-contest", tmp_path / "data", {"test.csv": tmp_path / "made up.csv"}
    )
    mark = f"2{os.getpid()}"
    path = write_notebook(
        tmp_path / "a notebook.ipynb",
        SURROUNDINGS,
        UNTIDY.replace("MARK", mark),
        "print('done')",
    )
    made = run_notebook(
        path,
        [source],
        tmp_path / "run folder",
        layout=FLAT,
        isolation=isolation,
        hidden_modules={},
        limit_seconds=120,
    )
    assert (made.outcome.status, made.error) == (0, "")
    assert "no \ufffd utf-8\n" in made.log and made.log.endswith("done\n")
    assert made.attempts == [] and made.unroutable == 0
    assert {path.name for path in (tmp_path / "run folder").iterdir()} == {
        *("working", "log.json", "executed.ipynb")
    }
    assert {os.fsencode(path.name) for path in made.working.iterdir()} == {
        *(b"link", b"gone", b"root", b"pipe", b"socket", b"locked", b"closed", b"n\xffme", b"huge")
    }
    for name in ("locked", "locked/inner", "locked/inner/file", "closed"):
        assert (made.working / name).stat().st_mode & stat.S_IRUSR
    assert stat.S_IMODE(Path("/etc/passwd").stat().st_mode) == 0o644
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert f"sleep({mark})" not in running
    assert not list(Path(tempfile.gettempdir()).glob("kaggle-*/kaggle/working/huge"))
    assert (tmp_path / "elsewhere.csv").read_text() == "elsewhere"


def test_a_notebook_whose_python_dies_is_told_so(tmp_path: Path) -> None:
    made = run_notebook(
        write_notebook(tmp_path / "a.ipynb", "print('so far')", "import os; os._exit(3)"),
        [],
        tmp_path / "run",
        layout=NESTED,
        isolation=best_isolation(),
        hidden_modules={},
        limit_seconds=120,
    )
    assert made.outcome.status == 1 and "so far" in made.log
    assert "the notebook's Python died" in made.error and "the notebook's Python died" in made.log


# what the run is given, and what is made of its traces


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a notebook without one: an action of the test stands in for the sandbox."""

    def run_it(action: Any, isolation: str = GUARD, **options: Any) -> KaggleRun:
        monkeypatch.setattr(kaggle_run, "run", action)
        return run_notebook(
            write_notebook(tmp_path / "a.ipynb"),
            options.pop("sources", []),
            tmp_path / "run",
            layout=FLAT,
            isolation=isolation,
            hidden_modules={"iterstrat": "iterative-stratification"},
            limit_seconds=60,
            **options,
        )

    return run_it


def out_folder(options: dict[str, Any]) -> Path:
    return Path(options["scratch"]).with_name("out")


def test_a_killed_run_keeps_what_it_had_printed_and_reached_for(pretend) -> None:
    def killed(command: list[str], **options: Any) -> Outcome:
        line = {"stream_name": "stdout", "time": 0.1, "data": "epoch 1\n"}
        half = json.dumps({**line, "data": "ünfinished"}).encode()[:-9]
        (out_folder(options) / "log.jsonl").write_bytes(json.dumps(line).encode() + b"\n" + half)
        attempts = b'{"kind": "wri{"kind": "lost"}\n\xff\n[1]\n{"kind": "write", "what": "/a"}\n'
        (out_folder(options) / "attempts.jsonl").write_bytes(attempts)
        return Outcome(-9, 60.0, True)

    made = pretend(killed)
    assert made.log == "epoch 1\n" and made.error == "" and not made.executed.exists()
    assert made.attempts == [{"kind": "write", "what": "/a"}]
    log = json.loads((made.working.parent / "log.json").read_text())
    assert log == [{"stream_name": "stdout", "time": 0.1, "data": "epoch 1\n"}]


def finished(command: list[str], **options: Any) -> Outcome:
    (out_folder(options) / "attempts.jsonl").touch()
    (out_folder(options) / "result.json").write_text('{"error": "", "unroutable": 5}')
    return Outcome(0, 1.0, False)


def test_packets_are_counted_only_where_the_network_is_the_runs_own(pretend) -> None:
    assert pretend(finished, isolation=GUARD).unroutable == 0


def test_without_a_guard_silence_means_nothing(pretend) -> None:
    with pytest.raises(DataError, match="the guard did not start"):
        pretend(lambda command, **options: Outcome(0, 1.0, False))


def test_a_sandbox_that_was_not_entered_is_a_failed_run(pretend) -> None:
    made = pretend(lambda command, **options: Outcome(1, 0.1, False))
    assert (made.outcome.status, made.log, made.error) == (1, "", "")


def test_a_notebook_that_removed_its_own_folder_leaves_an_empty_one(pretend) -> None:
    def vandal(command: list[str], **options: Any) -> Outcome:
        remove(Path(options["work_folder"]))
        return finished(command, **options)

    assert list(pretend(vandal).working.iterdir()) == []


@pytest.mark.parametrize("isolation", ["namespaces", GUARD])
def test_an_interrupted_run_leaves_no_box(
    pretend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isolation: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def interrupted(command: list[str], **options: Any) -> Outcome:
        (out_folder(options) / "locked").mkdir(mode=0)
        raise KeyboardInterrupt

    (tmp_path / "data").mkdir()
    with pytest.raises(KeyboardInterrupt):
        pretend(
            interrupted,
            isolation=isolation,
            sources=[Source("dataset", "me/d", tmp_path / "data")],
        )
    assert list((tmp_path / "run").iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_environment_is_kaggles_and_nothing_of_the_users_own(
    pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "KAGGLE_KEY", "HF_HOME", "PYTHONSTARTUP", "LC_ALL"):
        monkeypatch.setenv(name, "mine")
    monkeypatch.setenv("KERNEL_LIB_SETTINGS", '{"epochs": 99}')
    seen: dict[str, str] = {}

    def look(command: list[str], **options: Any) -> Outcome:
        seen.update(options["environment"])
        return finished(command, **options)

    made = pretend(look, rerun=True, settings='{"debug": true}')
    assert "mine" not in seen.values()
    assert seen["KAGGLE_IS_COMPETITION_RERUN"] == "1"
    assert seen["KERNEL_LIB_SETTINGS"] == '{"debug": true}'
    assert seen["LC_ALL"] == "C.UTF-8" and seen["PATH"] == os.environ["PATH"]
    assert set(made.tokens) <= set(seen.values()) and len(set(made.tokens)) == 2


def test_where_only_the_guard_isolates_the_repository_is_not_around_the_notebook(pretend) -> None:
    seen: list[Path] = []

    def look(command: list[str], **options: Any) -> Outcome:
        seen.append(Path(options["work_folder"]))
        return finished(command, **options)

    made = pretend(look)
    assert not seen[0].is_relative_to(made.working.parent) and not seen[0].exists()


def test_a_plain_run_is_no_rerun_and_has_the_notebooks_own_settings(
    pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAGGLE_IS_COMPETITION_RERUN", "1")
    monkeypatch.setenv("KERNEL_LIB_SETTINGS", '{"epochs": 99}')

    def look(command: list[str], **options: Any) -> Outcome:
        assert not {"KAGGLE_IS_COMPETITION_RERUN", "KERNEL_LIB_SETTINGS"} & {
            *options["environment"]
        }
        return finished(command, **options)

    pretend(look)


def test_the_guard_is_told_where_packages_are_installed_and_what_to_hide(
    pretend, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ["/usr/lib/python3/dist-packages", "/v/site-packages", "/v/lib/python3.11", ""]
    monkeypatch.setattr(sys, "path", [*places, *sys.path])
    seen: dict[str, Any] = {}

    def look(command: list[str], **options: Any) -> Outcome:
        seen.update(json.loads(Path(options["environment"]["KERNEL_LIB_GUARD"]).read_text()))
        return finished(command, **options)

    pretend(look)
    assert seen["site_folders"][:2] == places[:2]
    assert not set(places[2:]) & set(seen["site_folders"])
    assert seen["hidden"] == {"iterstrat": "iterative-stratification"}
    assert seen["refuse"] is True


def test_each_input_is_mounted_at_its_place_read_only(tmp_path: Path, pretend) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "test.csv").touch()
    instead = {"test.csv": tmp_path / "test.csv"}
    seen = []

    def look(command: list[str], **options: Any) -> Outcome:
        seen.extend(options["mounts"])
        return finished(command, **options)

    sources = [
        Source("competition", "contest", tmp_path / "data", instead),
        Source("dataset", "me/d", tmp_path / "data"),
    ]
    made = pretend(look, isolation="namespaces", sources=sources)
    places = {mount.target: mount for mount in seen}
    assert places["/kaggle/input/contest"].source == tmp_path / "data"
    assert places["/kaggle/input/contest/test.csv"].source == tmp_path / "test.csv"
    assert places["/kaggle/input/d"].source == tmp_path / "data"
    assert {target for target, mount in places.items() if mount.writable} == {
        *("/kaggle/working", "/kaggle/temp", "/tmp", "/root", "/run/rehearsal/out")
    }
    assert made.unroutable == 5


def test_two_inputs_at_one_place_are_refused_before_anything_is_made(
    tmp_path: Path, pretend
) -> None:
    sources = [Source("dataset", name, tmp_path) for name in ("me/d", "you/d")]
    with pytest.raises(DataError, match="would both be mounted"):
        pretend(finished, sources=sources)
    assert not (tmp_path / "run").exists()


# inside: the batch run


@pytest.fixture
def batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Any:
    """A batch run with an action for the notebook; gives exit status, result and log lines."""
    monkeypatch.setattr(batch_run, "_adopt_orphans", lambda: None)
    monkeypatch.setattr(batch_run, "kill_children", lambda process: None)

    def run_it(action: Any, *cells: Any) -> tuple[int, dict, list[dict]]:
        def execute(notebook: Path, **options: Any) -> None:
            write_notebook(options["executed"], *cells)
            action(options["show"])

        monkeypatch.setattr(batch_run, "execute_notebook", execute)
        status = batch_run.run_as_batch(tmp_path / "a.ipynb", tmp_path)
        result = json.loads((tmp_path / "result.json").read_text())
        return status, result, read_lines(tmp_path / "log.jsonl")

    return run_it


def raising(error: BaseException) -> Any:
    def action(show: Any) -> None:
        show("stdout", "so far\n")
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (NotebookError("a.ipynb: ValueError: x"), "a.ipynb: ValueError: x"),
        (DeadKernelError("Kernel died"), "a.ipynb: the notebook's Python died"),
        (RuntimeError("zmq"), "a.ipynb: RuntimeError: zmq"),
    ],
)
def test_whatever_ends_a_notebook_is_in_result_and_log(
    batch, error: Exception, message: str
) -> None:
    status, result, log = batch(raising(error))
    assert status == 1 and result["error"].startswith(message)
    assert [line["stream_name"] for line in log] == ["stdout", "stderr"]
    assert log[0]["data"] == "so far\n" and log[1]["data"].startswith(message)


def test_the_cell_that_raised_is_named_and_its_traceback_is_in_the_log(batch) -> None:
    output = {"output_type": "error", "ename": "KeyError", "evalue": "'a'", "traceback": []}
    error = NotebookError("a.ipynb: KeyError: 'a'\nline 1\nline 2")
    status, result, log = batch(raising(error), "1", cell(output), cell(output))
    assert status == 1 and result["error"] == "cell 2: KeyError: 'a'"
    assert log[-1]["data"] == f"{error}\n"


def test_half_a_character_does_not_end_the_run(batch) -> None:
    status, result, log = batch(lambda show: show("stdout", "half \ud800 a character"))
    assert (status, result["error"]) == (0, "")
    assert log[0]["data"] == "half ? a character"


def cell(output: dict[str, Any]) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell("a", outputs=[nbformat.v4.new_output(**output)])


@pytest.mark.parametrize(
    ("output", "status"),
    [
        ({"output_type": "error", "ename": "KeyError", "evalue": "'a'", "traceback": []}, 1),
        ({"output_type": "error", "ename": "SystemExit", "evalue": "1", "traceback": []}, 1),
        ({"output_type": "error", "ename": "SystemExit", "evalue": "0", "traceback": []}, 0),
        ({"output_type": "error", "ename": "SystemExit", "evalue": "", "traceback": []}, 0),
        ({"output_type": "stream", "name": "stderr", "text": "KeyError"}, 0),
    ],
)
def test_an_error_that_a_tag_allows_ends_the_run_all_the_same(
    batch, output: dict[str, Any], status: int
) -> None:
    markdown = nbformat.v4.new_markdown_cell("words")
    found, result, _ = batch(lambda show: None, markdown, cell(output), "1")
    assert found == status
    assert result["error"].startswith("cell 2: " if status else "")


SNMP = (
    "Ip: Forwarding OutDiscards OutNoRoutes\nIp: 1 7 3\nIcmp: InMsgs\nIcmp: 0\n",
    "Ip6InReceives 9\nIp6OutNoRoutes                  \t4\nIcmp6InMsgs 1\n",
)


def test_packets_of_both_versions_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / "snmp", tmp_path / "snmp6"]
    for path, text in zip(paths, SNMP, strict=True):
        path.write_text(text)
    monkeypatch.setattr(batch_run, "SNMP", [str(path) for path in paths])
    assert sum(batch_run._unroutable_packets()) == 7
    paths[1].unlink()
    assert sum(batch_run._unroutable_packets()) == 3
    paths[0].unlink()  # another system
    assert sum(batch_run._unroutable_packets()) == 0


def test_orphans_are_adopted_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    library = SimpleNamespace(prctl=lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(batch_run.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(sys, "platform", "darwin")
    batch_run._adopt_orphans()
    assert calls == []
    monkeypatch.setattr(sys, "platform", "linux")
    batch_run._adopt_orphans()
    assert calls == [(36, 1, 0, 0, 0)]


# leftovers


def test_a_folder_full_of_locked_things_is_opened_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").touch()
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o555)
    (tmp_path / "kept").touch(mode=0o400)
    (folder / "a/link").symlink_to(outside)
    (folder / "a/b/link").symlink_to(tmp_path / "kept")
    for name in ("a/b/file", "a/b", "a", "."):
        (folder / name).chmod(0)
    open_up(folder)
    for path, mode in ((folder, 0o700), (folder / "a/b", 0o700), (folder / "a/b/file", 0o600)):
        assert stat.S_IMODE(path.stat().st_mode) == mode
    assert stat.S_IMODE(outside.stat().st_mode) == 0o555
    assert stat.S_IMODE((tmp_path / "kept").stat().st_mode) == 0o400
    (folder / "a/b").chmod(0o555)
    remove(folder)
    assert not folder.exists() and outside.exists() and (tmp_path / "kept").exists()
    remove(folder)  # nothing there: nothing to do


def test_lines_of_nothing_are_none(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "no.jsonl") == []
