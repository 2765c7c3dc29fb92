"""Daft, imported on first use, without progress bars and analytics."""

from __future__ import annotations

import os
from typing import Any


def daft() -> Any:
    """Return the data engine: embedded in this process unless the caller has set a Ray runner."""
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")
    import daft as engine

    return engine
