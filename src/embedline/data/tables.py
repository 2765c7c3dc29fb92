"""The tables of a dataset: records and passages as Parquet, written row by row and read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, Any]

RECORDS, CORPUS, QUARANTINE = "records.parquet", "corpus.parquet", "quarantine.jsonl"

RECORD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("query", pa.string()),
        ("positives", pa.list_(pa.string())),
        ("negatives", pa.list_(pa.string())),
        ("source", pa.string()),
        ("task_type", pa.string()),
        ("language", pa.string()),
        ("score", pa.float64()),
        ("positive_scores", pa.list_(pa.float64())),
        ("negative_scores", pa.list_(pa.float64())),
    ]
)
PASSAGE_SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "title", "text", "source", "language")])


def with_rule(schema: Any) -> Any:
    """Return the schema of rejected rows: the row, the rule, and the evaluation text that it holds."""
    for name in ("rule", "evaluation_set", "evaluation_text"):
        schema = schema.append(pa.field(name, pa.string()))
    return schema


GROUP = 8192


class RowWriter:
    """A writer of rows to a Parquet file in groups: memory is bounded by a group, not by the table."""

    def __init__(self, path: Path, schema: Any, *, compression: str = "zstd") -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression=compression)
        self._rows: list[Row] = []
        self.count = 0

    def write(self, row: Row) -> None:
        self._rows.append(row)
        self.count += 1
        if len(self._rows) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self.schema))
            self._rows = []

    def write_batch(self, batch: Any) -> None:
        """Write a record batch of the same schema."""
        self._flush()
        if batch.num_rows:
            self._writer.write_batch(batch)
            self.count += batch.num_rows

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()


def read_batches(path: Path, size: int = GROUP) -> Iterator[Any]:
    """Read a Parquet file as Arrow record batches of at most `size` rows."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(size)


def rows_of(batch: Any) -> Iterator[Row]:
    """Convert a record batch to rows; several times faster than Arrow's own `to_pylist`."""
    names = batch.schema.names
    columns = (_values(column) for column in batch.columns)
    return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _values(column: Any) -> list[Any]:
    if pa.types.is_string(column.type):
        values: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
    elif pa.types.is_list(column.type) and column.null_count == 0:
        items, ends = _values(column.flatten()), column.offsets.to_pylist()
        first = ends[0]
        values = [items[a - first : b - first] for a, b in pairwise(ends)]
    else:
        values = column.to_pylist()
    return values


def read_rows(path: Path) -> Iterator[Row]:
    """Read the rows of a Parquet file, one after another."""
    for batch in read_batches(path):
        yield from rows_of(batch)
