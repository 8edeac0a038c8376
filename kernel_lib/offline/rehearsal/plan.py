"""What is rehearsed, with what, and what is known of it afterwards."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernel_lib.errors import KernelLibError
from kernel_lib.offline.rehearsal.checks import Check
from kernel_lib.offline.rehearsal.sandbox import best_isolation
from kernel_lib.offline.upload.kernel_rules import METADATA
from kernel_lib.runtime.files import read_json

BOTH = "both"


@dataclass(frozen=True)
class Kernel:
    """A notebook to rehearse.

    Attributes:
        folder: what will be pushed: ``kernel-metadata.json`` and the ``.ipynb`` it names.
        predicts: whether it hands in a submission; a training notebook does not.
    """

    folder: Path
    predicts: bool

    @functools.cached_property
    def metadata(self) -> dict[str, Any]:
        """What the push would say of it."""
        values: dict[str, Any] = read_json(self.folder / METADATA)
        return values

    @property
    def notebook(self) -> Path:
        """The file that would run."""
        return self.folder / str(self.metadata.get("code_file"))

    @property
    def slug(self) -> str:
        """The last part of its id: what its output is attached as."""
        return str(self.metadata["id"]).rpartition("/")[2]

    @property
    def title(self) -> str:
        """For the reader: the slug, or the folder's name where the metadata are too broken."""
        with contextlib.suppress(KernelLibError, KeyError, TypeError):
            return self.slug
        return self.folder.name


@dataclass(frozen=True)
class Plan:
    """What to rehearse with.

    Attributes:
        data: the folder of the competition, or of the dataset that holds the data.
        backbone: stands in for a dataset or model that was not built here.
        datasets: the built datasets.
        folder: gets everything that the runs leave.
        settings: JSON that changes the training notebook's settings.
        layout: ``nested``, ``flat``, or ``both``: training nested, the public test flat, the
            hidden one nested.
        limit_seconds: Kaggle's.
        hidden_rows: of the real hidden test, for the projection.
        isolation: empty: the best there is.
        attached: further folders that predicting notebooks see as datasets: finished runs, the
            weights of a blend, encoders.
        whole_test: a third run of predicting notebooks, on the data's own test file, all of it.
    """

    data: Path
    backbone: Path | None
    datasets: Path
    folder: Path
    settings: str = ""
    layout: str = BOTH
    limit_seconds: float = 9 * 3600.0
    hidden_rows: int = 2_700
    isolation: str = field(default_factory=best_isolation)
    attached: tuple[Path, ...] = ()
    whole_test: bool = False


@dataclass(frozen=True)
class Pass:
    """One run of one notebook.

    Attributes:
        title: for the verdict.
        seconds: wall clock.
        rows: of the test it predicted; 0: it did not predict.
        checks: what was looked at.
    """

    title: str
    seconds: float
    rows: int
    checks: list[Check]

    @property
    def problems(self) -> list[Check]:
        """What does not hold."""
        return [check for check in self.checks if not check.passed]
