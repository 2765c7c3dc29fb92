"""The files of a scores artefact: `scores.jsonl`, and `per_query.parquet` with the value of each query."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from embedline.artifacts.scores import ScoreRow, write_score_rows

PER_QUERY = "per_query.parquet"
_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("set", pa.string()),
        ("dim", pa.int64()),
        ("runtime", pa.string()),
        ("head", pa.string()),
        ("query_id", pa.string()),
        ("value", pa.float64()),
    ]
)


class QueryScore(NamedTuple):
    """The main metric of one query, pair or text: one row of `per_query.parquet`."""

    model: str
    set: str
    dim: int
    runtime: str
    head: str
    query_id: str
    value: float


@dataclass
class Scores:
    """Score rows and per-query values, as a scores artefact holds them."""

    rows: list[ScoreRow] = field(default_factory=list)
    per_query: list[QueryScore] = field(default_factory=list)

    def add(self, other: Scores) -> None:
        """Append the rows and values of `other`."""
        self.rows += other.rows
        self.per_query += other.per_query


def write_scores(folder: Path, rows: Iterable[ScoreRow], per_query: pa.Table | list[QueryScore]) -> None:
    """Write both files of a scores artefact."""
    write_score_rows(folder, rows)
    if isinstance(per_query, list):
        per_query = pa.Table.from_pylist([value._asdict() for value in per_query], _SCHEMA)
    pq.write_table(per_query, folder / PER_QUERY)


def read_per_query(folder: Path, *, model: str, shown: Collection[tuple[str, int, str]]) -> pa.Table:
    """Read the per-query values of the (set, dim, head) in `shown`, under the name `model`."""
    table = pq.read_table(folder / PER_QUERY)
    keys = zip(*(table[name].to_pylist() for name in ("set", "dim", "head")), strict=True)
    kept = table.filter(pa.array([key in shown for key in keys], pa.bool_()))
    return kept.set_column(0, "model", pa.array([model] * kept.num_rows, pa.string()))
