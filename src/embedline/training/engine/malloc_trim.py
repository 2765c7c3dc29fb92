"""Return of free heap memory to the system while a training runs on a CPU.

Chunks are of many shapes, and so are their tensors: glibc finds no hole that fits the next one, and takes
more memory from the system with every chunk, while most of what it has is free (16 chunks of a one-layer
model: from 711 MB to 1,023, of which 426 were in use).
"""

from __future__ import annotations

import ctypes
import sys

import psutil

_GROWTH = 128 * 2**20  # bytes that the heap may grow by before its free memory is returned


class MallocTrim:
    """The call of glibc's `malloc_trim` when the heap has grown; without glibc it does nothing."""

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
        self._process = psutil.Process()
        self._level: int | None = None

    def after_chunk(self) -> None:
        """Return free memory when the process holds clearly more than after the chunk that set the level."""
        if self._trim is None:
            return
        memory = self._process.memory_info()
        own = memory.rss - memory.shared
        if self._level is None:
            self._level = own
        elif own > self._level + _GROWTH:
            self._trim(0)
            self._level = None  # the next chunk sets the level
