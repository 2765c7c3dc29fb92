"""Scores of N queries and M documents, some rows at a time: a large batch's N × M never exist together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T")

# 8 MB in fp32; a loss holds a few tensors of that size at a time.
SCORES_AT_ONCE = 2**21


class Rows(Protocol):
    """An N × M matrix that is there, or is made, some rows at a time."""

    def __getitem__(self, rows: slice, /) -> Tensor: ...


def row_blocks(rows: int, columns: int) -> list[slice]:
    """All rows in order, in blocks of at most `SCORES_AT_ONCE` scores (one row at least)."""
    size = max(1, SCORES_AT_ONCE // max(1, columns))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def by_rows(work: Callable[[slice], T], rows: int, columns: int) -> list[T]:
    """`work` of each block of rows.

    What it computes on the way is computed again for the backward pass rather than kept (Chen et al. 2016,
    "Training Deep Nets with Sublinear Memory Cost").

    Args:
        work: draws nothing at random.
    """
    blocks = row_blocks(rows, columns)
    if len(blocks) == 1:
        return [work(blocks[0])]
    return [checkpoint(work, block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
