"""Batches of texts of like length, bounded by tokens rather than by rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def token_batches(lengths: Sequence[int], batch_tokens: int) -> list[np.ndarray]:
    """Group row indices into batches, longest first, so that a lack of memory shows at once.

    A batch's rows times its longest row is at most `batch_tokens` (a single longer row is a batch alone).
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, batch_tokens // max(1, int(lengths[order[start]])))
        batches.append(order[start : start + size])
        start += size
    return batches
