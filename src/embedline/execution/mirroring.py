"""Replay of a run's spools to the tracking server while a step works, so that its curves are live."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from embedline.artifacts.workspace import Workspace

INTERVAL_S = float(os.environ.get("EMBEDLINE_MIRROR_EVERY_S", "20"))


@contextmanager
def mirrored(workspace: Workspace, run: str) -> Iterator[None]:
    """Replay every 20 seconds; the finish step replays the rest (a cached step, a server that was down)."""
    stop = threading.Event()

    def mirror() -> None:
        while not stop.wait(INTERVAL_S):
            from embedline.registry.tracking_target import mirror_run

            mirror_run(workspace, run)

    thread = threading.Thread(target=mirror, name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)
