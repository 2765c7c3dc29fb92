"""Choosing negatives: against an oracle written from the rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.mining.negatives import MiningCounts, MiningRules, choose_negatives, pool_of


@st.composite
def candidates(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    size = draw(st.integers(0, 25))
    scores = sorted(draw(st.lists(st.floats(-1, 1, width=32), min_size=size, max_size=size)), reverse=True)
    places = draw(st.permutations(range(30)))[:size]
    return np.array(scores, np.float32), np.array(places, np.int64)


@settings(max_examples=200, deadline=None)
@given(
    found=candidates(),
    positives=st.frozensets(st.integers(0, 29), max_size=6),
    positive_score=st.floats(-0.5, 1),
    count=st.integers(1, 8),
    margin=st.floats(0.5, 1),
    skip_top=st.integers(0, 4),
    seed=st.none() | st.integers(0, 9),
)
def test_negatives_obey_the_rule(
    found: tuple[np.ndarray, np.ndarray],
    positives: frozenset[int],
    positive_score: float,
    count: int,
    margin: float,
    skip_top: int,
    seed: int | None,
) -> None:
    scores, indices = found
    draw = None if seed is None else np.random.default_rng(seed)
    taken, counts = choose_negatives(
        scores,
        indices,
        MiningRules(count, margin, skip_top),
        positives=positives,
        positive_score=positive_score,
        draw=draw,
    )
    others = [rank for rank in range(len(indices)) if int(indices[rank]) not in positives]
    behind = others[skip_top:]
    fit = [r for r in behind if positive_score > 0 and float(scores[r]) < margin * positive_score]
    chosen = [negative.rank for negative in taken]
    assert len(chosen) == min(count, len(fit))
    assert set(chosen) <= set(fit)
    assert chosen == sorted(chosen)
    if seed is None:
        assert chosen == fit[:count]
    for negative in taken:
        assert negative.index == indices[negative.rank]
        assert negative.score == scores[negative.rank]
        assert negative.positive_score == positive_score
    assert counts == MiningCounts(
        candidates=len(indices),
        known_positive=len(indices) - len(others),
        skipped_top=min(skip_top, len(others)),
        above_margin=len(behind) - len(fit),
        beyond_need=len(fit) - len(chosen),
        taken=len(chosen),
    )
    parts = (counts.known_positive, counts.skipped_top, counts.above_margin, counts.beyond_need, counts.taken)
    assert counts.candidates == sum(parts)


def test_a_random_draw_reaches_all_that_qualify_and_repeats_for_a_seed() -> None:
    scores, indices = np.linspace(0.5, 0.1, 10, dtype=np.float32), np.arange(10)

    def chosen(seed: int) -> list[int]:
        taken, _ = choose_negatives(
            scores,
            indices,
            MiningRules(count=3, margin=0.95),
            positives=frozenset(),
            positive_score=1.0,
            draw=np.random.default_rng(seed),
        )
        return [negative.index for negative in taken]

    assert chosen(1) == chosen(1)
    assert {index for seed in range(40) for index in chosen(seed)} == set(range(10))


@pytest.mark.parametrize(("score", "taken"), [(0.5, 0), (0.49, 1), (-0.9, 1)])
def test_a_candidate_at_the_bar_is_not_below_it(score: float, taken: int) -> None:
    chosen, _ = choose_negatives(
        np.array([score], np.float32),
        np.array([3]),
        MiningRules(count=1, margin=0.5),
        positives=frozenset(),
        positive_score=1.0,
    )
    assert len(chosen) == taken


@pytest.mark.parametrize(("positive", "score"), [(np.nan, 0.1), (0.9, np.nan)])
def test_a_nan_score_qualifies_no_candidate(positive: float, score: float) -> None:
    taken, counts = choose_negatives(
        np.array([score], np.float32),
        np.array([3]),
        MiningRules(count=1, margin=0.95),
        positives=frozenset(),
        positive_score=positive,
    )
    assert (taken, counts.above_margin) == ([], 1)


@given(texts=st.lists(st.text(max_size=3)))
def test_the_pool_holds_each_text_once(texts: list[str]) -> None:
    pool = pool_of(texts)
    assert list(pool) == list(dict.fromkeys(texts))
    assert list(pool.values()) == list(range(len(pool)))
