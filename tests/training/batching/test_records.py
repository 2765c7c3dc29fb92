"""Records as they are read from a dataset."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from embedline.training.batching.records import read_records, stream_records


def test_scores_and_sources_are_read(tmp_path: Path) -> None:
    texts = pa.list_(pa.string())
    rows = [
        {"id": f"{name}{i}", "query": "q", "positives": ["p"], "negatives": [], "source": name}
        | {"task_type": "sts", "language": "ru", "score": score}
        for name in "ba"
        for i, score in enumerate((4.5, None))
    ]
    kinds = {"id": pa.string(), "query": pa.string(), "positives": texts, "negatives": texts}
    kinds |= {name: pa.string() for name in ("source", "task_type", "language")} | {"score": pa.float64()}
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), tmp_path / "records.parquet")
    found = read_records(tmp_path / "records.parquet")
    assert list(found) == ["a", "b"]
    assert [r.score for r in found["a"].rows] == [4.5, None]
    assert {r.source for r in found["b"].rows} == {"b"}
    assert list(read_records(tmp_path / "records.parquet", ["b"])) == ["b"]
    assert [row.id for row in stream_records(tmp_path / "records.parquet")] == ["b0", "b1", "a0", "a1"]
