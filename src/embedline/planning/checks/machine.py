"""What the machine must have before anything is spent: a writable workspace, disk, memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from embedline.config.training import RuntimeConfig
from embedline.errors import InputError
from embedline.models.machine import NO_BF16
from embedline.models.memory import available_bytes

_GPU_DRIVER = Path("/proc/driver/nvidia/version")
MIN_FREE_GB = 2.0
MIN_MEMORY_GB = 1.5


def check_disk(root: Path, data_bytes: int = 0) -> float:
    """Free GB; refused below a floor and what a run over `data_bytes` of text is likely to write."""
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
    """Available GB; refused when a step could not even load its libraries."""

    available = available_bytes() / 1e9
    if available < MIN_MEMORY_GB:
        raise InputError(
            f"only {available:.1f} GB of memory are available, a run needs {MIN_MEMORY_GB:.1f} GB.",
            where=os.uname().nodename,
            fix="Close other programs or use a larger machine.",
        )
    return available


def precision_notes(runtime: RuntimeConfig) -> list[str]:
    """One line when this machine, which will train, only emulates the precision that it is told to use."""
    from embedline.models.device import best_device, bf16_instructions

    if runtime.precision != "bf16" or trains_elsewhere() or bf16_instructions(best_device()):
        return []
    return [f"runtime.precision: {NO_BF16}, which is many times slower than fp32; auto takes the faster"]


def trains_elsewhere() -> bool:
    """True in a pod, whose training tasks ask for a machine of their own, and where a GPU does the work."""
    return _GPU_DRIVER.exists() or "KUBERNETES_SERVICE_HOST" in os.environ
