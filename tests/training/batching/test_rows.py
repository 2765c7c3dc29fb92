"""Splitting rows by source and score, and pooling small sources, by their row groups alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.errors import InputError
from embedline.training.batching.rows import Columns, RowGroup, pool_small, split_by_source


def columns(rows: list[tuple[str, str, float | None]]) -> Columns:
    """Rows of (source, task type, score)."""
    row_groups: dict[RowGroup, int] = {}
    numbers = [
        row_groups.setdefault(RowGroup(source, task, "ru", scored=score is not None), len(row_groups))
        for source, task, score in rows
    ]
    ranges: dict[str, tuple[float, float]] = {}
    for source, _, score in rows:
        if score is not None:
            low, high = ranges.get(source, (score, score))
            ranges[source] = min(low, score), max(high, score)
    lengths = np.ones(len(rows), dtype=np.int32)
    return Columns(list(row_groups), np.array(numbers, dtype=np.int32), lengths, lengths, ranges)


@settings(deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("ab"), st.just("sts"), st.one_of(st.none(), st.integers(0, 5).map(float))),
        min_size=1,
        max_size=14,
    )
)
def test_scored_and_unscored_rows_are_split(rows: list[tuple[str, str, float | None]]) -> None:
    alike = [
        name
        for name in "ab"
        if len({score for source, _, score in rows if source == name and score is not None}) == 1
    ]
    if alike:
        with pytest.raises(InputError, match=f"all scores of {alike[0]} are .*: nothing is ranked"):
            split_by_source(columns(rows), {})
        return
    parts = split_by_source(columns(rows), {"a": 3.0})
    assert sorted(n for part in parts.values() for n in part.numbers.tolist()) == list(range(len(rows)))
    for name, part in parts.items():
        assert part.numbers.tolist() == sorted(part.numbers.tolist())
        found = [rows[number] for number in part.numbers]
        assert {source for source, _, _ in found} == {name[0]}
        assert {score is not None for _, _, score in found} == {part.row_group.scored}
        both = {score is None for source, _, score in rows if source == name[0]} == {True, False}
        assert name == (f"{name[0]} (scored)" if part.row_group.scored and both else name[0])
        assert part.weight == (3.0 if name[0] == "a" else 1.0)


def test_by_task_a_source_is_one_part_each_task_type() -> None:
    found = columns(
        [("a", "sts", 1.0), ("a", "sts", None), ("a", "bitext", None), ("a", "sts", 2.0), ("b", "sts", None)]
    )
    parts = split_by_source(found, {"a": 2.0}, by_task=True)
    assert {name: part.numbers.tolist() for name, part in parts.items()} == {
        "a (bitext)": [2],
        "a (sts)": [1],
        "a (sts) (scored)": [0, 3],
        "b": [4],
    }
    assert all(part.weight == (2.0 if name.startswith("a") else 1.0) for name, part in parts.items())
    assert list(split_by_source(found, {})) == ["a", "a (scored)", "b"]


def test_row_groups_that_are_not_chosen_are_left_out() -> None:
    found = columns([("a", "sts", None), ("b", "sts", 1.0), ("b", "sts", 2.0)])
    assert list(split_by_source(found, {}, lambda row_group: row_group.scored)) == ["b"]


def test_small_scored_sources_are_pooled_with_scored_ones_only() -> None:
    parts = split_by_source(
        columns(
            [
                ("a", "sts", 1.0),
                ("a", "sts", 2.0),
                ("b", "sts", None),
                ("c", "sts", 3.0),
                ("c", "sts", 0.0),
                *[("d", "sts", None)] * 4,
            ]
        ),
        {"a": 3.0},
    )
    pooled = pool_small(parts, 4)
    assert {name: source.numbers.tolist() for name, source in pooled.items()} == {
        "d": [5, 6, 7, 8],
        "small sts ru scored": [0, 1, 3, 4],
        "small sts ru": [2],
    }
    assert pooled["small sts ru scored"].weight == 2.0
