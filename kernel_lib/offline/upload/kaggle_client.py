"""The official ``kaggle`` command: found, asked, its words read, its credentials never shown.

Its exit status does not tell whether it did what was asked: a file that could not be sent is left
out of the dataset, a source that does not exist is left off the notebook, both with status 0. So
the sentence it ends with when all is well is looked for, and its complaints are failures.
"""

from __future__ import annotations

import base64
import codecs
import csv
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from kernel_lib.errors import KernelLibError
from kernel_lib.offline.upload.account import find_owner, known_secrets

NOT_KAGGLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
PARTIAL = ".kaggle-partial"  # the command's note on a download that has not ended
WORDS_LINES = 8  # how much of what the command said goes into an error

LINE_END = re.compile(r"(?<=\n)|(?<=\r)(?=[^\n])")
LEFT_OUT = re.compile(r"^(?:Upload unsuccessful: |Skipping(?: folder)?: )([^;\n]+)", re.MULTILINE)
DATASET_SENT = re.compile(
    r"^(?:Dataset version|Your private Dataset) is being created", re.MULTILINE
)
KERNEL_SENT = re.compile(r"^Kernel version (\d+) successfully pushed", re.MULTILINE)
REFUSED = re.compile(r"^The following are not valid (?!tags).*$", re.MULTILINE)


class KaggleError(KernelLibError):
    """The kaggle command is missing, not signed in, or did not do what was asked."""


@dataclass(frozen=True)
class Answer:
    """How a run of the command ended, and what it printed, secrets masked."""

    status: int
    text: str

    @property
    def words(self) -> str:
        """The last lines without progress bars, indented, for an error."""
        lines = [line for line in self.text.splitlines() if line.strip() and "%|" not in line]
        return "\n".join(f"    {line}" for line in lines[-WORDS_LINES:]) or "    (nothing)"


