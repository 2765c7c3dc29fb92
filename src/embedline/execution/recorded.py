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
from embedline.errors import EmbedlineError, InputError, StepError, Stopped, without_passwords

# Errors that return at every retry; only a lost process or network is tried again.
_FINAL = (
    InputError,
    StepError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    LookupError,
    AssertionError,
    UnicodeError,
)


@contextmanager
def recorded(folder: Path, record: StepRecord) -> Iterator[None]:
    """Write the record as running, then as done, failed or killed, with reason, time and peak memory."""
    started = time.monotonic()
    record.pid = os.getpid()
    write_record(folder, record)
    try:
        with _sigterm_raises():
            yield
        record.status = "done"
    except BaseException as error:
        record.status = "failed" if isinstance(error, Exception) else "killed"
        record.error = _message(error)
        record.exit_code = error.exit_code if isinstance(error, EmbedlineError | Stopped) else 1
        record.final = isinstance(error, _FINAL)
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
    return without_passwords(f"{type(error).__name__}: {error}".removesuffix(": "))
