"""Registered form of a model: one folder that every client can load."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedline.registry.files import remove_added_by_loading
from embedline.registry.flavor import add_flavor


@contextmanager
def registered_form(model: Path, onnx: Path | None, scratch: Path) -> Iterator[Path]:
    """Build the folder to register; it is removed when the block ends.

    It holds the model's files, the exported ones in `onnx/` (where sentence-transformers looks for them), and
    the files that MLflow's loaders need.

    Args:
        scratch: a folder on the same file system, where hard links take no space.
    """
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".registered.") as draft:
        folder = Path(draft) / "model"
        shutil.copytree(model, folder, copy_function=_link_or_copy)
        if onnx is not None:
            shutil.copytree(onnx, folder / "onnx", copy_function=_link_or_copy)
        remove_added_by_loading(folder)
        add_flavor(folder)
        yield folder


def _link_or_copy(source: str, target: str) -> None:
    """Make a hard link where possible: MLflow makes the copy that is kept."""
    try:
        os.link(os.path.realpath(source), target)  # files in the hub's cache are symbolic links
    except OSError:
        shutil.copy2(source, target)