def find_command() -> Path | None:
    """The ``kaggle`` command beside this Python, else the one on PATH, else None."""
    beside = shutil.which("kaggle", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("kaggle")
    return Path(found) if found else None


def find_sign_in() -> str | None:
    """Where the command will find its credentials, for a reader; None when there are none."""
    for source in known_secrets():
        half = source == "KAGGLE_KEY" or source.startswith("key of ")  # the other is the name
        if source not in NOT_KAGGLES and (find_owner() or not half):
            return source
    return None


def create_arguments(folder: Path) -> list[str]:
    """What creates a private dataset. Without ``--dir-mode`` its sub-folders would be dropped."""
    return ["datasets", "create", "-p", str(folder), "--dir-mode", "zip"]


def version_arguments(folder: Path, message: str) -> list[str]:
    """What adds a version to a dataset that exists."""
    return ["datasets", "version", "-p", str(folder), "-m", message, "--dir-mode", "zip"]


def push_arguments(folder: Path) -> list[str]:
    """What makes a notebook's next version and starts its run."""
    return ["kernels", "push", "-p", str(folder)]


def status_arguments(ref: str) -> list[str]:
    """What asks whether a dataset is there and unpacked."""
    return ["datasets", "status", ref]


def command_line(arguments: list[str]) -> str:
    """A command line as a user would type it."""
    return shlex.join(["kaggle", *arguments])


class KaggleCommand:
    """The kaggle command at a path; the user's keys and tokens are masked in all it prints."""

    def __init__(self, command: Path) -> None:
        self._command = command
        secrets = set(known_secrets().values())
        # Name and key go over the wire together, so a log of requests holds them in this form.
        pairs = {f"{find_owner()}:{secret}".encode() for secret in secrets}
        secrets |= {base64.b64encode(pair).decode() for pair in pairs}
        self._secrets = sorted(secrets, key=len, reverse=True)  # a secret may begin another

    def username(self) -> str | None:
        """Who is signed in, as the command itself says; None when it does not say.

        Raises:
            KaggleError: the command does not work, or its credentials are not accepted.
        """
        answer = self._run("config", "view", show=False)
        if answer.status:
            raise KaggleError(
                f"{self._command} does not work, or cannot sign in with {find_sign_in()}. "
                f"It says:\n{answer.words}"
            )
        named = re.search(r"^- username: (\S+)$", answer.text, re.MULTILINE)
        return named[1] if named and named[1] != "None" else None

    def find_dataset(self, ref: str) -> str | None:
        """The status of a dataset, such as ``ready``; None when there is no such dataset.

        Kaggle refuses what does not exist and what it cannot look up in similar words, so a refusal
        proves nothing: the list of one's own datasets does.

        Raises:
            KaggleError: neither question was answered.
        """
        status, words = self.status(ref)
        if status:
            return status
        mine, answer = self._table("datasets", "list", "--mine")
        if mine is None:
            raise KaggleError(
                f"cannot tell whether the dataset {ref} exists. kaggle says:\n{words}\n"
                f"and to `kaggle datasets list --mine`:\n{answer.words}"
            )
        return "listed, without a status" if ref in mine else None

    def status(self, ref: str) -> tuple[str | None, str]:
        """A dataset's status if Kaggle tells it, and the command's words."""
        answer = self._run(*status_arguments(ref), show=False)
        told = re.search(r"^([a-z_]+)$\Z", answer.text, re.MULTILINE)
        return told[1] if told and not answer.status else None, answer.words

    def files(self, ref: str) -> list[str]:
        """The paths of the files in a dataset's newest version; none if they cannot be had."""
        return self._table("datasets", "files", ref)[0] or []

    def newest_file(self, ref: str, name: str) -> bytes | None:
        """The content of a small file in a dataset's newest version; None if it cannot be had."""
        with tempfile.TemporaryDirectory() as folder:
            self._run("datasets", "download", ref, "-f", name, "-p", folder, "--quiet", show=False)
            # Its name is the last part of whatever address Kaggle sent the command to.
            found = [path for path in Path(folder).iterdir() if path.suffix != PARTIAL]
            if len(found) != 1:
                return None
            if not zipfile.is_zipfile(found[0]):
                return found[0].read_bytes()
            with zipfile.ZipFile(found[0]) as archive:  # Kaggle packs what it thinks is large
                return archive.read(archive.namelist()[0])

    def send_dataset(self, arguments: list[str]) -> None:
        """Creates a dataset or adds a version to it.

        Args:
            arguments: from :func:`create_arguments` or :func:`version_arguments`.

        Raises:
            KaggleError: refused, or a file was left out.
        """
        answer = self._run(*arguments)
        left_out = [name.strip() for name in LEFT_OUT.findall(answer.text)]
        sent = DATASET_SENT.search(answer.text)
        if left_out:
            made = "made a version without" if sent else "did not send"
            raise KaggleError(f"kaggle {made} {', '.join(left_out)}. It says:\n{answer.words}")
        if answer.status or not sent:
            raise KaggleError(f"`{command_line(arguments)}` failed. kaggle says:\n{answer.words}")

    def push_kernel(self, folder: Path) -> int:
        """Pushes a notebook, which starts its run.

        Returns:
            Its version number.

        Raises:
            KaggleError: refused, or pushed without one of its sources.
        """
        answer = self._run(*push_arguments(folder))
        pushed = KERNEL_SENT.search(answer.text)
        if refused := REFUSED.findall(answer.text):
            version = f"version {pushed[1]}" if pushed else "a version"
            raise KaggleError(
                f"{version} was pushed without some of its sources and will not find them:\n"
                + "\n".join(f"    {line}" for line in refused)
                + "\nDoes each exist, is it yours or public and ready, are the competition's rules "
                f"accepted? They stand in datasets_meta/{folder.name}.kernel.json."
            )
        if answer.status or not pushed:
            raise KaggleError(
                f"`{command_line(push_arguments(folder))}` failed. kaggle says:\n{answer.words}"
            )
        return int(pushed[1])

    def _table(self, *arguments: str) -> tuple[list[str] | None, Answer]:
        """The first column of a listing, all its pages; None and the refusal if there is one."""
        column: list[str] = []
        token = ""
        while True:
            page = ["--page-token", token] if token else []
            answer = self._run(*arguments, "--csv", "--page-size", "100", *page, show=False)
            if answer.status:
                return None, answer
            column += [row[0] for row in csv.reader(answer.text.splitlines()) if row]
            following = re.search(r"^Next Page Token = (\S+)$", answer.text, re.MULTILINE)
            if not following or following[1] == token:
                return column, answer
            token = following[1]

    def _run(self, *arguments: str, show: bool = True) -> Answer:
        if show:
            print(f"  $ {self._masked(command_line(list(arguments)))}", flush=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # its lines come as they are written
        with subprocess.Popen(
            [str(self._command), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        ) as process:
            assert process.stdout is not None
            text = self._relay(process.stdout, show=show)
        return Answer(process.returncode, text)

    def _relay(self, stream: IO[bytes], *, show: bool) -> str:
        """Passes on what comes, secrets masked, line by line: no secret spans two lines."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        lines: list[str] = []
        rest = ""
        while chunk := os.read(stream.fileno(), 65536):
            *ended, rest = LINE_END.split(rest + decoder.decode(chunk))
            for line in map(self._masked, ended):
                if line.endswith("\n"):
                    lines.append(line.rstrip())
                # A line that ends in \r is a progress bar's, drawn over by the next.
                if show and line.strip() and (line.endswith("\n") or sys.stdout.isatty()):
                    print(f"    {line}", end="", flush=True)
        if rest.strip():
            lines.append(self._masked(rest).rstrip())
            if show:
                print(f"    {lines[-1]}", flush=True)
        return "\n".join(lines)

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text
