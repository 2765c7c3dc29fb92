"""The record of a step, kept up to date during its work, also when the step fails or is stopped."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedline.artifacts.record import StepRecord, write_record
from embedline.artifacts.run_folder import release_space
from embedline.errors import DiskFullError, EmbedlineError, InputError, StepError, Stopped, disk_full
from embedline.redaction import without_secrets

# Errors that return at every retry; only a lost process or network is tried again.
_FINAL = (
    InputError,
    StepError,
    DiskFullError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    LookupError,
    AssertionError,
    UnicodeError,
)


@contextmanager
def recorded(folder: Path, record: StepRecord, run_folder: Path) -> Iterator[None]:
    """Write the record as running, then as done, failed or killed, with reason, time and peak memory.

    Args:
        folder: of the record.
        run_folder: has the space that is reserved for the last records.

    Raises:
        DiskFullError: the disk is full, whatever library reported it.
    """
    started = time.monotonic()
    record.pid = os.getpid()
    write_record(folder, record)
    try:
        with _sigterm_raises():
            yield
        record.status = "done"
    except BaseException as raised:
        full = disk_full(raised, folder)
        error = full or raised
        if full is not None:
            release_space(run_folder)
        record.status = "failed" if isinstance(error, Exception) else "killed"
        record.error = _message(error)
        record.exit_code = error.exit_code if isinstance(error, EmbedlineError | Stopped) else 1
        record.final = isinstance(error, _FINAL)
        if full is not None:
            raise full from raised
        raise
    finally:
        record.seconds = round(time.monotonic() - started, 2)
        peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
        record.peak_memory_mb = max(record.peak_memory_mb, peak_mb)
        write_record(folder, record)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Raise `Stopped` on SIGTERM. A training replaces this handler: it saves a checkpoint first."""

    def stop(*_: Any) -> None:
        raise Stopped("stopped by SIGTERM.")

    if threading.current_thread() is not threading.main_thread():  # handlers belong to the main thread
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _message(error: BaseException) -> str:
    """Return one message; an error that is not ours is preceded by its type."""
    if isinstance(error, EmbedlineError | Stopped):
        return str(error)
    return without_secrets(f"{type(error).__name__}: {error}".removesuffix(": "))
