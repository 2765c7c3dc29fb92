"""What the mine step reports when it finds few negatives."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from embedline.config.training import MineConfig
from embedline.mining.mine import mine_negatives
from embedline.steps.mine import _result
from embedline.training.batching.records import Record, SourceRecords


def collapsed(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
    return np.tile(np.float32([0.6, 0.8]), (len(texts), 1))


def different(texts: list[str], source: str, task_type: str, side: str) -> np.ndarray:
    return np.stack([np.eye(64, dtype=np.float32)[int(text.split()[1])] for text in texts])


def records(count: int, task_types: int = 1) -> dict[str, SourceRecords]:
    rows = [
        Record(f"{i}", f"вопрос {i}", [f"ответ {i}"], [], f"kind {i % task_types}", "ru")
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
