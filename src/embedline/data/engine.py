"""Daft, imported on first use, without progress bars, in the memory of the container."""

from __future__ import annotations

import os
from typing import Any

from embedline.resources import memory_limit


def daft() -> Any:
    """Return the data engine: embedded in this process unless the caller has set a Ray runner."""
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    if limit := memory_limit():  # Daft counts the processors of the container, but the memory of the machine
        os.environ.setdefault("DAFT_MEMORY_LIMIT", str(int(limit.value)))
    import daft as engine

    return engine
