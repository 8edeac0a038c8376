"""The few exceptions a user can meet.

Every message says what was found, where, and the cure. In a notebook an error of this kind shows
as that message and the line that raised it, without the frames in between.
"""

from __future__ import annotations

import traceback


class KernelLibError(Exception):
    """Base of all errors that a user can cause and cure."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints instead of a traceback: the message, and where it was raised."""
        frames = traceback.extract_tb(self.__traceback__)
        origin = f"  raised in {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return [f"{type(self).__name__}: {self}", origin]


class SettingsError(KernelLibError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class DataError(KernelLibError):
    """A data file is missing, unreadable, or holds something that cannot be trained on."""


class BackboneError(KernelLibError):
    """A backbone folder is missing, incomplete, or not of a kind the kit can load."""


class ArtifactError(KernelLibError):
    """A run folder or weight file is missing, damaged, or of another run."""


class TrainingError(KernelLibError):
    """Training or predicting cannot go on: numbers not finite, memory full, nothing to train."""


class SubmissionError(KernelLibError):
    """A submission does not have the ids, columns or values that the sample asks for."""
