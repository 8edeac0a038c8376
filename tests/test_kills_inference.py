"""Inference killed at any moment: never half a file, and the next run ends as if nothing was."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernel_lib.config import InferenceSettings
from kernel_lib.results.ensemble import predict_submission
from kernel_lib.tasks import submission
from tests.killing import killed_runs, run_and_kill, run_to_the_end

KILLS = 20


def infer(run_folder: Path, data_dir: Path, work: Path) -> None:
    """What the children run."""
    predict_submission(
        InferenceSettings(
            runs=(str(run_folder),),
            data_dir=str(data_dir),
            submission=str(work / "submission.csv"),
            eval_batch_tokens=1,
            precision="float32",
        )
    )


def infer_and_die_in_a_write(run_folder: Path, data_dir: Path, work: Path, number: int) -> None:
    """The same, killed when the submission of that number is written but not yet in its place."""
    check, count = submission.check_submission, itertools.count(1)

    def dying(*args: Any, **options: Any) -> Any:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return check(*args, **options)

    submission.check_submission = dying  # in this child only
    infer(run_folder, data_dir, work)


@dataclass(frozen=True)
class Unbroken:
    """Makes the arguments of a run in a folder of its own; what an unbroken run writes, and when.

    Attributes:
        make_args: from the number of a try.
        content: of its submission.
        seconds: it takes.
        sample: the competition's.
    """

    make_args: Callable[[Any], tuple[Path, Path, Path]]
    content: bytes
    seconds: float
    sample: Path


@pytest.fixture
def unbroken(trained, material, tmp_path: Path) -> Unbroken:
    def make_args(number: Any) -> tuple[Path, Path, Path]:
        work = tmp_path / f"work{number}"
        work.mkdir()
        return trained(), material.competition, work

    args = make_args("")
    run_to_the_end(infer, *args)  # the first one also starts the server and reads cold files
    content = (args[-1] / "submission.csv").read_bytes()
    seconds = run_to_the_end(infer, *args)
    assert (args[-1] / "submission.csv").read_bytes() == content
    return Unbroken(make_args, content, seconds, material.competition / "sample_submission.csv")


def check_after_the_kill(work: Path, sample: Path) -> None:
    """No file but a valid submission, or none, and temporary ones that nobody sees."""
    names = {path.name for path in work.iterdir()}
    assert {name for name in names if not name.startswith(".submission.csv.")} <= {"submission.csv"}
    if "submission.csv" in names:
        submission.check_submission(work / "submission.csv", sample, lowest=1, highest=5)


def check_the_run_after(args: tuple[Any, ...], unbroken: Unbroken) -> None:
    """It ends like the one that was never killed, and clears up."""
    run_to_the_end(infer, *args[:3])
    assert [path.name for path in args[2].iterdir()] == ["submission.csv"]
    assert (args[2] / "submission.csv").read_bytes() == unbroken.content


def test_twenty_kills_at_random_moments_leave_nothing_corrupt(unbroken: Unbroken) -> None:
    kills = 0
    for args in killed_runs(
        infer, unbroken.make_args, count=KILLS, within_seconds=unbroken.seconds, seed=0
    ):
        check_after_the_kill(args[2], unbroken.sample)
        check_the_run_after(args, unbroken)
        kills += 1
    assert kills == KILLS


def test_a_kill_in_the_middle_of_a_write_leaves_the_file_before_it(unbroken: Unbroken) -> None:
    """Writes: the means, the first fold, both folds."""
    before = []
    for number in (1, 2, 3):
        args = (*unbroken.make_args(number), number)
        assert run_and_kill(infer_and_die_in_a_write, *args, after_seconds=60)
        check_after_the_kill(args[2], unbroken.sample)
        assert len(list(args[2].glob(".submission.csv.*"))) == 1
        path = args[2] / "submission.csv"
        before.append(path.read_bytes() if path.exists() else b"")
        check_the_run_after(args, unbroken)
    assert before[0] == b"" and len({*before, unbroken.content}) == 4
