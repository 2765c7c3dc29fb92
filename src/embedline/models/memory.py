"""How much memory is left: of the machine, and of the container that this process is in."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")  # version 2, as a container sees its own


def available_bytes() -> int:
    """What this process may still take before the kernel kills it or another."""
    machine = int(psutil.virtual_memory().available)
    limit = _number(CGROUP / "memory.max")
    if limit is None:
        return machine
    used = _number(CGROUP / "memory.current") or 0
    return max(0, min(machine, limit - used + _reclaimable()))


def _reclaimable() -> int:
    """Bytes of files read long ago, which count as used and are dropped when they are in the way."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    values = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(values.get("inactive_file", 0))


def _number(path: Path) -> int | None:
    """None where there is no such limit."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None
