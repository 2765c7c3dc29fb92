"""Computation on the scores of N queries and M documents, some rows at a time, never all N × M together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")

# 8 MB in fp32; a loss holds a few tensors of that size at a time.
SCORES_AT_ONCE = 2**21


class Rows(Protocol):
    """An N × M matrix in memory, or one that is made some rows at a time."""

    def __getitem__(self, rows: slice, /) -> Tensor: ...


def row_blocks(rows: int, columns: int) -> list[slice]:
    """Divide the rows, in order, into blocks of at most `SCORES_AT_ONCE` scores (one row at least)."""
    size = max(1, SCORES_AT_ONCE // max(1, columns))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def by_rows(work: Callable[[slice], T], rows: int, columns: int) -> list[T]:
    """Return `work` of each block of rows.

    Its intermediate results are computed again in the backward pass rather than kept (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost").

    Args:
        work: a function without random draws.
    """
    blocks = row_blocks(rows, columns)
    if len(blocks) == 1:
        return [work(blocks[0])]
    return [checkpoint(work, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
