"""Start PostgreSQL, an S3 server and MLflow, run a command against them, and take everything down again.

    python infra/services/up.py -- embedline run demo     # ends with the command's exit code
    python infra/services/up.py                           # until Ctrl-C; prints the variables to export

All files are in a temporary folder that is removed afterwards.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from types import FrameType

import typer
from stack import Stack

from embedline.errors import EmbedlineError

_GRACE_S = 30


def main(arguments: list[str]) -> int:
    """Run a command against the services, or keep them running until Ctrl-C; return the exit code."""
    if arguments[:1] in (["-h"], ["--help"]):
        typer.echo(__doc__ or "", err=True)
        return 0
    command = arguments[1:] if arguments[:1] == ["--"] else arguments
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with Stack() as stack:
            if command:
                return _run(command, os.environ | stack.environment)
            for key, value in stack.environment.items():
                typer.echo(f"export {key}={shlex.quote(value)}", err=True)
            signal.pause()
    except KeyboardInterrupt:
        return 130
    except EmbedlineError as error:
        typer.echo(f"error: {error}", err=True)
        return error.exit_code
    return 0


def _run(command: list[str], environment: dict[str, str]) -> int:
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        typer.echo(f"error: {command[0]}: {error.strerror}", err=True)
        return 127
    try:
        return process.wait()
    except KeyboardInterrupt:  # Ctrl-C reaches the command too, `kill` only this process
        process.terminate()
        try:
            process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
