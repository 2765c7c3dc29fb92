"""The process that a running run depends on, so that another command can tell whether it has ended."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import NamedTuple

import psutil

from embedline.artifacts.run_record import RunRecord

_PROC = Path("/proc")


class ProcessMark(NamedTuple):
    """A process that no other one can be mistaken for: a pid is given away again, after a reboot the first.

    Args:
        born: start in clock ticks since the boot, which no correction of the clock moves; None for a process
            that has ended. Without /proc: in seconds since the epoch.
        boot: id of this start of the kernel. Without /proc: the host.
        pid_namespace: namespace that counts the pid: a container has its own.
    """

    pid: int
    born: float | None
    boot: str
    pid_namespace: str
    host: str


def process_mark(pid: int) -> ProcessMark:
    """Return the mark of a process of this machine."""
    host = platform.node()
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(_PROC / "self/ns/pid")
    except OSError:
        boot, namespace = host, ""
    return ProcessMark(pid, _born(pid), boot, namespace, host)


def has_ended(record: RunRecord) -> bool | None:
    """Return whether the process of a run has ended; None when this cannot be seen from here.

    It cannot be seen in another container of this kernel, and after a restart of a machine of this name. It
    is taken for alive on another machine, which may share the disk.
    """
    here = process_mark(record.pid)
    if (record.boot, record.pid_namespace) == (here.boot, here.pid_namespace):
        return here.born is None or here.born != record.born
    return None if record.boot == here.boot or record.host == here.host else False


def _born(pid: int) -> float | None:
    """Return the start of a living process; a zombie has ended."""
    try:
        text = (_PROC / f"{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # After the name in parentheses, which may hold anything: the state, and the start as 20th value.
        values = text.rpartition(")")[2].split()
        return None if values[0] in {"Z", "X"} else float(values[19])
    except OSError:
        return None if (_PROC / "self").exists() else _born_elsewhere(pid)


def _born_elsewhere(pid: int) -> float | None:
    """Return the start of a living process on a system without /proc."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None
