"""The work folder of a command: its runs, its tracking database, and what a command says without one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedline.artifacts.workspace import Workspace
from embedline.config.registry import TrackingConfig
from embedline.errors import InputError, nearest_folder
from embedline.quoting import command_line
from embedline.registry.server import exists, prepare
from embedline.registry.tracking_target import tracking_target
from embedline.runs.abandoned import close_abandoned


def run_folder(run: Path, work: Path) -> Path:
    """Find the folder of a run, given by its path or by its name in the work folder.

    Abandoned runs of the folder are closed.

    Raises:
        InputError: there is no such run.
    """
    for folder in (run, work / run):
        if (folder / "plan.json").is_file() or (folder / "run.json").is_file():
            found = folder.resolve()
            close_abandoned(found.parent)
            return found
    if not Workspace(work).exists:
        raise no_workspace(work)
    raise InputError(
        "no such run.",
        where=str(run),
        fix=f"`{command_line('embedline', 'status', '--work', work)}` lists them.",
    )


def tracking_uri(uri: str, work: Path) -> str:
    """Find the tracking address that a command uses, check that it answers, and close abandoned runs.

    Raises:
        InputError: there is no workspace or no such database, or the tracking server does not answer.
    """
    workspace = Workspace(work)
    address = tracking_target(TrackingConfig(uri=uri), workspace).uri
    if not exists(address):
        if uri or workspace.exists:
            raise InputError("there is no such tracking database.", where=address)
        raise no_workspace(work)
    prepare(address, may_write=False)
    close_abandoned(work)
    return address


def no_workspace(work: Path) -> InputError:
    """Return the error for a folder in which nothing was run; a command that reads creates nothing there."""
    what = "there is no workspace: nothing was run here." if work.is_dir() else "no such work folder."
    return InputError(what, where=str(work), fix="Give the --work of your runs.")


@contextmanager
def work_or_scratch(work: Path) -> Iterator[Path]:
    """Yield the work folder; a temporary one where nothing was run yet, for commands that only read.

    It lies on the disk of the work folder, if that can be written to.
    """
    if Workspace(work).exists:
        yield work
        return
    near = nearest_folder(work)
    writable = near.is_dir() and os.access(near, os.W_OK)
    with tempfile.TemporaryDirectory(prefix=".embedline-", dir=near if writable else None) as scratch:
        yield Path(scratch)
