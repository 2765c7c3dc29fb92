"""The processors that this process's container may use."""

from __future__ import annotations

import math

from embedline.models.memory import CGROUP


def cpu_limit() -> int | None:
    """Return the processors that the container may use, rounded up; None where there is no limit.

    Kubernetes limits the time, not the number of processors: libraries see those of the whole node, start as
    many threads, and all of them wait for each other once the time of a period is used up.
    """
    try:
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, math.ceil(int(quota) / int(period)))
