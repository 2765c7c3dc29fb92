"""The floating-point operations a second that a device reaches, and those that a token of a model takes."""

from __future__ import annotations

import time
from functools import lru_cache

import torch
from torch import nn

_SIZES = (512, 1024, 2048, 4096, 8192)
_LONG_S = 0.01  # overheads do not count in a product that takes this long
_REPEATS = 4


def peak_flops(device: torch.device, *, bf16: bool) -> float:
    """Measure the floating-point operations a second of the best matrix product, once a process.

    Square matrices are multiplied, each time twice as wide, until one product takes 10 ms: about a tenth of a
    second in all.
    """
    return _measured(device, torch.bfloat16 if bf16 else torch.float32, torch.get_num_threads())


@lru_cache
def _measured(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    generator = torch.Generator(device).manual_seed(0)  # does not advance the training's random state
    best = 0.0
    for size in _SIZES:
        left, right = (torch.rand(size, size, generator=generator, device=device).to(dtype) for _ in "lr")
        seconds = min(_seconds(left, right) for _ in range(_REPEATS))
        best = max(best, 2 * size**3 / seconds)
        if seconds > _LONG_S:
            break
    return best


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    _wait(left.device)
    start = time.perf_counter()
    left @ right
    _wait(left.device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def non_embedding_parameters(module: nn.Module) -> int:
    """Count the numbers that a token is multiplied with: all parameters but those of embedding tables.

    Six operations each a token: a multiplication and an addition forward, twice as much backward (Kaplan et
    al. 2020, "Scaling Laws for Neural Language Models", section 2.1).
    """
    tables = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    return sum(p.numel() for p in module.parameters() if id(p) not in tables)
