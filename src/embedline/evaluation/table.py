"""The files of a scores artefact: `scores.jsonl` and `per_query.parquet`."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedline.artifacts.jsonl import read_jsonl

ROWS, PER_QUERY = "scores.jsonl", "per_query.parquet"
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


def write_scores(folder: Path, rows: Iterable[Mapping[str, Any]], per_query: pa.Table | list[Any]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / ROWS).write_text(text, encoding="utf-8")
    table = pa.Table.from_pylist(per_query, _SCHEMA) if isinstance(per_query, list) else per_query
    pq.write_table(table, folder / PER_QUERY)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    return read_jsonl(folder / ROWS)


def read_per_query(folder: Path, *, model: str, shown: Collection[tuple[str, int, str]]) -> pa.Table:
    """Per-query values of the (set, dim, head) in `shown`, under the name `model`."""
    table = pq.read_table(folder / PER_QUERY)
    keys = zip(*(table[name].to_pylist() for name in ("set", "dim", "head")), strict=True)
    kept = table.filter(pa.array([key in shown for key in keys], pa.bool_()))
    return kept.set_column(0, "model", pa.array([model] * kept.num_rows, pa.string()))
