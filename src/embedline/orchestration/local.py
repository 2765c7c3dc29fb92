"""Runs of the line on this machine: start the driver, watch the records, close the run."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.run_folder import read_run
from embedline.artifacts.run_record import RunRecord
from embedline.artifacts.workspace import check_workspace
from embedline.config.limits import check_run_inputs
from embedline.dag import STEPS
from embedline.environment import keep_caches_in
from embedline.errors import Stopped, disk_full
from embedline.orchestration.compile import one_line
from embedline.orchestration.containers import Containers, ExitWatch, give_to_user, stop_containers
from embedline.runs import record as runrecord
from embedline.runs.abandoned import close_abandoned, run_lock
from embedline.runs.finish import finish

LOG = "log.txt"
_POLL_S = 0.1
_GRACE_S = 30.0  # for a training's checkpoint
_PROBE_BYTES = 65_536
_log = logging.getLogger(__name__)


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
    keep_caches_in(workspace)
    given = ""
    if containers is not None:
        given = json.dumps(containers.arguments(folder))
        give_to_user(folder, containers.user)
    killed, show = 0, _harmless(watch)
    exits = ExitWatch(folder)
    watched = exits.watching() if containers is not None else contextlib.nullcontext()
    with (folder / LOG).open("ab", buffering=0) as log, _stdin(given) as stdin, _terminable(), watched:
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
                show(folder, read_records(folder))
                time.sleep(_POLL_S)
        except KeyboardInterrupt:
            killed = 130
        except Stopped as stopped:
            killed = stopped.exit_code
        finally:
            _end(driver)
            if containers is not None:
                stop_containers(folder)
        full = "" if killed or driver.returncode == 0 else _full_disk(folder, log)
    record = read_run(folder)
    if full or record.status in {"", "running"}:  # the exit handler did not run, or could not know the reason
        record = _close(workspace, run, preset, killed, _death(driver.returncode), full)
    elif containers is not None and not record.error and (message := exits.mismatch(len(STEPS) + 2)):
        record = _close(workspace, run, preset, message=message)
    show(folder, read_records(folder))
    return record


def _harmless(watch: Watcher) -> Watcher:
    """Return a watcher that does nothing after an error: the run does not depend on its display."""
    failed = False

    def show(run_folder: Path, records: Sequence[StepRecord]) -> None:
        nonlocal failed
        if failed:
            return
        try:
            watch(run_folder, records)
        except Exception:
            failed = True
            _log.exception("the display of the run failed; the run continues")

    return show


def _full_disk(folder: Path, log: IO[bytes]) -> str:
    """Return the message of a full disk when neither the log nor its folder can be written to; else none."""
    try:
        log.write(b"\n")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return str(disk_full(error, folder / LOG) or "")
    return ""


def _death(code: int) -> str:
    """Return how the driver ended."""
    if code >= 0:
        return "The process that drives the steps died; the log may say why."
    return f"The process that drives the steps was ended by {signal.Signals(-code).name}."


def _close(
    workspace: Path, run: str, preset: str, killed: int = 0, message: str = "", cause: str = ""
) -> RunRecord:
    """Write the record of a run whose exit handler did not run.

    Args:
        killed: exit code for the signal that ended the run; 0 when none did.
        message: the reason when no step has one; `cause`: the reason whatever the steps recorded.
    """
    return finish(
        workspace,
        run,
        preset=preset,
        failed=True,
        killed=bool(killed),
        exit_code=killed,
        message="" if killed else message,
        cause=cause,
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
    """Return this process's environment with defaults that keep the steps' output plain.

    The log is UTF-8, whatever the terminal's encoding is.
    """
    defaults = {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    encoding = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:backslashreplace"}
    return {**defaults, **os.environ, **encoding}
