"""The device that models run on, and its instructions for bf16."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

# bf16 instructions of x86 and ARM. A CPU without any of them computes bf16 products number by number.
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
NO_BF16 = "this device has no bf16 instructions and emulates them"


def best_device() -> torch.device:
    """Return the GPU when there is one, for training, mining, evaluation and teachers alike."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def processor_name() -> str:
    """Return the processor's model name; of a machine that states none, its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def bf16_instructions(device: torch.device) -> list[str]:
    """Return the names of the device's bf16 instructions; empty where bf16 is emulated."""
    if device.type == "cuda":
        return ["tensor cores"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    has = torch.cpu.get_capabilities()
    return [name for name in _BF16_INSTRUCTIONS if has.get(name)]
