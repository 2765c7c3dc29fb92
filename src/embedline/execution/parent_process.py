"""The end of a process together with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with_parent(sent: signal.Signals) -> None:
    """Make the kernel send `sent` to this process when its parent ends; nothing is done outside Linux.

    A parent that was killed cannot end its children, which would run on without it.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)
        if os.getppid() != parent:  # the parent ended before the call
            os.kill(os.getpid(), sent)
