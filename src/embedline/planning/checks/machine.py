"""Checks of the machine before a run: free disk space, memory, precision."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.resources import available_bytes, cores_found, memory_found

_GPU_DRIVER = Path("/proc/driver/nvidia/version")
MIN_FREE_GB = 2.0
MIN_MEMORY_GB = 1.5


def check_disk(root: Path, data_bytes: int = 0) -> float:
    """Return the free GB; refuse less than a floor plus what a run over `data_bytes` likely writes."""
    free = shutil.disk_usage(root).free / 1e9
    needed = MIN_FREE_GB + 4 * data_bytes / 1e9
    if free < needed:
        raise InputError(
            f"only {free:.1f} GB are free, a run needs about {needed:.1f} GB.",
            where=str(root),
            fix="Free some space or choose another --work.",
        )
    return free


def check_memory() -> float:
    """Return the available GB of memory; refuse less than a step's libraries need."""

    available = available_bytes() / 1e9
    if available < MIN_MEMORY_GB:
        raise InputError(
            f"only {available:.1f} GB of memory are available, a run needs {MIN_MEMORY_GB:.1f} GB.",
            where=os.uname().nodename,
            fix="Close other programs or use a larger machine.",
        )
    return available


def machine_found(runtime: RuntimeConfig) -> str:
    """Describe the processors and the memory that a run may use here, and where their limits were read."""
    from embedline.models.machine import thread_count

    return f"{cores_found()}, threads of a process: {thread_count(runtime)}; memory: {memory_found()}"


def precision_notes(runtime: RuntimeConfig) -> list[str]:
    """Return one line when this machine will train and only emulates the configured precision."""
    from embedline.models.device import NO_BF16, best_device, bf16_instructions

    if runtime.precision != "bf16" or trains_elsewhere() or bf16_instructions(best_device()):
        return []
    return [f"runtime.precision: {NO_BF16}, which is many times slower than fp32; auto takes the faster"]


def trains_elsewhere() -> bool:
    """Return True where a GPU trains, and in a pod, whose training tasks run on other machines."""
    return _GPU_DRIVER.exists() or "KUBERNETES_SERVICE_HOST" in os.environ
