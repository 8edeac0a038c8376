"""What a run left behind, looked at as Kaggle does."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kernel_lib.offline.rehearsal.kaggle_run import KaggleRun
from kernel_lib.offline.upload.account import known_secrets
from kernel_lib.runtime.clock import format_seconds

MAX_FILES = 500
MAX_BYTES = 20 * 10**9
SHOWN = 3
LONGEST_MESSAGE = 400
CHUNK_BYTES = 1 << 24


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what must hold.
        detail: what was found instead; empty: it holds.
        cure: what to do about it.
    """

    name: str
    detail: str = ""
    cure: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds."""
        return not self.detail


def check_run(run: KaggleRun, *, limit_seconds: float) -> list[Check]:
    """What every notebook must keep; the first check is that it ran to its end."""
    outcome, files = run.outcome, _plain_files(run.working)
    size = sum(path.stat().st_size for path in files)
    took = format_seconds(outcome.seconds)
    late = f"killed after {took}, the limit is {format_seconds(limit_seconds)}"
    network = _attempts(run, "network")
    unseen = f"{run.unroutable} packets with no way out" if run.unroutable and not network else ""
    return [
        _check_end(run),
        Check(
            "in time",
            late if outcome.timed_out else "",
            "make it faster, or raise the limit if the competition's is longer",
        ),
        Check(
            "no attempt to reach a network",
            shown(network) or unseen,
            "Kaggle has none: read from files among the inputs, and set HF_HUB_OFFLINE=1",
        ),
        Check(
            "nothing written outside of /kaggle/working and temporary folders",
            shown(_attempts(run, "write")),
            "inputs are read-only: write into /kaggle/working, or into /tmp what may be lost",
        ),
        Check(
            f"at most {MAX_FILES} files",
            f"{len(files)}: pack them into one archive" if len(files) > MAX_FILES else "",
        ),
        Check(
            "at most 20 GB",
            f"{size / 1e9:.1f} GB" if size > MAX_BYTES else "",
            "delete what nobody will read, such as optimizer states",
        ),
        Check(
            "no secret in any output",
            _leaks(run, files if size <= MAX_BYTES else []),
            "print or save single variables of the environment, never all of it",
        ),
    ]


def shown(items: Iterable[str]) -> str:
    """The first few of some names, and how many there are more."""
    unique = list(dict.fromkeys(items))
    more = f" and {len(unique) - SHOWN:,} more" if len(unique) > SHOWN else ""
    return ", ".join(unique[:SHOWN]) + more


def _check_end(run: KaggleRun) -> Check:
    """Whether the notebook ran to its end, and else its own words and the cure if one is known."""
    name, outcome = "every cell ran", run.outcome
    if outcome.timed_out or outcome.status == 0:
        return Check(name)
    words = " ".join((run.error or _last_words(run.log)).split())
    for token in run.tokens:
        words = words.replace(token, "***")
    detail = words or f"it stopped without a word, with exit status {outcome.status}"
    for hidden in _attempts(run, "hidden"):
        module, _, distribution = hidden.partition(" ")
        if f"No module named {module!r}" in words:
            return Check(
                name,
                f"{detail}: {distribution} is not on Kaggle's image",
                "carry it as a wheel, or do without; if the image does have it, add its name to "
                "datasets_meta/kaggle-image.txt",
            )
    return Check(name, detail, "the whole log is in log.json, the cells are in executed.ipynb")


def _last_words(log: str) -> str:
    """The end of what was printed by a notebook that left no error."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _attempts(run: KaggleRun, kind: str) -> list[str]:
    return [attempt["what"] for attempt in run.attempts if attempt["kind"] == kind]


def _plain_files(folder: Path) -> list[Path]:
    """Its files, without links, sockets and the like, which nobody can download."""
    return sorted(
        path
        for parent, _, names in os.walk(folder)
        for path in (Path(parent, name) for name in names)
        if stat.S_ISREG(path.lstat().st_mode)
    )


def _leaks(run: KaggleRun, files: list[Path]) -> str:
    """Where a value that must stay secret stands; the value itself is never shown."""
    secrets = [value.encode() for value in {*run.tokens, *known_secrets().values()}]
    log = run.log.encode("utf-8", "replace")
    places = ["the log"] if any(secret in log for secret in secrets) else []
    if run.executed.is_file() and _holds(run.executed, secrets):
        places.append("the executed notebook")
    places += [str(path.relative_to(run.working)) for path in files if _holds(path, secrets)]
    return f"{shown(places)} holds a token from the environment" if places else ""


def _holds(path: Path, secrets: list[bytes]) -> bool:
    """Whether a file, of whatever size, holds one of some values."""
    longest = max(map(len, secrets))
    tail = b""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            part = tail + chunk
            if any(secret in part for secret in secrets):
                return True
            tail = part[-longest:]
    return False
