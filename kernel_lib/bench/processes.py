"""Measuring in a fresh process, so that nothing of an earlier measurement is left in memory.

How the C library's allocator is told to behave holds for a whole process, and what a process has
kept once makes everything after it quicker: each way is therefore measured in a process of its own.
These are forked from one that has done nothing but import, so they begin at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

from kernel_lib.errors import KernelLibError, TrainingError

FAILED = 1  # the exit status of a measurement that raised what nobody can cure

_origin: Connection | None = None  # leads to the process that the others are forked from


def run_apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module gives in a fresh process, its arguments and result copied.

    Raises:
        KernelLibError: the function's own.
        TrainingError: it ended otherwise, with another error or killed (most often: out of memory).
    """
    global _origin
    if _origin is None:
        _origin = _start_origin()
    try:
        _origin.send((function, arguments))
        succeeded, answer = _origin.recv()
    except BaseException as error:  # also when interrupted: an answer may still be on its way
        _origin.close()
        _origin = None
        if isinstance(error, EOFError | OSError):
            raise TrainingError("the process that starts measurements is gone.") from None
        raise
    if succeeded:
        return answer
    if isinstance(answer, KernelLibError):
        raise answer
    raise TrainingError(
        f"the process that measured ended with status {answer} and no result. {FAILED}: what went "
        "wrong stands above; -9: most often a full memory, so give smaller sizes (LAYERS=1)."
    )


def _start_origin() -> Connection:
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    with _one_blas_thread():
        context.Process(target=_serve, args=(there,), daemon=True).start()
    there.close()
    return here


@contextlib.contextmanager
def _one_blas_thread() -> Iterator[None]:
    """numpy's library opens a pool of threads when it is imported; it would not outlive a fork."""
    name = "OPENBLAS_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def _serve(requests: Connection) -> None:
    """Imports, then forks a process for each request, one at a time, until nobody asks any more."""
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # given two, the Trainer would use both
    # A GPU that was so much as counted before a fork cannot be used after it.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    # What is to be measured, imported once for all.
    from kernel_lib.bench import cells, end_to_end, growth, precisions, run  # noqa: F401

    while True:
        try:
            function, arguments = requests.recv()
        except EOFError:
            return
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            requests.close()
            receiver.close()
            _measure(sender, function, arguments)
        sender.close()
        answer: Any = None
        with contextlib.suppress(EOFError), receiver:
            answer = receiver.recv()
        _, status = os.waitpid(child, 0)
        requests.send(answer or (False, os.waitstatus_to_exitcode(status)))


def _measure(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """The whole life of a forked process; does not return."""
    status = FAILED
    try:
        try:
            sender.send((True, function(*arguments)))
        except KernelLibError as error:
            sender.send((False, error))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
