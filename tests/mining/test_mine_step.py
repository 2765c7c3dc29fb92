"""What the mine step reports when it finds few negatives."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow.parquet as pq
import pytest

from embedline.config.training import MineConfig
from embedline.mining.mine import mine_negatives
from embedline.steps.mine import _result, _write
from embedline.training.batching.records import Record, SourceRecords


def collapsed(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
    return np.tile(np.float32([0.6, 0.8]), (len(texts), 1))


def different(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
    return np.stack([np.eye(64, dtype=np.float32)[int(text.split()[1])] for text in texts])


def nearly_different(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
    vectors = different(texts, source, task_type, side) + 0.1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def records(count: int, task_types: int = 1, topic: str = "") -> dict[str, SourceRecords]:
    rows = [
        Record(f"{i}", f"вопрос {i}{topic}", [f"ответ {i}{topic}"], [], f"kind {i % task_types}", "ru")
        for i in range(count)
    ]
    return {"faq": SourceRecords("faq", rows)}


@pytest.mark.parametrize(
    ("sources", "encode", "said"),
    [
        (records(20), collapsed, "The model hardly tells texts apart"),
        (records(20, task_types=20), different, "too few texts of their task type"),
        (records(20), different, ""),
    ],
    ids=["all vectors equal", "one row of each kind", "as it should be"],
)
def test_mining_without_negatives_says_whether_data_or_model_is_the_cause(
    sources, encode, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    result = _result(sources, mine_negatives(sources, encode, MineConfig(negatives=2), seed=0))
    assert said in result.summary
    assert said in caplog.text
    assert ("got no negative" in result.summary) == bool(said) == ("got no negative" in caplog.text)


def test_each_strategys_negatives_are_counted_in_the_triplets(tmp_path) -> None:
    """Words in common, and vectors that rank other texts: both strategies find some."""
    sources = records(20, topic=" о печати")
    config = MineConfig(negatives=4, margin=1.0, strategies={"model": 3, "bm25": 1})
    mined = mine_negatives(sources, encode=nearly_different, config=config, seed=0)
    result = _result(sources, mined)
    _write(tmp_path, sources, mined)
    written = pq.read_table(tmp_path / "mining.parquet").to_pylist()
    for name in ("model", "bm25"):
        count = sum(row["strategy"] == name for row in written)
        assert count == result.metrics[f"taken.{name}"] == result.counts["triplets"][f"negatives.{name}"] > 0
        assert f"| {name} | {count:,} |" in result.summary
    assert result.metrics["taken"] == len(written) == 80


def test_one_strategy_is_reported_as_before() -> None:
    result = _result(records(20), mine_negatives(records(20), different, MineConfig(negatives=2), seed=0))
    assert not any("." in name for name in result.metrics)
    assert "bm25" not in result.summary
