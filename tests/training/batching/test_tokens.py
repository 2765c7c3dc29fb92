"""Tokenised records on disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.training import ContrastiveConfig
from embedline.training.batching import tokens
from embedline.training.batching.pairs import tokenised
from embedline.training.batching.records import Record
from embedline.training.batching.rows import RowGroup
from embedline.training.batching.tokens import TokenIds, TokenStore, write_tokens

TEXT = st.text(max_size=6)
SCORES = st.one_of(st.none(), st.lists(st.floats(0, 1), min_size=1, max_size=2))
RECORDS = st.builds(
    Record,
    TEXT,
    TEXT,
    st.lists(TEXT, min_size=1, max_size=3),
    st.lists(TEXT, max_size=3),
    st.sampled_from(["sts", "short-long"]),
    st.sampled_from(["ru", "en-ru"]),
    st.one_of(st.none(), st.floats(0, 5)),
    st.sampled_from(["faq", "wiki"]),
    SCORES,
    SCORES,
)


def by_letter(rows: Sequence[Record]) -> TokenIds:
    """A token a letter, and one at the end."""

    def ids(text: str) -> list[int]:
        return [*map(ord, text), 0]

    return TokenIds(
        [ids(row.query) for row in rows],
        [[ids(text) for text in row.positives] for row in rows],
        [[ids(text) for text in row.negatives[:2]] for row in rows],
    )


@settings(max_examples=40, deadline=None)
@given(records=st.lists(RECORDS, max_size=12), block=st.integers(1, 5), data=st.data())
def test_rows_come_back_as_they_were_written_in_any_order(
    records: list[Record], block: int, data: st.DataObject
) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(records) - 1), max_size=20)) if records else []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "BLOCK", block)
        write_tokens(Path(folder) / "tokens", iter(records), by_letter)
        store = TokenStore(Path(folder) / "tokens")
        rows, columns = store.rows(np.array(numbers)) if numbers else [], store.columns()
    ids = by_letter(records)
    for number, row in zip(numbers, rows, strict=True):
        record = records[number]
        kept = replace(record, negatives=record.negatives[:2])
        for name in (
            "id",
            "query",
            "positives",
            "negatives",
            "score",
            "positive_scores",
            "negative_scores",
        ):
            assert getattr(row, name) == getattr(kept, name)
        assert row.query_ids == ids.queries[number]
        assert (row.positive_ids, row.negative_ids) == (ids.positives[number], ids.negatives[number])
        assert row.row_group == RowGroup(
            record.source,
            record.task_type,
            record.language,
            record.score is not None,
            bool(record.negatives),
            bool(record.positive_scores and record.negative_scores),
        )
    assert [columns.row_groups[number].source for number in columns.row_group] == [
        record.source for record in records
    ]
    assert columns.longest.tolist() == [
        max(map(len, [ids.queries[i], *ids.positives[i], *ids.negatives[i]])) for i in range(len(records))
    ]
    for source, (low, high) in columns.score_ranges.items():
        scores = [r.score for r in records if r.source == source and r.score is not None]
        assert (low, high) == (min(scores), max(scores))


def test_an_unfinished_folder_does_not_get_its_name(tmp_path: Path) -> None:
    def broken() -> Any:
        yield Record("1", "q", ["p"], [], "sts", "ru")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tokens(tmp_path / "tokens", broken(), by_letter)
    assert not (tmp_path / "tokens").exists()
    write_tokens(tmp_path / "tokens", [Record("2", "q", ["p"], [], "sts", "ru")], by_letter)
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]
    assert TokenStore(tmp_path / "tokens").rows(np.array([0]))[0].id == "2"


def test_a_resumed_training_does_not_tokenise_again(make_embedder, record, tmp_path: Path) -> None:
    rows = [record(f"вопрос {i}", [f"ответ {i}"]) for i in range(3)]
    embedder, config = make_embedder(), ContrastiveConfig()
    first = tokenised(embedder, rows, config, tmp_path / "tokens").rows(np.arange(3))
    embedder.tokenize = None
    assert tokenised(embedder, iter(()), config, tmp_path / "tokens").rows(np.arange(3)) == first


def test_damaged_tokens_are_written_again(make_embedder, record, tmp_path: Path) -> None:
    rows = [record(f"вопрос {i}", [f"ответ {i}"]) for i in range(3)]
    embedder, config = make_embedder(), ContrastiveConfig()
    first = tokenised(embedder, rows, config, tmp_path / "tokens").rows(np.arange(3))
    file = tmp_path / "tokens" / tokens.ROWS
    before = file.stat()
    with file.open("r+b") as raw:
        raw.seek(before.st_size // 3)
        raw.write(bytes(64))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert tokenised(embedder, rows, config, tmp_path / "tokens").rows(np.arange(3)) == first
