"""The folder of `--work`: the places of runs, store, checkpoints and tracking, and the names of runs."""

from __future__ import annotations

import tempfile
from pathlib import Path

from embedline.artifacts.store import Store
from embedline.config.names import MAX_NAME
from embedline.errors import InputError

HUB_CACHE = ".embedline/huggingface"  # below the workspace: later pods must find what preflight fetched


class Workspace:
    """The folder of `--work`: runs at the top; store, checkpoints and tracking below `.embedline/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.internal = self.root / ".embedline"
        self.store = Store(self.internal / "store")

    def run_folder(self, run: str) -> Path:
        return self.root / run

    def step_folder(self, run: str, step: str) -> Path:
        return self.run_folder(run) / "steps" / step

    def checkpoints(self, step: str, key: str) -> Path:
        """Return the folder of checkpoints, by step and key: a retried pod and a restarted run find them."""
        return self.internal / "checkpoints" / f"{step}-{key}"


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


def check_workspace(root: Path) -> None:
    """Create the folder of `--work` where it is missing.

    Raises:
        InputError: it cannot be made or written to.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"the work directory cannot be written to ({reason.lower()}).",
            where=str(root),
            fix="Choose another with --work, or change its permissions.",
        ) from error
