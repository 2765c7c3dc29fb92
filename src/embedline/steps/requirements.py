"""What the machine must have before anything is spent: a writable workspace, disk, memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from embedline.errors import InputError

_MAX_NAME = 200  # bytes of a run's name; a folder has room for 255
MIN_FREE_GB = 2.0
MIN_MEMORY_GB = 1.5


def checked_run_name(name: str, *, where: str) -> str:
    """`name`, when it can be a run's folder and be searched for in the tracker.

    Raises:
        InputError: it is a path, hidden, taken by us, too long for a folder, or holds a quote or a control
            character.
    """
    plain = name.isprintable() and "'" not in name and Path(name).name == name
    if not name or not plain or name.startswith(".") or name == "latest" or len(name.encode()) > _MAX_NAME:
        shown = f"{name[:50]}…" if len(name) > 50 else name
        raise InputError(
            f"{shown!r} is not a name for a run.", where=where, fix="Use letters, digits and dashes."
        )
    return name


def check_workspace(root: Path) -> None:
    """Raises InputError when the folder cannot be made or written to."""
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


def check_disk(root: Path, data_bytes: int = 0) -> float:
    """Free GB; refused below a floor and what a run over `data_bytes` of text is likely to write."""
    free = shutil.disk_usage(root).free / 1e9
    needed = MIN_FREE_GB + 4 * data_bytes / 1e9
    if free < needed:
        raise InputError(
            f"only {free:.1f} GB are free, a run needs about {needed:.1f} GB.",
            where=str(root),
            fix="Free some space or choose another --work.",
        )
    return free


def check_memory() -> float:
    """Available GB; refused when a step could not even load its libraries."""
    from embedline.models.memory import available_bytes

    available = available_bytes() / 1e9
    if available < MIN_MEMORY_GB:
        raise InputError(
            f"only {available:.1f} GB of memory are available, a run needs {MIN_MEMORY_GB:.1f} GB.",
            where=os.uname().nodename,
            fix="Close other programs or use a larger machine.",
        )
    return available
