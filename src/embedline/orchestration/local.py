"""Run the line on this machine: start the driver, watch the records, close what others left open."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from embedline.artifacts.record import StepRecord, read_records
from embedline.artifacts.run_folder import RUN, read_run
from embedline.artifacts.workspace import check_workspace
from embedline.dag import STEPS
from embedline.errors import InputError, Stopped
from embedline.orchestration.compile import one_line
from embedline.orchestration.containers import Containers, ExitWatch, hand_over, stop_containers
from embedline.orchestration.line import CONTAINERS
from embedline.runs import record as runrecord

LOG = "log.txt"
_POLL_S = 0.1
_GRACE_S = 30.0  # for a training's checkpoint
_DIED = "The process that drives the steps died; the log may say why."


class Watcher(Protocol):
    """Sees the steps' records while they change."""

    def __call__(self, run_folder: Path, records: Sequence[StepRecord]) -> None: ...


def new_run(workspace: Path, name: str) -> str:
    """`<name>-<time>`, a folder that did not exist before."""
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
) -> dict[str, Any]:
    """Run a preset through the whole DAG and return its run.json.

    The steps are processes, or containers when `containers` says how. Their output goes to `<run>/log.txt`.
    Ctrl-C and SIGTERM end the run and every process and container of it.

    Raises:
        InputError: a run of that name is going on.
    """
    workspace = workspace.resolve()
    folder = workspace / run
    with alone(folder):
        return _run(preset, overrides, workspace, folder, watch, containers)


def _run(
    preset: str,
    overrides: Sequence[str],
    workspace: Path,
    folder: Path,
    watch: Watcher,
    containers: Containers | None,
) -> dict[str, Any]:
    run = folder.name
    close_abandoned(workspace)
    runrecord.begin_run(folder, run=run, preset=preset, pid=os.getpid())
    command = [sys.executable, "-m", "embedline.orchestration.line"]
    command += [preset, one_line(overrides), str(workspace), run]
    environment = _environment()
    if containers is not None:
        environment[CONTAINERS] = json.dumps(containers.arguments(folder))
        hand_over(folder, containers.user)
    killed = 0
    exits = ExitWatch(folder)
    watched = exits.watching() if containers is not None else contextlib.nullcontext()
    with (folder / LOG).open("ab") as log, _terminable(), watched:
        driver = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
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
    if record.get("status") in {None, "running"}:  # the exit handler had no chance
        record = _close(workspace, run, preset, killed)
    elif containers is not None and not record["error"] and (complaint := exits.complaint(len(STEPS) + 2)):
        record = _close(workspace, run, preset, message=complaint)
    watch(folder, read_records(folder))
    return record


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time works on a run; the lock goes with the process, however it ends."""
    from filelock import FileLock, Timeout

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
    """Runs that say they are running although their process is gone are marked as killed."""
    closed = []
    for file in sorted(workspace.glob(f"*/{RUN}")):
        folder = file.parent
        if folder.is_symlink() or not runrecord.is_abandoned(read_run(folder)):
            continue
        preset = read_run(folder).get("preset", "")
        _close(workspace, folder.name, preset, killed=1, latest=False)
        closed.append(folder.name)
    return closed


def _close(
    workspace: Path, run: str, preset: str, killed: int = 0, latest: bool = True, message: str = _DIED
) -> dict[str, Any]:
    """Write the record of a run whose exit handler had no chance; `killed`: the exit code of who ended it."""
    from embedline.runs.finish import finish

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
    """Nothing of the group outlives the run: neither the driver nor a step that it left behind.

    A training that is told to stop has time for its checkpoint; whoever asks twice does not wait for it.
    """
    _tell(driver, signal.SIGTERM)
    deadline = time.monotonic() + _GRACE_S
    with contextlib.suppress(KeyboardInterrupt, Stopped):
        while _tell(driver, 0) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
    _tell(driver, signal.SIGKILL)
    driver.wait()


def _tell(driver: subprocess.Popen[bytes], sent: int) -> bool:
    """Send a signal to the driver's group (0: none); False when nothing is left of it."""
    driver.poll()  # a process that ended stays in its group until it is waited for
    try:
        os.killpg(driver.pid, sent)
    except (ProcessLookupError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a run like Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise Stopped("stopped by SIGTERM.")

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: the caller's own handling stands
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _environment() -> dict[str, str]:
    ours = {
        "PYTHONUNBUFFERED": "1",
        "DAFT_ANALYTICS_ENABLED": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",
    }
    return {**ours, **os.environ}
