"""What the workers of ``test_crew`` do. They import it, and with it nothing heavy."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.errors import DataError
from kernel_lib.runtime.progress import progress_bar
from kernel_lib.runtime.worker import Station


@dataclass(frozen=True)
class Job:
    """Something to be done.

    Attributes:
        name: what lines call it.
        does: the name of one of the functions below.
        value: for it.
    """

    name: str
    does: str = "tell"
    value: Any = None

    def __str__(self) -> str:
        return self.name


@dataclass
class Work:
    """Does jobs; counts how many it has done in this process."""

    done: list[str] = field(default_factory=list)

    def __call__(self, job: Job, station: Station) -> Any:
        self.done.append(job.name)
        if job.does == "tell":
            return {"pid": os.getpid(), "place": station.place, "done": list(self.done)}
        return globals()[job.does](job, station)


def talk(job: Job, station: Station) -> None:
    """Says things in every way there is."""
    print("a line\nand another")
    print(f"{job} has its name already")
    sys.stderr.write("half of a line, ")
    sys.stderr.write("and the rest\n")
    sys.stderr.write("0%\r50%\r100%\n")
    warnings.warn("look here", stacklevel=1)
    station.note({"score": 0.5})
    with progress_bar(4, f"{job}", done=1) as bar:
        bar.set_postfix_str("loss 0.1", refresh=False)
        bar.update(3)
        bar.write("a line of the bar")
    sys.stdout.write("no end")


def clock(job: Job, station: Station) -> tuple[float, float, int]:
    return station.clock.budget_seconds, station.clock.elapsed_seconds, station.clock.shared_by


def refuse(job: Job, station: Station) -> None:
    raise DataError("train.csv\nis gone")


def refuse_later(job: Job, station: Station) -> None:
    """As soon as something is in the folder ``value``."""
    while not list(Path(job.value).iterdir()):
        time.sleep(0.01)
    refuse(job, station)


def fail(job: Job, station: Station) -> None:
    raise ValueError(f"{job} cannot be done")


def end_too_early(job: Job, station: Station) -> None:
    raise EOFError("the file is cut short")


def leave(job: Job, station: Station) -> None:
    sys.exit("enough")


def die(job: Job, station: Station) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_interrupted(job: Job, station: Station) -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "went on"


def vanish(job: Job, station: Station) -> None:
    os._exit(3)


def die_once(job: Job, station: Station) -> str:
    """Dies, unless the file ``value`` is there."""
    path = Path(job.value)
    if not path.exists():
        path.touch()
        die(job, station)
    return "done at last"


def sleep(job: Job, station: Station) -> int:
    """Writes its process into the folder ``value``, if there is one, and does nothing for long."""
    if job.value:
        Path(job.value, f"{os.getpid()}.pid").touch()
    time.sleep(600)
    return os.getpid()


def wait_for(job: Job, station: Station) -> int:
    """Until a file is there."""
    while not Path(job.value).exists():
        time.sleep(0.01)
    return os.getpid()


def never_end(job: Job, station: Station) -> int:
    """Leaves a thread behind that does not let the process end."""
    threading.Thread(target=time.sleep, args=(600,)).start()
    return os.getpid()


def _refuse_to_arrive() -> None:
    raise OSError("no such GPU")


class BadPlace:
    """Cannot be made in another process."""

    def __reduce__(self) -> Any:
        return _refuse_to_arrive, ()

    def __str__(self) -> str:
        return "a bad place"
