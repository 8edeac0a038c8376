"""Several processes at work: all jobs done, each told, and no failure takes another job with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.errors import DataError, TrainingError
from kernel_lib.runtime import crew as module
from kernel_lib.runtime import seat
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.crew import Alone, Outcome, hire
from tests.conftest import ROOT
from tests.jobs import BadPlace, Job, Work

LONG = 60  # seconds to wait for what takes a fraction of one


def do_all(jobs: Iterable[Job], places: Any = ("left", "right"), **options: Any) -> list[Outcome]:
    """All outcomes, as they come."""
    waiting = iter(jobs)
    options = {"clock": Clock(3600), "name": str, **options}
    with hire(Work(), places, **options) as crew:
        return list(crew.outcomes(lambda: next(waiting, None)))


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], Any]) -> Any:
    """What the condition gives, as soon as that is something."""
    end = time.monotonic() + LONG
    while not (found := condition()):
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)
    return found


def by_name(outcomes: Iterable[Outcome]) -> dict[str, Outcome]:
    return {outcome.job.name: outcome for outcome in outcomes}


def test_all_jobs_are_done_once_by_as_many_processes_as_there_are_places() -> None:
    jobs = [Job(f"job {number}") for number in range(6)]
    outcomes = do_all(jobs)
    assert sorted(outcome.job.name for outcome in outcomes) == [job.name for job in jobs]
    assert {outcome.value["place"] for outcome in outcomes} == {"left", "right"}
    pids = {outcome.value["pid"] for outcome in outcomes}
    assert len(pids) == 2 and os.getpid() not in pids
    done = [[o.value["done"] for o in outcomes if o.value["pid"] == pid][-1] for pid in pids]
    assert sum(map(len, done)) == len(jobs)  # the work is sent once and kept
    assert not any(map(is_running, pids))


def test_a_single_place_is_this_process_and_its_errors_are_raised() -> None:
    outcomes = do_all([Job("a"), Job("b")], places=["here"])
    assert [outcome.value["pid"] for outcome in outcomes] == [os.getpid()] * 2
    with pytest.raises(DataError, match="is gone"):
        do_all([Job("c", "refuse")], places=["here"])
    assert isinstance(hire(Work(), ["here"], clock=Clock(1), name=str), Alone)


def test_everything_a_worker_says_is_told_with_the_name_of_its_job(capsys) -> None:
    notes: list[Any] = []
    do_all([Job("fold 1", "talk")], note=notes.append)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[:6] == [
        "fold 1: on left",
        "fold 1: a line",
        "fold 1: and another",
        "fold 1 has its name already",
        "fold 1: half of a line, and the rest",
        "fold 1: 100%",
    ]
    assert "look here" in lines[6] and lines[-2:] == ["fold 1: a line of the bar", "fold 1: no end"]
    assert notes == [{"score": 0.5}]
    assert "fold 1: 100% 4/4 [00:00<00:00" in err and "loss 0.1]" in err


def test_the_clock_goes_on_in_the_workers() -> None:
    started = time.monotonic()
    clock = Clock(100, used_seconds=30)
    budget, used, shared_by = do_all([Job("a", "clock")], clock=clock)[0].value
    assert budget == 100 and shared_by == 2
    assert 30 < used <= 30 + time.monotonic() - started


def test_what_a_user_can_cure_costs_the_job_and_not_the_worker(capsys) -> None:
    outcomes = do_all([Job("a", "refuse"), Job("b"), Job("c"), Job("d")], places=["one", "two"])
    failed = by_name(outcomes)["a"].failure
    assert failed and failed.is_known and not failed.has_died
    assert "a: FAILED: DataError: train.csv is gone\n" in capsys.readouterr().out
    assert len(outcomes) == 4 and sum(outcome.failure is None for outcome in outcomes) == 3


@pytest.mark.parametrize(
    ("does", "cause", "has_died"),
    [
        ("fail", r"ValueError: bad cannot be done \(in .*jobs\.py:\d+\)", False),
        ("end_too_early", r"EOFError: the file is cut short", False),
        ("leave", r"SystemExit: enough", False),
        ("die", r"its process was killed \(SIGKILL, as the system does when the memory is f", True),
        ("vanish", r"its process ended without a word \(exit code 3\)", True),
    ],
)
def test_any_other_end_costs_the_job_and_the_worker_but_no_other_job(
    does: str, cause: str, has_died: bool, capsys, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    jobs = [Job("long", "wait_for", gone), Job("bad", does), *(Job(f"job {i}") for i in range(3))]
    waiting = iter(jobs)
    outcomes = []
    with hire(Work(), ["left", "right"], clock=Clock(3600), name=str) as crew:
        for outcome in crew.outcomes(lambda: next(waiting, None)):
            outcomes.append(outcome)
            gone.touch()  # the long job ends after the bad one
    assert [outcome.job.name for outcome in outcomes[:2]] == ["bad", "long"]
    failure = outcomes[0].failure
    assert failure and not failure.is_known and failure.has_died is has_died
    assert len(outcomes) == 5
    assert {outcome.value["place"] for outcome in outcomes[2:]} == {"left"}
    out, err = capsys.readouterr()
    (line,) = [line for line in out.splitlines() if "FAILED" in line]
    assert re.match(f"bad: FAILED: {cause}", line)
    assert ("Traceback" in err) is (not has_died)


def test_an_interrupt_is_for_the_parent_to_decide_about() -> None:
    assert do_all([Job("a", "be_interrupted")])[0].value == "went on"


def test_when_all_workers_are_gone_what_is_left_is_left() -> None:
    outcomes = do_all([Job("a", "die"), Job("b", "fail"), Job("c"), Job("d")])
    assert {outcome.job.name for outcome in outcomes} == {"a", "b"}


def test_a_job_can_come_back_to_another_worker(tmp_path: Path) -> None:
    waiting = [Job("a", "die_once", tmp_path / "tried"), Job("b")]
    outcomes = []
    with hire(Work(), ["left", "right"], clock=Clock(3600), name=str) as crew:
        for outcome in crew.outcomes(lambda: waiting.pop(0) if waiting else None):
            outcomes.append(outcome)
            if outcome.failure:
                waiting.append(outcome.job)
    assert by_name(outcomes)["a"].value == "done at last"


def test_a_worker_that_cannot_start_leaves_its_job_to_the_others(capsys) -> None:
    outcomes = do_all([Job("a"), Job("b")], places=[BadPlace(), "good"])
    assert [outcome.value["place"] for outcome in outcomes] == ["good", "good"]
    assert "no worker on a bad place: OSError: no such GPU" in capsys.readouterr().out


def test_when_no_worker_can_start_the_cause_is_said() -> None:
    with pytest.raises(TrainingError, match=r"a bad place: OSError: no such GPU.*Set devices=1"):
        do_all([Job("a")], places=[BadPlace(), BadPlace()])


def test_work_that_cannot_travel_is_refused_before_anything_starts() -> None:
    class Local(Work):
        pass

    with pytest.raises(TrainingError, match=r"cannot be sent to worker processes.*set devices=1"):
        hire(Local(), ["left", "right"], clock=Clock(1), name=str)


def test_a_worker_that_hangs_when_all_is_done_is_killed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(module, "END_SECONDS", 0.5)
    monkeypatch.setattr(seat, "END_SECONDS", 0.5)
    (outcome,) = do_all([Job("a", "never_end")])
    assert "the worker on left did not end" in capsys.readouterr().out
    wait_until(lambda: not is_running(outcome.value))


def test_a_worker_that_is_silent_after_the_time_is_up_is_killed(
    monkeypatch, tmp_path: Path
) -> None:
    def lose_patience() -> None:  # not before it is at work: to start may take longer
        wait_until(lambda: list(tmp_path.iterdir()))
        monkeypatch.setattr(module, "SILENT_SECONDS", 1.0)

    thread = threading.Thread(target=lose_patience)
    thread.start()
    moment = [0.0]
    (outcome,) = do_all([Job("a", "sleep", tmp_path)], clock=Clock(-1, now=lambda: moment[0]))
    thread.join()
    assert outcome.failure and "said nothing for 1 s" in outcome.failure.cause


def test_an_error_in_the_parent_ends_the_workers_at_once(tmp_path: Path) -> None:
    jobs = iter([Job("a", "sleep", tmp_path), Job("b", "refuse_later", tmp_path)])
    with (
        pytest.raises(RuntimeError, match="of the parent"),
        hire(Work(), ["left", "right"], clock=Clock(3600), name=str) as crew,
    ):
        for _ in crew.outcomes(lambda: next(jobs, None)):
            raise RuntimeError("of the parent")
    (path,) = tmp_path.iterdir()
    assert not is_running(int(path.stem))


# A whole program, without a guard around what it does: a spawned process would do it again.
PROGRAM = """
import signal, sys
from kernel_lib.runtime.clock import Clock
from kernel_lib.runtime.crew import hire
from tests.jobs import Job, Work

