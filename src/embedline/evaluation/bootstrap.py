"""Confidence intervals: the percentile bootstrap (Efron 1979), seeded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Interval = tuple[float | None, float | None]

_BLOCK = 4_000_000  # resampled values held at a time


def interval_of(
    statistic: Callable[[np.ndarray], np.ndarray], count: int, resamples: int, seed: int = 0
) -> Interval:
    """Return the middle 95 % of `statistic` over resamples of `count` rows; (None, None) without any.

    Args:
        statistic: function of row indices (B × count), returns B values.
        resamples: number of resamples; 0 returns (None, None).
    """
    if resamples < 1 or count < 1:
        return None, None
    generator = np.random.default_rng(seed)
    size = max(1, _BLOCK // count)
    values = [
        statistic(generator.integers(0, count, (min(size, resamples - done), count)))
        for done in range(0, resamples, size)
    ]
    low, high = np.percentile(np.concatenate(values), [2.5, 97.5])
    return float(low), float(high)


def interval_of_mean(values: np.ndarray, resamples: int, seed: int = 0) -> Interval:
    """Return the interval of the mean of `values`, one value for each query."""
    return interval_of(lambda rows: values[rows].mean(1), len(values), resamples, seed)
