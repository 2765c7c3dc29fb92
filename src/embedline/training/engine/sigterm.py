"""SIGTERM in the middle of a training: end the step, keep a checkpoint, go.

Kubernetes sends SIGTERM and, by default, kills 30 seconds later.
"""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from embedline.errors import Stopped

GRACE_S = 25.0  # for the step and the checkpoint together; what is left of the 30 is for leaving


class Stopping(AbstractContextManager["Stopping"]):
    """While it is entered, SIGTERM sets `asked`; whoever has not left after `GRACE_S` is thrown out.

    Thrown out in a step or in the middle of a checkpoint: the checkpoint before it stands.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._before = {
                signal.SIGTERM: signal.signal(signal.SIGTERM, self._ask),
                signal.SIGALRM: signal.getsignal(signal.SIGALRM),
            }
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: Any) -> None:
        if not self.asked:
            self.asked = True
            signal.signal(signal.SIGALRM, self._throw_out)
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    @staticmethod
    def _throw_out(*_: Any) -> None:
        raise Stopped(
            f"stopped by SIGTERM; the step did not end within {GRACE_S:.0f} s, so the last checkpoint stands."
        )
