"""Errors for the user: what went wrong, where, and what to do."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from embedline.redaction import without_secrets


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, at most 300 characters; its type where it has no message.

    Enough of another library's error to act on, inside a message of this program; without secrets, before a
    cut can leave half of one.
    """
    lines = without_secrets(str(error)).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def os_reason(error: OSError) -> str:
    """Describe why a file cannot be read or written, in a few words."""
    return (error.strerror or type(error).__name__).lower()


def nearest_folder(path: Path) -> Path:
    """Return a path that exists: this one, or the nearest folder above it."""
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())


class EmbedlineError(Exception):
    """A failure that the user can fix or report.

    Args:
        what: what is wrong, as one sentence.
        where: file, line, config key or address.
        fix: what to do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = map(without_secrets, (what, where, fix))
        super().__init__(self.__str__())

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        return f"{head} {self.fix}".rstrip() if self.fix else head


class InputError(EmbedlineError):
    """Unusable configuration, data or environment: exit code 2."""

    exit_code = 2


class StepError(EmbedlineError):
    """Failure of a step during its work: exit code 1."""


class RefusedError(EmbedlineError):
    """Refusal of a model that did not pass the gate: exit code 3."""

    exit_code = 3


class ConflictError(EmbedlineError):
    """Conflict: the champion is not the expected one, because it was moved meanwhile: exit code 4."""

    exit_code = 4


class Stopped(BaseException):
    """The end by SIGTERM, which is no failure: the next try continues where the work stopped.

    Not an `Exception`, so that no handler takes it for a failure. Exit code 143 (128 + SIGTERM) is not among
    the codes for which a retry is useless.
    """

    exit_code = 143


class DiskFullError(EmbedlineError):
    """No space on a disk: exit code 1. A retry at once would fail again."""


_FULL = {
    errno.ENOSPC: "no space is left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than this process may write (ulimit -f)",
}
# as safetensors and pyarrow report the system's error, and SQLite its own
_FULL_TEXTS = {
    "no space left on device": errno.ENOSPC,
    "database or disk is full": errno.ENOSPC,
    "disk quota exceeded": errno.EDQUOT,
    "file too large": errno.EFBIG,
}


def disk_full(error: BaseException, folder: Path) -> DiskFullError | None:
    """Return the error for a full disk when `error`, or what it came from, is one; else None.

    Args:
        folder: where the program was writing, for an error that names no file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DiskFullError):
            return cause
        number = cause.errno if isinstance(cause, OSError) else None
        if number not in _FULL:
            number = next((code for text, code in _FULL_TEXTS.items() if text in str(cause).lower()), None)
        if number is not None:
            named = getattr(cause, "filename", None)
            return _disk_full(_FULL[number], Path(os.fsdecode(named)) if named else folder)
        cause = cause.__cause__ or cause.__context__
    return None


def _disk_full(what: str, path: Path) -> DiskFullError:
    free_mb = shutil.disk_usage(nearest_folder(path)).free / 1e6
    return DiskFullError(
        f"{what}; {free_mb:,.1f} MB are free.",
        where=str(path),
        fix="Free space (`embedline clean-up` removes old runs), raise the limit, or choose another --work; "
        "`embedline run PRESET --name RUN` resumes a run.",
    )
