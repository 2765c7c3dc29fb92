"""The tokens that a step encodes at a time, which bound its memory."""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_CHUNK = 16


@dataclass
class TokenBudget:
    """Tokens of one chunk, padding included, and tokens whose graph may be kept until the loss is known.

    Where `resident` is None, it is measured at the first chunk how many of them fit into memory.
    """

    chunk: int
    resident: int | None = 0

    def halve(self) -> bool:
        """Halve both; False when a chunk is so small already that its length is not what fills memory."""
        if self.chunk <= SMALLEST_CHUNK:
            return False
        self.chunk = max(SMALLEST_CHUNK, self.chunk // 2)
        self.resident = None if self.resident is None else self.resident // 2
        return True
