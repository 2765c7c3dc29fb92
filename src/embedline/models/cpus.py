"""The machine's processors: how many this process's container may use, and their name."""

from __future__ import annotations

import math
import platform
from pathlib import Path

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


def processor_name() -> str:
    """Return the processor's model name; of a machine that states none, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
