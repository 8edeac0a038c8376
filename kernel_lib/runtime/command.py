"""How the kit's commands end: quietly with 0, or with one line on standard error and 1."""

from __future__ import annotations

import sys
from collections.abc import Callable

from kernel_lib.errors import KernelLibError


def exit_status(action: Callable[[], None]) -> int:
    """Runs a command's work; an error that a user can cure is printed, any other is raised.

    Args:
        action: the work.

    Returns:
        0, or 1 after an error.
    """
    try:
        action()
    except KernelLibError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0
