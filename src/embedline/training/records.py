"""Records by source, as training and mining read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq


@dataclass(frozen=True)
class Record:
    """One row: a query, what answers it, what does not."""

    id: str
    query: str
    positives: list[str]
    negatives: list[str]
    task_type: str
    language: str


@dataclass
class SourceRecords:
    """The rows of one source."""

    name: str
    rows: list[Record] = field(default_factory=list)

    @property
    def task_type(self) -> str:
        return self.rows[0].task_type


def read_records(path: Path, sources: Collection[str] | None = None) -> dict[str, SourceRecords]:
    """Read records.parquet; only the named sources, if any are named. Sources come in name order."""
    grouped: dict[str, SourceRecords] = {}
    for row in pq.read_table(path).to_pylist():
        name = row["source"]
        if sources is None or name in sources:
            record = Record(
                row["id"], row["query"], row["positives"], row["negatives"], row["task_type"], row["language"]
            )
            grouped.setdefault(name, SourceRecords(name)).rows.append(record)
    return dict(sorted(grouped.items()))


def pool_small(
    sources: Mapping[str, SourceRecords], weights: Mapping[str, float], size: int
) -> tuple[dict[str, SourceRecords], dict[str, float]]:
    """Sources of fewer than `size` rows become one a task type and language, so that they can fill a batch.

    Returns the sources and their weights; a pool weighs as its rows do on average.
    """
    large = {name: source for name, source in sources.items() if len(source.rows) >= size}
    pools: dict[str, SourceRecords] = {}
    mass: dict[str, float] = {}
    for name, source in sources.items():
        if name not in large:
            pool = f"small {source.task_type} {source.rows[0].language}"
            pools.setdefault(pool, SourceRecords(pool)).rows.extend(source.rows)
            mass[pool] = mass.get(pool, 0.0) + weights.get(name, 1.0) * len(source.rows)
    means = {pool: mass[pool] / len(source.rows) for pool, source in pools.items()}
    return {**large, **pools}, {**{name: weights.get(name, 1.0) for name in large}, **means}
