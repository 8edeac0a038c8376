"""Sends what ``make dataset`` built to Kaggle: the datasets, then the notebooks that read them.

    python -m kernel_lib.offline.upload.push                              # shows all, sends nothing
    python -m kernel_lib.offline.upload.push --go                         # sends
    python -m kernel_lib.offline.upload.push --only fb3_infer --go        # sends some of it

A pushed notebook begins to run at once. One that reads the output of another waits for its turn:
that output is there when the other's run has ended, which may take hours.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from kernel_lib import __version__
from kernel_lib.errors import DataError
from kernel_lib.offline.upload.account import find_owner
from kernel_lib.offline.upload.kaggle_client import (
    KaggleCommand,
    KaggleError,
    create_arguments,
    find_command,
    find_sign_in,
    version_arguments,
)
from kernel_lib.offline.upload.outgoing import CONTENTS, listed_files, write_contents
from kernel_lib.offline.upload.push_plan import Parcel, Plan, datasets_of, make_plan
from kernel_lib.offline.upload.push_view import how_to_make, show, show_next_steps, turn
from kernel_lib.offline.upload.templates import BUILD
from kernel_lib.runtime.clock import Clock, format_seconds
from kernel_lib.runtime.command import exit_status
from kernel_lib.runtime.progress import progress_bar

MESSAGE = f"kernel_lib {__version__}"
READY = "ready"
FAILED = ("failed", "deleted")  # a dataset in these states will not get ready by waiting
READY_WITHIN_SECONDS = 1800.0
POLL_SECONDS = 5.0
NO_COMMAND = (
    "there is no `kaggle` command beside this Python or on PATH. "
    "pip install -r requirements.txt brings it."
)
NO_CREDENTIALS = (
    "no Kaggle credentials were found. Make a token on www.kaggle.com/settings (under API) and "
    "save it as ~/.kaggle/access_token, or set KAGGLE_API_TOKEN to it."
)


def push(
    build: Path,
    *,
    go: bool = False,
    only: Sequence[str] = (),
    notebooks: Sequence[str] = (),
    message: str = MESSAGE,
    ready_within_seconds: float = READY_WITHIN_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Shows what would be sent; with ``go`` sends it.

    Args:
        build: what ``make dataset`` wrote.
        go: send.
        only: names of folders or slugs; empty: all.
        notebooks: of the notebooks only these; empty: all.
        message: the note of each new version.
        ready_within_seconds: how long Kaggle may take to unpack the datasets.
        poll_seconds: between two looks at a dataset.

    Raises:
        DataError: as for :func:`make_plan`, or metadata with another owner than who is signed in.
        KaggleError: with ``go``: no command, no credentials, a dataset that a notebook reads and
            that is nowhere, or a step that failed.
    """
    build = Path(os.path.relpath(build)) if build.resolve().is_relative_to(Path.cwd()) else build
    plan = make_plan(build, only, notebooks=notebooks)
    command, sign_in = find_command(), find_sign_in()
    missing = [
        text for text, there in ((NO_COMMAND, command), (NO_CREDENTIALS, sign_in)) if not there
    ]
    if not go:
        _refuse_other_owner(plan, find_owner() if sign_in else None)
        show(plan, message)
        print("\nnothing was sent; add GO=1 (or --go) to send it")
        for text in missing:
            print(f"before that: {text}")
        return
    if command is None or missing:
        raise KaggleError(" ".join(missing))
    kaggle = KaggleCommand(command)
    _refuse_other_owner(plan, kaggle.username() or find_owner())
    sending = _Sending(
        plan,
        kaggle,
        message,
        ready_within_seconds=ready_within_seconds,
        poll_seconds=poll_seconds,
    )
    sending.run()


def _refuse_other_owner(plan: Plan, username: str | None) -> None:
    for parcel in [*plan.datasets, *plan.kernels]:
        owner = parcel.ref.split("/")[0]
        if username and owner.lower() != username.lower():
            raise DataError(
                f"{parcel.folder} is made for the Kaggle user {owner!r}, but {username!r} is "
                f"signed in. Build it again with OWNER={username}."
            )


