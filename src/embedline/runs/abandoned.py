"""Runs whose process has ended without closing them: the next command that sees one closes it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from embedline.artifacts.run_folder import RUN, read_run
from embedline.artifacts.run_record import RunError, RunRecord
from embedline.errors import InputError
from embedline.runs.finish import finish
from embedline.runs.process import has_ended

ABANDONED = "The process of the run was killed, or the machine was restarted."
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run for this process; the lock ends with the process.

    Raises:
        InputError: another process holds it.
    """
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            "a run of this name is in progress.",
            where=str(folder),
            fix="Wait for its end, or give another name.",
        ) from error


def close_abandoned(workspace: Path) -> list[str]:
    """Record runs as killed whose process has ended, here and in MLflow; return their names.

    A run that cannot be closed (a read-only folder, a full disk) is left to a later command.
    """
    closed = []
    for file in sorted(workspace.glob(f"*/{RUN}")):
        folder = file.parent
        if folder.is_symlink() or not _may_be_abandoned(read_run(folder)):
            continue
        try:
            with run_lock(folder):  # no living process holds it, nor another command that closes the run
                record = read_run(folder)
                if _may_be_abandoned(record):
                    _close(folder, record)
                    closed.append(folder.name)
        except InputError:
            continue
        except Exception as error:
            _log.warning("%s: the run was abandoned, and its record cannot be closed (%s).", folder, error)
    return closed


def current_record(folder: Path) -> RunRecord:
    """Read a run's record; that of an abandoned run which could not be closed shows it as killed."""
    record = read_run(folder)
    if not _may_be_abandoned(record) or has_ended(record) is None:
        return record
    error = RunError(step=None, message=ABANDONED)
    return record.model_copy(update={"status": "killed", "exit_code": 1, "error": error})


def _may_be_abandoned(record: RunRecord) -> bool:
    return record.status == "running" and record.pid > 0 and has_ended(record) is not False


def _close(folder: Path, record: RunRecord) -> None:
    """Close a run as of its last sign of life: a machine can be off for days."""
    written = [folder / "log.txt", *folder.glob("steps/*/*.json*")]
    finish(
        folder.parent,
        folder.name,
        preset=record.preset,
        killed=True,
        cause=ABANDONED,
        ended=max((file.stat().st_mtime for file in written if file.is_file()), default=record.started),
        latest=False,
    )
