"""Runs something in a real child process and kills it there, without warning, as SIGKILL does.

The children are forked from a server that has already imported what they need, so that one begins
in milliseconds. What they run must be a module's function, with arguments that can be pickled.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

MODULES = (
    "pytest",
    "tests.conftest",  # the same environment, and no network for the children either
    "kernel_lib.results.ensemble",
    "kernel_lib.tasks.submission",
    "kernel_lib.training.crossval",
)
START_SECONDS = 120  # a child that has not begun by then never will
END_SECONDS = 300

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(MODULES))


def run_to_the_end(target: Callable[..., Any], *args: Any) -> float:
    """Runs ``target(*args)`` in a child, unbroken.

    Returns:
        The seconds from its begin to its end.

    Raises:
        AssertionError: it failed; the message holds the child's traceback.
    """
    killed, seconds = _run(target, args, END_SECONDS)
    assert not killed, f"the child did not end within {END_SECONDS} s"
    return seconds


def run_and_kill(target: Callable[..., Any], *args: Any, after_seconds: float) -> bool:
    """Runs ``target(*args)`` in a child and kills it when it has run for so long.

    Returns:
        Whether the kill came before the end.

    Raises:
        AssertionError: it failed before that.
    """
    return _run(target, args, after_seconds)[0]


def killed_runs(
    target: Callable[..., Any],
    make_args: Callable[[int], tuple[Any, ...]],
    *,
    count: int,
    within_seconds: float,
    seed: int,
) -> Iterator[tuple[Any, ...]]:
    """Kills ``count`` runs, each at a random moment, and gives the arguments of each afterwards.

    A run that ends before its kill does not count: it is made again with another moment, and the
    moments lie within its time from then on. (The one that was measured may have had a busy core.)

    Args:
        target: what is run.
        make_args: makes the arguments of a try from its number; each try wants a new folder.
        count: how many kills.
        within_seconds: the moments lie between 0 and this; as long as an unbroken run takes.
        seed: of the moments.

    Raises:
        AssertionError: a run failed, or half of all runs end before they are killed.
    """
    draw = random.Random(seed)
    killed = 0
    for number in range(2 * count):
        args = make_args(number)
        before_its_end, seconds = _run(target, args, draw.uniform(0, within_seconds))
        if before_its_end:
            killed += 1
            yield args
        else:
            within_seconds = min(within_seconds, seconds)
        if killed == count:
            return
    raise AssertionError(f"only {killed} of {2 * count} kills came before the end of the run")


def _run(
    target: Callable[..., Any], args: tuple[Any, ...], kill_after_seconds: float
) -> tuple[bool, float]:
    """Whether the child was killed, and the seconds that it ran."""
    receiver, sender = _context.Pipe(duplex=False)
    child = _context.Process(target=_child, args=(sender, target, args))
    child.start()
    sender.close()
    try:
        assert _said(receiver, START_SECONDS) == "begun", "no child began"
        begun = time.monotonic()
        child.join(kill_after_seconds)
        seconds = time.monotonic() - begun
        child.kill()
        child.join()
        said = _said(receiver)
        killed = child.exitcode == -signal.SIGKILL and not said
        assert killed or said == "ended", said or f"exit code {child.exitcode}"
        return killed, seconds
    finally:
        receiver.close()
        child.close()


def _said(receiver: Any, seconds: float = 0) -> str:
    """What the child says within so many seconds; empty if nothing."""
    try:
        return str(receiver.recv()) if receiver.poll(seconds) else ""
    except EOFError:
        return ""


def _child(sender: Any, target: Callable[..., Any], args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    gc.freeze()  # or a collection would go through, and so copy, all that the server imported
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    sender.send("begun")
    try:
        target(*args)
    except BaseException:
        sender.send(traceback.format_exc())
    else:
        sender.send("ended")
