"""Where models work, and in which precision they are fast there."""

from __future__ import annotations

import torch

# Of x86 and of ARM. A CPU without any of them computes bf16 products number by number.
_BF16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


def best_device() -> torch.device:
    """The GPU when there is one: for training, mining, evaluation and teachers alike."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_instructions(device: torch.device) -> list[str]:
    """What the device has for products in bf16; empty where they are emulated."""
    if device.type == "cuda":
        return ["tensor cores"] if torch.cuda.is_bf16_supported(including_emulation=False) else []
    has = torch.cpu.get_capabilities()
    return [name for name in _BF16_INSTRUCTIONS if has.get(name)]
