"""The processors and the memory that this process may use: its affinity and its control groups' limits.

Kubernetes, Docker, Slurm and systemd limit a process through control groups (cgroups(7)) of version 1,
version 2, or both. The limit of a group holds for all groups inside it, so the smallest one counts, from the
process's own group up to the root.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")  # holds proc/ and sys/
_NO_LIMIT = 2**60  # version 1 states the largest number of pages instead of none


class Limit(NamedTuple):
    """A limit of a control group.

    Args:
        value: processors (a share of their time, also a fraction) or bytes.
        file: the file that states it.
    """

    value: float
    file: Path


def usable_cores() -> int:
    """Return how many threads can run at once: the visible processors, at most the quota, rounded up.

    Kubernetes limits the time, not the number of processors: libraries see those of the whole node, start as
    many threads, and all of them wait for each other once the time of a period is used up. Rounded up, the
    last thread uses what is left of the quota; rounded down, 1.9 processors would be 1.
    """
    quota = cpu_quota()
    return visible_cores() if quota is None else max(1, min(visible_cores(), math.ceil(quota.value)))


def visible_cores() -> int:
    """Return the processors that this process may run on: its affinity, which a cpuset limits, too."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota() -> Limit | None:
    """Return the smallest quota of processor time, in processors; None where there is none."""
    return min(_quotas(), default=None)


def memory_limit() -> Limit | None:
    """Return the smallest memory limit, in bytes; None where there is none."""
    return min((limit for limit, _ in _memory_limits()), default=None)


def available_bytes() -> int:
    """Return how many bytes this process can still allocate before the kernel kills a process."""
    import psutil

    left = (int(limit.value) - _used(group) for limit, group in _memory_limits())
    return max(0, min([int(psutil.virtual_memory().available), *left]))


def cores_found() -> str:
    """Describe the processors, the quota and the file that states it."""
    found, quota = f"{visible_cores()} cores", cpu_quota()
    return found if quota is None else f"{found}, quota {quota.value:g} of them ({quota.file})"


def memory_found() -> str:
    """Describe the available memory, the limit and the file that states it."""
    found, limit = f"{available_bytes() / 1e9:.1f} GB available", memory_limit()
    return found if limit is None else f"{found}, limit {limit.value / 1e9:.1f} GB ({limit.file})"


def _quotas() -> Iterator[Limit]:
    for group in _groups("cpu"):
        both = group / "cpu.max"
        if words := _words(both):
            yield from _ratio(words, both)
        else:
            alone = group / "cpu.cfs_quota_us"
            yield from _ratio([*_words(alone), *_words(group / "cpu.cfs_period_us")], alone)


def _ratio(words: list[str], file: Path) -> Iterator[Limit]:
    """Yield quota ÷ period; nothing for max (version 2) and -1 (version 1)."""
    if len(words) == 2 and all(word.isdigit() and int(word) for word in words):
        yield Limit(int(words[0]) / int(words[1]), file)


def _memory_limits() -> Iterator[tuple[Limit, Path]]:
    """Yield each limit with the folder of its group."""
    for group in _groups("memory"):
        for file in (group / "memory.max", group / "memory.limit_in_bytes"):
            value = _number(file)
            if value is not None and value < _NO_LIMIT:
                yield Limit(value, file), group


def _used(group: Path) -> int:
    """Return the bytes in use, without inactive cached files, which are dropped under pressure."""
    used = _number(group / "memory.current")
    used = _number(group / "memory.usage_in_bytes") if used is None else used
    words = _words(group / "memory.stat")
    values = dict(zip(words[::2], words[1::2], strict=False))
    return (used or 0) - int(values.get("total_inactive_file", values.get("inactive_file", 0)))


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the process's group and of those around it, as far as this process sees them.

    A container without a namespace of its own (version 1) reads its path on the host, and finds only its own
    group, at the mount point.
    """
    paths = dict.fromkeys(("", controller), "/")
    for line in _text(ROOT / "proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        paths |= dict.fromkeys(names.split(","), path)
    mount = ROOT / "sys/fs/cgroup"
    places = ((mount, ""), (mount / "unified", ""), (mount / controller, controller))
    for place, name in places:
        parts = [part for part in paths[name].split("/") if part]
        for depth in range(len(parts), -1, -1):
            group = place.joinpath(*parts[:depth])
            if ".." not in parts[:depth] and group.is_dir():
                yield group


def _number(file: Path) -> int | None:
    """Read a number from a control file; None where there is no such limit."""
    text = _text(file).strip()
    return int(text) if text.isdigit() else None


def _words(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
