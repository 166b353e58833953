"""What can go wrong, as exceptions whose message says what is wrong, with which file, and what to do.

The library raises these and nothing else on bad input; the command line turns them into one line and an exit code.
"""

from __future__ import annotations


class OldphotoError(Exception):
    """Any failure that is not a bug in oldphoto."""


class UsageError(OldphotoError):
    """The request itself is wrong (missing input, output inside the input, unknown device): nothing is touched."""


class CheckpointError(UsageError):
    """Weights are missing, altered, or of another shape than their manifest says."""


class PhotoError(OldphotoError):
    """One photo can not be read, restored or written: it fails, the others go on."""


class WorkerError(OldphotoError):
    """A job failed in another process: its reason in one line, and the traceback that was seen there."""

    def __init__(self, reason: str, traceback: str = "") -> None:
        super().__init__(reason, traceback)  # both, so that it can be pickled
        self.traceback = traceback

    def __str__(self) -> str:
        """Return the reason."""
        return str(self.args[0])