signal.signal(signal.SIGINT, signal.default_int_handler)  # off if the tests run with a shell's &
print("the program begins", flush=True)
jobs = iter([Job(name, sys.argv[1], sys.argv[2]) for name in "ab"])
with hire(Work(), ["left", "right"], clock=Clock(3600), name=str) as crew:
    for outcome in crew.outcomes(lambda: next(jobs, None)):
        print("outcome", outcome.job, flush=True)
"""


def start_program(folder: Path, does: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM)
    (folder / "pids").mkdir()
    return subprocess.Popen(
        [sys.executable, folder / "program.py", does, folder / "pids"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def pids_in(folder: Path) -> list[int]:
    """The two workers, once both are at work."""
    found: list[Path] = wait_until(
        lambda: paths if len(paths := list((folder / "pids").iterdir())) == 2 else None
    )
    return [int(path.stem) for path in found]


def test_a_program_without_a_guard_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    out, err = start_program(tmp_path, "tell").communicate(timeout=LONG)
    assert out.count("the program begins") == 1 and out.count("outcome") == 2, err


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_is_killed(tmp_path: Path, how: int) -> None:
    program = start_program(tmp_path, "sleep")
    pids = pids_in(tmp_path)
    program.send_signal(how)
    program.communicate(timeout=LONG)
    wait_until(lambda: not any(map(is_running, pids)))


def test_an_interrupt_ends_all_of_it_with_one_traceback(tmp_path: Path) -> None:
    program = start_program(tmp_path, "sleep")
    pids = pids_in(tmp_path)
    os.killpg(program.pid, signal.SIGINT)  # a terminal and Jupyter send it to all of the group
    _, err = program.communicate(timeout=LONG)
    assert err.count("Traceback") == 1 and "KeyboardInterrupt" in err
    assert not any(map(is_running, pids))
