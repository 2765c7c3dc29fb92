"""The messages of a step's process: its log, and one plain message instead of a traceback."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from embedline.errors import EmbedlineError, Stopped
from embedline.redaction import protect_process


def log_to_stderr() -> None:
    """Write the package's log, from level INFO on, to standard error, one plain line a message."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("embedline").setLevel(logging.INFO)


@contextmanager
def plain_failure() -> Iterator[None]:
    """End the process with one message and the error's exit code, without a traceback and without secrets.

    SIGTERM ends it with 143, which is retried.
    """
    protect_process()
    try:
        yield
    except Stopped as stopped:
        sys.stderr.write(f"stopped: {stopped}\n")
        sys.exit(stopped.exit_code)
    except EmbedlineError as error:
        if os.environ.get("EMBEDLINE_DEBUG"):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