class _Sending:
    """One push with ``go``: what it has sent is told when a later step fails."""

    def __init__(
        self,
        plan: Plan,
        kaggle: KaggleCommand,
        message: str,
        *,
        ready_within_seconds: float,
        poll_seconds: float,
    ) -> None:
        self.plan = plan
        self.kaggle = kaggle
        self.message = message
        self.ready_within_seconds = ready_within_seconds
        self.poll_seconds = poll_seconds
        self.sent: list[str] = []
        self.unpacking: dict[str, bytes | None] = {}

    def run(self) -> None:
        """Sends it all.

        Raises:
            KaggleError: at the first step that fails; says what was sent before.
        """
        step = ""
        versions: dict[str, int] = {}
        kernels = [kernel for kernel in self.plan.kernels if kernel not in self.plan.later]
        try:
            step = "looking for what the notebooks read"
            self._refuse_missing(kernels)
            for dataset in self.plan.datasets:
                step = f"dataset {dataset.ref}"
                print(step, flush=True)
                self._send_dataset(dataset)
            step = "waiting for Kaggle to unpack the datasets"
            self._wait_until_ready(self.unpacking)
            for kernel in kernels:
                step = f"notebook {kernel.ref}"
                print(step, flush=True)
                versions[kernel.ref] = self.kaggle.push_kernel(kernel.folder)
                self.sent.append(kernel.ref)
        except KaggleError as error:
            raise KaggleError(
                f"{step}: {error}\nSent before that: {', '.join(self.sent) or 'nothing'}. Running "
                "the same push again is safe: a dataset that Kaggle has unchanged is not sent "
                "again, a notebook gets one more version and run."
            ) from None
        for kernel in kernels:
            print(f"{kernel.ref} runs as version {versions[kernel.ref]}")
            show_next_steps(kernel, versions[kernel.ref], self.message)
        for kernel in self.plan.later:
            print(f"{kernel.ref} was not pushed: {turn(kernel, self.plan)}")

    def _refuse_missing(self, kernels: Sequence[Parcel]) -> None:
        """Raises KaggleError for a dataset that is neither sent nor there; a notebook pushed
        without it runs, and fails."""
        for kernel in kernels:
            for ref in datasets_of(kernel):
                if ref in self.plan.elsewhere and self.kaggle.find_dataset(ref) is None:
                    folder = self.plan.elsewhere[ref]
                    cure = f"send {folder} too" if folder else how_to_make(ref)
                    raise KaggleError(f"{kernel.ref} reads {ref}, which is not on Kaggle: {cure}.")

    def _send_dataset(self, dataset: Parcel) -> None:
        contents = write_contents(dataset.folder)
        status = self.kaggle.find_dataset(dataset.ref)
        if status not in (None, READY, *FAILED):
            # Kaggle refuses a second version while it unpacks the first.
            self._wait_until_ready({dataset.ref: None})
            status = READY
        if status == READY and self._is_there(dataset.ref, contents):
            print("  Kaggle has the same files already, not sent again", flush=True)
            return
        if status is None:
            self.kaggle.send_dataset(create_arguments(dataset.folder))
        else:
            self.kaggle.send_dataset(version_arguments(dataset.folder, self.message))
        self.sent.append(dataset.ref)
        self.unpacking[dataset.ref] = contents if status else None

    def _is_there(self, ref: str, contents: bytes) -> bool:
        if self.kaggle.newest_file(ref, CONTENTS) != contents:
            return False
        # The list alone is no proof: it may have gone up when another file was left out.
        return listed_files(contents) <= set(self.kaggle.files(ref))

    def _wait_until_ready(self, contents: Mapping[str, bytes | None]) -> None:
        """Waits until Kaggle serves what was sent; a notebook pushed before reads older files.

        Args:
            contents: of each dataset, what its list of contents must be; None: the status will do.
        """
        if not contents:
            return
        clock = Clock(self.ready_within_seconds)
        with progress_bar(len(contents), "unpacked by Kaggle", unit="dataset") as bar:
            for ref, wanted in contents.items():
                while True:
                    status, words = self.kaggle.status(ref)
                    bar.set_postfix_str(f"{ref}: {status or 'not there yet'}")
                    if status in FAILED:
                        raise KaggleError(f"Kaggle could not unpack {ref}: its status is {status}.")
                    if status == READY and self._serves(ref, wanted):
                        break
                    if not clock.allows(self.poll_seconds):
                        raise KaggleError(
                            f"{ref} is not ready after {format_seconds(clock.elapsed_seconds)}; "
                            f"look at www.kaggle.com/datasets/{ref}. kaggle says:\n{words}"
                        )
                    time.sleep(self.poll_seconds)
                bar.update()

    def _serves(self, ref: str, wanted: bytes | None) -> bool:
        if wanted is None:
            return True
        served = self.kaggle.newest_file(ref, CONTENTS)
        if served is not None:
            return served == wanted
        names = self.kaggle.files(ref)
        return not names or CONTENTS in names  # cannot be had: the status is all that is known


def main() -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(description="Send the build to Kaggle; without --go, show it.")
    parser.add_argument("--build", type=Path, default=BUILD, help="what make dataset wrote")
    parser.add_argument("--go", action="store_true", help="send it")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of it only")
    parser.add_argument("--notebooks", nargs="+", default=[], metavar="NAME", help="only these")
    parser.add_argument("--message", default=MESSAGE, help="the note of each new version")
    options = parser.parse_args()
    return exit_status(
        lambda: push(
            options.build,
            go=options.go,
            only=options.only,
            notebooks=options.notebooks,
            message=options.message,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
