"""Start PostgreSQL, an S3 server and MLflow, run a command against them, and take everything down again.

    python infra/services/up.py -- embedline run demo     # ends with the command's exit code
    python infra/services/up.py                           # until Ctrl-C; prints what to export

Everything lives in a temporary folder and is gone afterwards.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from types import FrameType

from stack import Stack

from embedline.errors import EmbedlineError

_GRACE_S = 30


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        _say(__doc__ or "")
        return 0
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with Stack() as stack:
            if command:
                return _run(command, os.environ | stack.environment)
            for key, value in stack.environment.items():
                _say(f"export {key}={shlex.quote(value)}")
            signal.pause()
    except KeyboardInterrupt:
        return 130
    except EmbedlineError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


def _run(command: list[str], environment: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        _say(f"error: {command[0]}: {error.strerror}")
        return 127
    try:
        return process.wait()
    except KeyboardInterrupt:  # at a terminal the command has got its own SIGINT; a kill reaches only us
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
