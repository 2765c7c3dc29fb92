"""Records with and without scores."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedline.errors import InputError
from embedline.training.records import Record, SourceRecords, apart, pool_small, read_records


def row(number: int, score: float | None, task_type: str = "sts") -> Record:
    return Record(str(number), f"q{number}", [f"p{number}"], [], task_type, "ru", score)


@given(scores=st.lists(st.one_of(st.none(), st.integers(0, 5).map(float)), min_size=1, max_size=12))
def test_scored_and_unscored_rows_part(scores: list[float | None]) -> None:
    source = SourceRecords("a", [row(i, score) for i, score in enumerate(scores)])
    given_scores = {score for score in scores if score is not None}
    if len(given_scores) == 1:
        with pytest.raises(InputError, match=r"scores of a are .*: nothing is ranked"):
            apart({"a": source})
        return
    parts, origin = apart({"a": source})
    assert sorted(r.id for part in parts.values() for r in part.rows) == sorted(r.id for r in source.rows)
    assert set(origin.values()) == {"a"}
    for name, part in parts.items():
        assert {r.score is not None for r in part.rows} == {part.scored}
        assert name == ("a (scored)" if part.scored and None in scores else "a")


def test_small_scored_sources_are_pooled_with_scored_ones_only() -> None:
    sources = {
        "a": SourceRecords("a", [row(1, 1.0), row(2, 2.0)]),
        "b": SourceRecords("b", [row(3, None)]),
        "c": SourceRecords("c", [row(4, 3.0), row(5, 0.0)]),
    }
    pooled, weights = pool_small(sources, {"a": 3.0}, 4)
    assert {name: [r.id for r in source.rows] for name, source in pooled.items()} == {
        "small sts ru scored": ["1", "2", "4", "5"],
        "small sts ru": ["3"],
    }
    assert weights["small sts ru scored"] == 2.0


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
