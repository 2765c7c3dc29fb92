"""The metrics of one set with their confidence intervals, and the score rows made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from embedline.artifacts.scores import ScoreRow
from embedline.evaluation.bootstrap import Interval, interval_of, interval_of_mean
from embedline.evaluation.metrics import average_precision
from embedline.evaluation.score_files import QueryScore, Scores

Measured = tuple[float, Interval]


@dataclass(frozen=True)
class SetResult:
    """The metrics of a set (value and interval) at one head and dim; the first one is the main score.

    Args:
        count: queries, pairs or texts.
        query_ids, per_query: the main metric of each query; empty where it exists only for all together.
    """

    head: str
    dim: int
    metrics: dict[str, Measured]
    count: int
    query_ids: list[str] = field(default_factory=list)
    per_query: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def as_scores(self, row: ScoreRow) -> Scores:
        """Return the score rows of all metrics; `row` names the model and the set."""
        main = next(iter(self.metrics))
        row = row.at(self.head, self.dim)
        rows = [
            row.scored(name, value, main=name == main, interval=interval, count=self.count)
            for name, (value, interval) in self.metrics.items()
        ]
        identity = row.model, row.set, row.dim, row.runtime, row.head
        values = zip(self.query_ids, self.per_query.tolist(), strict=True)
        return Scores(rows, [QueryScore(*identity, query, value) for query, value in values])


def result_of_means(
    head: str, dim: int, metrics: dict[str, np.ndarray], main: str, ids: list[str], resamples: int
) -> SetResult:
    """Average metrics that exist for each query, with an interval of each mean.

    Args:
        metrics: name → N values, in the order of `ids`.
        main: name of the main metric.
    """
    named = {main: metrics[main]} | metrics
    values = {name: (float(v.mean()), interval_of_mean(v, resamples)) for name, v in named.items()}
    return SetResult(head, dim, values, len(ids), ids, metrics[main])


def correlation(
    measure: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray, y: np.ndarray, resamples: int
) -> Measured:
    """Measure a correlation of N pairs of numbers, with its interval."""
    interval = interval_of(lambda rows: measure(x[rows], y[rows]), len(x), resamples)
    return float(measure(x, y)), interval


def precision(scores: np.ndarray, labels: np.ndarray, resamples: int) -> Measured:
    """Measure the average precision of N scored pairs, with its interval."""
    count = len(scores)

    def resampled(rows: np.ndarray) -> np.ndarray:
        shifted = rows + count * np.arange(len(rows))[:, None]
        weights = np.bincount(shifted.ravel(), minlength=rows.size).reshape(rows.shape)
        return average_precision(scores, labels, weights.astype(float))

    return float(average_precision(scores, labels)), interval_of(resampled, count, resamples)
