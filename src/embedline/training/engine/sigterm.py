"""SIGTERM during a training: finish the step, write a checkpoint, stop.

Kubernetes sends SIGTERM and, by default, SIGKILL 30 seconds later.
"""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from embedline.errors import Stopped

GRACE_S = 25.0  # for the step and the checkpoint together; the rest of the 30 s is for the exit


class SigtermHandler(AbstractContextManager["SigtermHandler"]):
    """A context in which SIGTERM sets `received`, and `Stopped` is raised `GRACE_S` later.

    Where that interrupts a step or the writing of a checkpoint, the checkpoint before it stays valid.
    """

    def __init__(self) -> None:
        self.received = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> SigtermHandler:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                signal.SIGTERM: signal.signal(signal.SIGTERM, self._receive),
                signal.SIGALRM: signal.getsignal(signal.SIGALRM),
            }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.received:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, *_: Any) -> None:
        if not self.received:
            self.received = True
            signal.signal(signal.SIGALRM, self._abort)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    @staticmethod
    def _abort(*_: Any) -> None:
        raise Stopped(
            f"stopped by SIGTERM; the step did not end within {GRACE_S:.0f} s, so the last checkpoint stands."
        )
