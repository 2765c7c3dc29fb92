"""The form in which a model goes to the registry: one folder that serves every client."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def registered_form(model: Path, onnx: Path | None, scratch: Path) -> Iterator[Path]:
    """The model's folder with the exported one in `onnx/`, where sentence-transformers looks for it, and with
    the files by which MLflow's loaders know it. It is gone when the block ends.

    Args:
        scratch: a folder of the same file system, where links take no room.
    """
    from embedline.registry.flavor import add_flavor

    with tempfile.TemporaryDirectory(dir=scratch, prefix=".registered.") as draft:
        folder = Path(draft) / "model"
        shutil.copytree(model, folder, copy_function=_link_or_copy)
        if onnx is not None:
            shutil.copytree(onnx, folder / "onnx", copy_function=_link_or_copy)
        add_flavor(folder)
        yield folder


def _link_or_copy(source: str, target: str) -> None:
    """A hard link costs nothing; MLflow makes the copy that stays."""
    try:
        os.link(os.path.realpath(source), target)  # files of the hub's cache are symbolic links
    except OSError:
        shutil.copy2(source, target)
