"""Writes that outlive a power cut: content is on the disk before a name says that it is complete."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

# Some network file systems cannot flush a folder; their files are flushed all the same.
_UNSUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, from memory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (path.is_dir() and error.errno in _UNSUPPORTED):
            raise
    finally:
        os.close(handle)


def flush_tree(folder: Path) -> None:
    """Flush every file and folder below `folder`, then its own list of names."""
    for parent, _, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(parent, name)
            if path.is_file():
                flush(path)
        flush(Path(parent))


def put_in_place(draft: Path, final: Path) -> None:
    """Flush a finished draft (a file, or a folder with its content), rename it, and flush the rename.

    Raises:
        OSError: the disk is full or broken, or `final` is a folder that is not empty.
    """
    if draft.is_dir():
        flush_tree(draft)
    else:
        flush(draft)
    draft.replace(final)
    flush(final.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON to a draft and rename it: a reader never sees half a file, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        put_in_place(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
