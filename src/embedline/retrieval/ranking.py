"""The order of scores: the largest first, equal ones by the lower index."""

from __future__ import annotations

import numpy as np


def best(scores_N: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the `k` largest scores, best first, ties by the lower index.

    >>> best(np.array([0.5, 2.0, 0.5, 0.5]), 2)
    array([1, 0])
    """
    count = len(scores_N)
    if k < count:
        last = np.partition(scores_N, count - k)[count - k]
        candidates = np.flatnonzero(scores_N >= last)
    else:
        candidates = np.arange(count)
    order = np.argsort(-scores_N[candidates], kind="stable")[:k]
    chosen: np.ndarray = candidates[order]
    return chosen
