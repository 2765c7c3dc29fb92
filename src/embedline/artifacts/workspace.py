"""The folder of `--work`: the places of runs, store, checkpoints and tracking, and the names of runs.

A workspace can be moved, copied and mounted elsewhere: its files refer to one another by paths relative to
its root (`Workspace.reference` and `Workspace.locate`), and so they keep the address of a database in it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from embedline.artifacts.store import Store
from embedline.config.names import MAX_NAME
from embedline.environment import INTERNAL
from embedline.errors import InputError, nearest_folder, os_reason
from embedline.quoting import sqlite_path, sqlite_uri

FORMAT = 2  # of run.json and tracking.json; earlier ones name the place where the workspace was
_INSIDE = "workspace:"  # addresses of databases in the workspace


class Workspace:
    """The folder of `--work`: runs at the top; store, checkpoints and tracking below `.embedline/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.internal = self.root / INTERNAL
        self.store = Store(self.internal / "store")

    @property
    def exists(self) -> bool:
        """Whether anything was run in this folder."""
        return self.internal.is_dir() or any(self.root.glob("*/run.json"))

    def run_folder(self, run: str) -> Path:
        return self.root / run

    def step_folder(self, run: str, step: str) -> Path:
        return self.run_folder(run) / "steps" / step

    def checkpoints(self, step: str, key: str) -> Path:
        """Return the folder of checkpoints, by step and key: a retried pod and a restarted run find them."""
        return self.internal / "checkpoints" / f"{step}-{key}"

    def teacher_vectors(self, digest: str) -> Path:
        """Return the folder of a teacher's vectors, which every training with this teacher shares."""
        return self.internal / "teachers" / digest

    def reference(self, path: Path) -> str:
        """Return a path as files of the workspace keep it: relative to its root when it is inside."""
        absolute = Path(os.path.abspath(path))
        inside = absolute.is_relative_to(self.root)
        return absolute.relative_to(self.root).as_posix() if inside else str(absolute)

    def locate(self, reference: str) -> Path:
        """Return the path that `reference` was made of, in the workspace as it lies now.

        References of earlier releases are absolute. What lies at the same place below this workspace's
        `.embedline/` (named by digests there) is meant, not that of a workspace which this one is a copy of.
        """
        path = self.root / reference
        here = self._in_this(path)
        return here if here.exists() else path

    def locate_output(self, reference: str) -> Path:
        """Return the folder of an output (see `output_reference`), always in this workspace's store."""
        return self._in_this(self.root / reference)

    def _in_this(self, path: Path) -> Path:
        """Return the path at the same place below `.embedline/` of this workspace, if it is below one."""
        return path if path.is_relative_to(self.root) else self.root / output_reference(path)

    def uri_reference(self, uri: str) -> str:
        """Return a tracking address as files of the workspace keep it: relative for a database inside."""
        database = sqlite_path(uri)
        inside = database is not None and database.is_relative_to(self.root)
        return f"{_INSIDE}{self.reference(database)}" if database and inside else uri

    def locate_uri(self, reference: str, written_as: int = FORMAT) -> str:
        """Return the address that `uri_reference` was made of.

        Args:
            written_as: format of the file. Before 2 it named the workspace's database by its place then.
        """
        if reference.startswith(_INSIDE):
            return sqlite_uri(self.root / reference.removeprefix(_INSIDE))
        database = sqlite_path(reference)
        if written_as >= FORMAT or database is None:
            return reference
        return sqlite_uri(self._in_this(database))


def output_reference(path: Path) -> str:
    """Return the path of something below a workspace's `.embedline/`, relative to that workspace."""
    if INTERNAL not in path.parts:
        return str(path)
    start = len(path.parts) - 1 - path.parts[::-1].index(INTERNAL)
    return Path(*path.parts[start:]).as_posix()


def checked_run_name(name: str, *, where: str) -> str:
    """Return `name` when it can be a run's folder and a filter in the tracker.

    Raises:
        InputError: it is a path, hidden, reserved, too long for a folder, or holds a quote or a control
            character.
    """
    plain = name.isprintable() and "'" not in name and Path(name).name == name
    if not name or not plain or name.startswith(".") or name == "latest" or len(name.encode()) > MAX_NAME:
        shown = f"{name[:50]}…" if len(name) > 50 else name
        raise InputError(
            f"{shown!r} is not a name for a run.",
            where=where,
            fix=f"Use letters, digits and dashes, at most {MAX_NAME} bytes.",
        )
    return name


def check_workspace(root: Path, *, create: bool = True) -> None:
    """Create the folder of `--work` where it is missing; without `create`, check that it could be made.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        if create:
            root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=nearest_folder(root)):
            pass
    except OSError as error:
        raise InputError(
            f"the work directory cannot be written to ({os_reason(error)}).",
            where=str(root),
            fix="Choose another with --work, or change its permissions.",
        ) from error
