"""Groups of rows by source and length: short texts are not padded to long ones, and get larger batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedline.config.training import Bucket, ContrastiveConfig
from embedline.training.batching.batches import source_shares, weights_by_task
from embedline.training.batching.rows import SourceRows, pool_small


@dataclass(frozen=True)
class Group:
    """Rows that whole batches are drawn from: one source, and one bucket where there are buckets.

    Args:
        batch: rows of a batch.
        share: its share of all batches.
        limit: tokens of the bucket; None without buckets.
    """

    source: SourceRows
    batch: int
    share: float
    limit: int | None = None

    @property
    def name(self) -> str:
        if self.limit is None:
            return self.source.name
        return f"{self.source.name}, {self.limit} tokens"


def groups(
    sources: Mapping[str, SourceRows], config: ContrastiveConfig, longest_N: np.ndarray
) -> dict[str, Group]:
    """Return the groups of a stage by name; in each bucket, sources that cannot fill a batch are pooled.

    Sources share the batches by `source_shares`, within the share of their task type in `task_shares`; the
    buckets of a source share its batches by how many batches their rows fill, so that all its rows are used
    equally often.

    Args:
        longest_N: tokens of each row's longest text.

    Raises:
        InputError: `task_shares` has no share of a task type.
    """
    if not config.buckets:
        pooled = pool_small(sources, config.batch)
        shares = _shares(
            {name: len(source) for name, source in pooled.items()},
            {name: source.weight for name, source in pooled.items()},
            {name: source.row_group.task_type for name, source in pooled.items()},
            config,
        )
        return {name: Group(source, config.batch, shares[name]) for name, source in pooled.items()}
    bucketed = _bucketed(sources, config.buckets, longest_N)
    rows: dict[str, int] = {}
    mass: dict[str, float] = {}
    fills: dict[str, float] = {}
    tasks: dict[str, str] = {}
    for source, bucket in bucketed:
        rows[source.name] = rows.get(source.name, 0) + len(source)
        mass[source.name] = mass.get(source.name, 0.0) + source.weight * len(source)
        fills[source.name] = fills.get(source.name, 0.0) + len(source) / bucket.batch
        tasks[source.name] = source.row_group.task_type
    shares = _shares(rows, {name: mass[name] / rows[name] for name in rows}, tasks, config)
    drawn_from = [
        Group(
            source,
            bucket.batch,
            shares[source.name] * len(source) / bucket.batch / fills[source.name],
            bucket.tokens,
        )
        for source, bucket in bucketed
    ]
    return {group.name: group for group in drawn_from}


def bucket_of(lengths: Sequence[int] | np.ndarray, limits: Sequence[int]) -> np.ndarray:
    """Return the first bucket that each length fits in; the last one for longer ones.

    Args:
        limits: ascending.
    """
    return np.minimum(np.searchsorted(np.asarray(limits), np.asarray(lengths)), len(limits) - 1)


def _bucketed(
    sources: Mapping[str, SourceRows], buckets: Sequence[Bucket], longest_N: np.ndarray
) -> list[tuple[SourceRows, Bucket]]:
    """Return rows and bucket of each group; a row that is alone in its group is never drawn."""
    bucket_N = bucket_of(longest_N, [bucket.tokens for bucket in buckets])
    result = []
    for number, bucket in enumerate(buckets):
        within = {
            name: replace(source, numbers=source.numbers[bucket_N[source.numbers] == number])
            for name, source in sources.items()
        }
        filled = {name: source for name, source in within.items() if len(source)}
        result += [(source, bucket) for source in pool_small(filled, bucket.batch).values()]
    return result


def _shares(
    sizes: Mapping[str, int],
    weights: Mapping[str, float],
    tasks: Mapping[str, str],
    config: ContrastiveConfig,
) -> dict[str, float]:
    if config.task_shares:
        weights = weights_by_task(sizes, weights, tasks, config.task_shares, exponent=config.size_exponent)
    return source_shares(sizes, weights, exponent=config.size_exponent, max_share=config.max_share)
