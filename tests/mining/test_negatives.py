"""Choosing negatives: against an oracle written from the rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.mining.negatives import Candidates, MiningCounts, MiningRules, choose_negatives, deal, pool_of


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
    taken, every = choose_negatives(
        {"model": Candidates(scores, indices)},
        MiningRules(count, margin, skip_top),
        positives=positives,
        positive_score=positive_score,
        draw=draw,
    )
    counts = every["model"]
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
            {"model": Candidates(scores, indices)},
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
        {"model": Candidates(np.array([score], np.float32), np.array([3]))},
        MiningRules(count=1, margin=0.5),
        positives=frozenset(),
        positive_score=1.0,
    )
    assert len(chosen) == taken


@pytest.mark.parametrize(("positive", "score"), [(np.nan, 0.1), (0.9, np.nan)])
def test_a_nan_score_qualifies_no_candidate(positive: float, score: float) -> None:
    taken, counts = choose_negatives(
        {"model": Candidates(np.array([score], np.float32), np.array([3]))},
        MiningRules(count=1, margin=0.95),
        positives=frozenset(),
        positive_score=positive,
    )
    assert (taken, counts["model"].above_margin) == ([], 1)


@given(texts=st.lists(st.text(max_size=3)))
def test_the_pool_holds_each_text_once(texts: list[str]) -> None:
    pool = pool_of(texts)
    assert list(pool) == list(dict.fromkeys(texts))
    assert list(pool.values()) == list(range(len(pool)))


def found(**strategies: list[tuple[int, float]]) -> dict[str, Candidates]:
    """Candidates by strategy, from (index, score) pairs."""
    return {
        name: Candidates(np.array([s for _, s in each]), np.array([i for i, _ in each], int))
        for name, each in strategies.items()
    }


def chosen(candidates: dict[str, Candidates], turns: list[str], **rules: int) -> list[tuple[str, int]]:
    taken, counts = choose_negatives(
        candidates,
        MiningRules(len(turns), 0.9, **rules),
        positives=frozenset({0}),
        positive_score=1.0,
        turns=turns,
    )
    for name, each in counts.items():
        parts = [value for key, value in vars(each).items() if key != "candidates"]
        assert each.candidates == sum(parts) == len(candidates[name].indices)
    return [(pick.strategy, pick.index) for pick in taken]


MODEL = [(0, 0.99), (1, 0.95), (2, 0.8), (3, 0.7), (4, 0.6)]
BM25 = [(1, 0.95), (3, 0.7), (0, 0.99), (7, 0.1), (2, 0.8)]


def test_strategies_take_turns_and_no_negative_comes_twice() -> None:
    turns = ["model", "bm25", "model", "bm25"]
    expected = [("model", 2), ("bm25", 3), ("model", 4), ("bm25", 7)]
    assert chosen(found(model=MODEL, bm25=BM25), turns) == expected


def test_a_strategy_with_too_few_candidates_is_topped_up_from_the_other() -> None:
    candidates = found(model=MODEL, bm25=[(3, 0.7)])
    turns = ["bm25", "bm25", "model", "bm25"]
    assert chosen(candidates, turns) == [("bm25", 3), ("model", 2), ("model", 4)]
    assert chosen(found(model=[], bm25=BM25), ["model", "model"]) == [("bm25", 3), ("bm25", 7)]
    assert chosen(found(model=[], bm25=[]), ["model", "bm25"]) == []


def test_a_candidate_above_the_models_margin_is_kept_out_whoever_found_it() -> None:
    assert chosen(found(model=[], bm25=[(5, 0.91), (6, 0.89)]), ["bm25", "bm25"]) == [("bm25", 6)]


def test_what_one_strategy_skips_as_a_likely_positive_no_other_brings_back() -> None:
    candidates = found(model=[(2, 0.8), (4, 0.6)], bm25=[(7, 0.1), (2, 0.8), (3, 0.7)])
    assert chosen(candidates, ["model", "bm25", "model"], skip_top=1) == [("model", 4), ("bm25", 3)]


@given(
    shares=st.dictionaries(st.sampled_from("abcd"), st.floats(0.1, 9), min_size=1),
    length=st.integers(1, 60),
)
def test_every_beginning_of_the_turns_keeps_the_shares(shares: dict[str, float], length: int) -> None:
    turns = [name for name, _ in zip(deal(shares), range(length), strict=False)]
    for name, share in shares.items():
        assert abs(turns.count(name) - length * share / sum(shares.values())) < len(shares)


def test_equal_shares_alternate() -> None:
    assert list(zip(*[deal({"a": 1, "b": 1})] * 3, range(2), strict=False)) == [
        ("a", "b", "a", 0),
        ("b", "a", "b", 1),
    ]
