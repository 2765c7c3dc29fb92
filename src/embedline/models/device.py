"""The device that models run on, and whether it is fast in bf16."""

from __future__ import annotations

import torch

# bf16 instructions of x86 and ARM. A CPU without any of them computes bf16 products number by number.
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


def best_device() -> torch.device:
    """Return the GPU when there is one, for training, mining, evaluation and teachers alike."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_instructions(device: torch.device) -> list[str]:
    """Return the names of the device's bf16 instructions; empty where bf16 is emulated."""
    if device.type == "cuda":
        return ["tensor cores"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    has = torch.cpu.get_capabilities()
    return [name for name in _BF16_INSTRUCTIONS if has.get(name)]
