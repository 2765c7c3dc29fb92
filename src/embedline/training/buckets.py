"""Records of like length: a short record need not wait for a long one, nor a long one for a small batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedline.config.training import Bucket, ContrastiveConfig
from embedline.training.batches import source_shares
from embedline.training.records import Record, SourceRecords, pool_small

# The tokens of each record's longest text.
Lengths = Callable[[SourceRecords], Sequence[int]]


@dataclass(frozen=True)
class Group:
    """Rows that whole batches are drawn from: one source, and one bucket where there are buckets.

    Args:
        batch: rows of a batch.
        share: of all batches.
        limit: tokens of the bucket; None without buckets.
    """

    source: SourceRecords
    batch: int
    share: float
    limit: int | None = None

    @property
    def name(self) -> str:
        if self.limit is None:
            return self.source.name
        return f"{self.source.name}, {self.limit} tokens"


def groups(
    sources: Mapping[str, SourceRecords],
    weights: Mapping[str, float],
    config: ContrastiveConfig,
    lengths: Lengths,
) -> dict[str, Group]:
    """The groups of a stage by name; in each bucket, sources that cannot fill a batch are pooled.

    Sources share the batches by `source_shares`; the buckets of a source share its batches by how many
    batches their rows fill, so that all its rows are seen equally often.
    """
    if not config.buckets:
        pooled, weights = pool_small(sources, weights, config.batch)
        shares = _shares({name: len(source.rows) for name, source in pooled.items()}, weights, config)
        return {name: Group(source, config.batch, shares[name]) for name, source in pooled.items()}
    bucketed = _bucketed(sources, weights, config.buckets, lengths)
    rows: dict[str, int] = {}
    mass: dict[str, float] = {}
    fills: dict[str, float] = {}
    for source, weight, bucket in bucketed:
        rows[source.name] = rows.get(source.name, 0) + len(source.rows)
        mass[source.name] = mass.get(source.name, 0.0) + weight * len(source.rows)
        fills[source.name] = fills.get(source.name, 0.0) + len(source.rows) / bucket.batch
    shares = _shares(rows, {name: mass[name] / rows[name] for name in rows}, config)
    found = [
        Group(
            source,
            bucket.batch,
            shares[source.name] * len(source.rows) / bucket.batch / fills[source.name],
            bucket.tokens,
        )
        for source, _, bucket in bucketed
    ]
    return {group.name: group for group in found}


def bucket_of(lengths: Sequence[int], limits: Sequence[int]) -> np.ndarray:
    """The first bucket that each length fits in; the last one for lengths beyond them all.

    Args:
        limits: ascending.
    """
    return np.minimum(np.searchsorted(np.asarray(limits), np.asarray(lengths)), len(limits) - 1)


def _bucketed(
    sources: Mapping[str, SourceRecords],
    weights: Mapping[str, float],
    buckets: Sequence[Bucket],
    lengths: Lengths,
) -> list[tuple[SourceRecords, float, Bucket]]:
    """Rows, weight and bucket of each group; a row that is alone in its group is never drawn."""
    places = {
        name: bucket_of(lengths(source), [bucket.tokens for bucket in buckets])
        for name, source in sources.items()
    }
    result = []
    for number, bucket in enumerate(buckets):
        within = {name: _rows(source, places[name] == number) for name, source in sources.items()}
        filled = {name: SourceRecords(name, rows) for name, rows in within.items() if rows}
        pooled, means = pool_small(filled, weights, bucket.batch)
        result += [(source, means[name], bucket) for name, source in pooled.items()]
    return result


def _rows(source: SourceRecords, chosen: np.ndarray) -> list[Record]:
    return [row for row, within in zip(source.rows, chosen, strict=True) if within]


def _shares(
    sizes: Mapping[str, int], weights: Mapping[str, float], config: ContrastiveConfig
) -> dict[str, float]:
    return source_shares(sizes, weights, exponent=config.size_exponent, max_share=config.max_share)
