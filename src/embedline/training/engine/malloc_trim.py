"""The heap of a training on a CPU, kept from growing over its chunks.

Chunks are of many shapes, and so are their tensors: glibc finds no hole that fits the next one, and takes
more memory from the system with every chunk, while most of what it has is free (16 chunks of a one-layer
model: from 711 MB to 1,023, of which 426 were in use).
"""

from __future__ import annotations

import ctypes
import sys

import psutil

_GROWTH = 128 * 2**20  # bytes that it may grow by before what is free goes back to the system


class Heap:
    """Call `settle` after each chunk. Where the allocator is another one, it does nothing."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._process = psutil.Process()
        self._level: int | None = None

    def settle(self) -> None:
        """Give free memory back when there is more of it than what one chunk leaves."""
        if self._trim is None:
            return
        memory = self._process.memory_info()
        own = memory.rss - memory.shared
        if self._level is None:
            self._level = own
        elif own > self._level + _GROWTH:
            self._trim(0)
            self._level = None  # the next chunk says what is usual
