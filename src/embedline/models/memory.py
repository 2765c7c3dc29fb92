"""The memory that is left in the machine and in this process's container."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # version 2, as mounted inside a container


def available_bytes() -> int:
    """Return how many bytes this process can still allocate before the kernel kills a process."""
    machine = int(psutil.virtual_memory().available)
    limit = _number(CGROUP / "memory.max")
    if limit is None:
        return machine
    used = _number(CGROUP / "memory.current") or 0
    return max(0, min(machine, limit - used + _reclaimable()))


def _reclaimable() -> int:
    """Return the bytes of inactive cached files, which count as used and are dropped under pressure."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(values.get("inactive_file", 0))


def _number(path: Path) -> int | None:
    """Read a number from a control file; None where there is no such limit."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
