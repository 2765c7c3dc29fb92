"""Records by source, as training and mining read them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Record:
    """One row: a query, its positives and its negatives.

    Args:
        score: a judgement of how similar query and positives are; such a pair is no positive, its score only
            ranks it among other pairs.
        positive_scores, negative_scores: a teacher's score of each of them, where the row has them.
        source: the source of the row, which its prompts may depend on; a source of training may be a pool of
            several.
    """

    id: str
    query: str
    positives: list[str]
    negatives: list[str]
    task_type: str
    language: str
    score: float | None = None
    source: str = ""
    positive_scores: list[float] | None = None
    negative_scores: list[float] | None = None


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
    for record in stream_records(path, sources):
        grouped.setdefault(record.source, SourceRecords(record.source)).rows.append(record)
    return dict(sorted(grouped.items()))


def stream_records(path: Path, sources: Collection[str] | None = None) -> Iterator[Record]:
    """Yield records one by one, in the order of the file; a few thousand at a time are in memory."""
    for block in pq.ParquetFile(path).iter_batches(_ROWS_AT_ONCE):
        for row in block.to_pylist():
            if sources is None or row["source"] in sources:
                yield Record(
                    row["id"],
                    row["query"],
                    row["positives"],
                    row["negatives"],
                    row["task_type"],
                    row["language"],
                    row.get("score"),
                    row["source"],
                    row.get("positive_scores"),
                    row.get("negative_scores"),
                )


def filtered(source: SourceRecords, chosen: Callable[[Record], bool]) -> SourceRecords:
    """Return the source with its `chosen` rows only."""
    return replace(source, rows=[row for row in source.rows if chosen(row)])
