"""Runs of the line on this machine: start the driver, watch the records, close abandoned runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from filelock import FileLock, Timeout

from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.run_folder import RUN, read_run
from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import check_workspace
from embedline.config.limits import check_run_inputs
from embedline.dag import STEPS
from embedline.errors import InputError, Stopped
from embedline.orchestration.compile import one_line
from embedline.orchestration.containers import Containers, ExitWatch, give_to_user, stop_containers
from embedline.runs import record as runrecord
from embedline.runs.finish import finish

LOG = "log.txt"
_POLL_S = 0.1
_GRACE_S = 30.0  # for a training's checkpoint
_DIED = "The process that drives the steps died; the log may say why."


class Watcher(Protocol):
    """Callback that receives the steps' records while a run goes on."""

    def __call__(self, run_folder: Path, records: Sequence[StepRecord]) -> None: ...


def new_run(workspace: Path, name: str) -> str:
    """Create the folder `<name>-<time>` and return its name, with a number if it exists already."""
    check_workspace(workspace)
    base = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1, 1000):
        run = base if number == 1 else f"{base}-{number}"
        with contextlib.suppress(FileExistsError):
            (workspace / run).mkdir()
            return run
    raise RuntimeError(f"{workspace} holds a thousand runs of this second")


def run_here(
    preset: str,
    overrides: Sequence[str],
    workspace: Path,
    run: str,
    watch: Watcher,
    containers: Containers | None = None,
) -> RunRecord:
    """Run a preset through the whole DAG and return its record.

    Ctrl-C and SIGTERM end the run with all its processes and containers. The steps' output goes to
    `<run>/log.txt`.

    Args:
        containers: settings of the steps' containers; without them the steps are processes.

    Raises:
        InputError: a run of that name is going on, or the overrides are too long for kfp.
    """
    check_run_inputs(preset, overrides)
    workspace = workspace.resolve()
    folder = workspace / run
    with run_lock(folder):
        return _run(preset, overrides, workspace, folder, watch, containers)


def _run(
    preset: str,
    overrides: Sequence[str],
    workspace: Path,
    folder: Path,
    watch: Watcher,
    containers: Containers | None,
) -> RunRecord:
    run = folder.name
    close_abandoned(workspace)
    runrecord.begin_run(folder, run=run, preset=preset, pid=os.getpid())
    command = [sys.executable, "-m", "embedline.orchestration.driver"]
    command += [preset, one_line(overrides), str(workspace), run]
    given = ""
    if containers is not None:
        given = json.dumps(containers.arguments(folder))
        give_to_user(folder, containers.user)
    killed = 0
    exits = ExitWatch(folder)
    watched = exits.watching() if containers is not None else contextlib.nullcontext()
    with (folder / LOG).open("ab") as log, _stdin(given) as stdin, _terminable(), watched:
        driver = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=_environment(),
        )
        try:
            while driver.poll() is None:
                watch(folder, read_records(folder))
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            killed = 130
        except Stopped as stopped:
            killed = stopped.exit_code
        finally:
            _end(driver)
            if containers is not None:
                stop_containers(folder)
    record = read_run(folder)
    if record.status in {"", "running"}:  # the exit handler did not run
        record = _close(workspace, run, preset, killed)
    elif containers is not None and not record.error and (message := exits.mismatch(len(STEPS) + 2)):
        record = _close(workspace, run, preset, message=message)
    watch(folder, read_records(folder))
    return record


@contextlib.contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Lock a run for this process; the lock ends with the process."""
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
    """Record runs as killed whose status is running although their process has ended; return their names."""
    closed = []
    for file in sorted(workspace.glob(f"*/{RUN}")):
        folder = file.parent
        if folder.is_symlink() or not runrecord.is_abandoned(read_run(folder)):
            continue
        preset = read_run(folder).preset
        _close(workspace, folder.name, preset, killed=1, latest=False)
        closed.append(folder.name)
    return closed


def _close(
    workspace: Path, run: str, preset: str, killed: int = 0, latest: bool = True, message: str = _DIED
) -> RunRecord:
    """Write the record of a run whose exit handler did not run.

    Args:
        killed: exit code for the signal that ended the run; 0 when none did.
    """
    return finish(
        workspace,
        run,
        preset=preset,
        failed=True,
        killed=bool(killed),
        exit_code=killed,
        message=message,
        latest=latest,
    )


def _end(driver: subprocess.Popen[bytes]) -> None:
    """End the driver's process group: the driver and any step that still runs.

    A training has time to write its checkpoint; a second Ctrl-C or SIGTERM ends the wait.
    """
    _signal_group(driver, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    with contextlib.suppress(KeyboardInterrupt, Stopped):
        while _signal_group(driver, 0) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    _signal_group(driver, signal.SIGKILL)
    driver.wait()


def _signal_group(driver: subprocess.Popen[bytes], sent: int) -> bool:
    """Send a signal to the driver's group (0: only check it); return False when the group has ended."""
    driver.poll()  # a process that ended stays in its group until it is waited for
    try:
        os.killpg(driver.pid, sent)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Raise Stopped on SIGTERM while the block runs, so that it ends a run like Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise Stopped("stopped by SIGTERM.")

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller's own handler is kept
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _stdin(text: str) -> Iterator[IO[bytes]]:
    """Open `text` as the standard input of a process."""
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.seek(0)
        yield file


def _environment() -> dict[str, str]:
    """Return this process's environment with defaults that keep the steps' output plain."""
    defaults = {
        "PYTHONUNBUFFERED": "1",
        "DAFT_ANALYTICS_ENABLED": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    return {**defaults, **os.environ}
