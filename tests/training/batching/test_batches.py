from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.errors import InputError
from embedline.training.batching.batches import Draw, apportioned, draw_batches, source_shares

sizes_strategy = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1)


def even(sizes: dict[str, int]) -> dict[str, float]:
    return {name: 1 / len(sizes) for name in sizes}


def plain(draws: Sequence[Draw]) -> list[tuple[str, list[int], int]]:
    return [(draw.source, draw.rows.tolist(), draw.epoch) for draw in draws]


@settings(max_examples=60, deadline=None)
@given(sizes=sizes_strategy, batch=st.integers(2, 20), steps=st.integers(1, 40), seed=st.integers(0, 9))
def test_batches_are_reproducible_and_repeat_no_row_in_a_pass(
    sizes: dict[str, int], batch: int, steps: int, seed: int
) -> None:
    if max(sizes.values()) < batch:
        with pytest.raises(InputError, match="one batch needs"):
            draw_batches(sizes, even(sizes), batch=batch, steps=steps, seed=seed)
        return
    draws = draw_batches(sizes, even(sizes), batch=batch, steps=steps, seed=seed)
    again = draw_batches(dict(reversed(sizes.items())), even(sizes), batch=batch, steps=steps, seed=seed)
    assert plain(draws) == plain(again)
    assert len(draws) == steps
    seen: Counter[tuple[str, int, int]] = Counter()
    for draw in draws:
        assert len(draw.rows) == min(batch, sizes[draw.source]) >= 2
        assert draw.rows.min() >= 0
        assert draw.rows.max() < sizes[draw.source]
        seen.update((draw.source, draw.epoch, row) for row in draw.rows.tolist())
    assert set(seen.values()) == {1}  # no row twice in a pass
    for name in sizes:  # passes follow one another, each as full as whole batches allow
        epochs = [draw.epoch for draw in draws if draw.source == name]
        per_pass = max(1, sizes[name] // batch)
        assert epochs == [i // per_pass for i in range(len(epochs))]


def test_another_seed_draws_other_batches() -> None:
    one, other = (
        draw_batches({"a": 50, "b": 50}, {"a": 0.5, "b": 0.5}, batch=8, steps=20, seed=seed)
        for seed in (0, 1)
    )
    assert plain(one) != plain(other)


def test_two_sources_of_one_size_are_shuffled_differently() -> None:
    draws = draw_batches({"a": 32, "b": 32}, {"a": 0.5, "b": 0.5}, batch=32, steps=20, seed=0)
    first = {draw.source: draw.rows.tolist() for draw in reversed(draws)}
    assert first["a"] != first["b"]


@settings(deadline=None)
@given(
    shares=st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), min_size=1),
    steps=st.integers(1, 400),
    seed=st.integers(0, 9),
)
def test_each_source_gets_its_share_of_the_steps(shares: dict[str, float], steps: int, seed: int) -> None:
    """From a hundred steps on, a source is within 1 % of its share."""
    draws = draw_batches(dict.fromkeys(shares, 20), shares, batch=4, steps=steps, seed=seed)
    counts = Counter(draw.source for draw in draws)
    for name, share in shares.items():
        assert abs(counts[name] - steps * share / sum(shares.values())) < 1 + 1e-6


def test_the_sources_take_turns_at_random() -> None:
    draws = draw_batches({"a": 50, "b": 50}, {"a": 0.5, "b": 0.5}, batch=8, steps=400, seed=0)
    names = [draw.source for draw in draws]
    changes = sum(one != other for one, other in pairwise(names))
    assert 150 < changes < 250
    assert 60 < names[:200].count("a") < 140


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 9))
def test_batches_come_in_any_order_and_some_can_be_put_first(data: st.DataObject, seed: int) -> None:
    sizes = data.draw(st.dictionaries(st.sampled_from("abc"), st.integers(4, 30), min_size=1))
    draws = draw_batches(sizes, even(sizes), batch=4, steps=30, seed=seed)
    whole = plain(list(draws))
    some = data.draw(st.permutations(range(30)))
    assert plain([draws[i] for i in some]) == [whole[i] for i in some]
    first = data.draw(st.lists(st.integers(0, 29), min_size=1, max_size=3))
    led = plain(list(draws.led_by(first)))
    leading = list(dict.fromkeys(first))
    assert led == [whole[i] for i in (*leading, *(i for i in range(30) if i not in leading))]


def test_a_data_set_smaller_than_a_batch_is_refused_with_its_name() -> None:
    with pytest.raises(
        InputError, match=r"the largest source \(faq\) has 7 rows, one batch needs 8"
    ) as error:
        draw_batches({"faq": 7, "other": 3}, {"faq": 0.5, "other": 0.5}, batch=8, steps=1, seed=0)
    assert error.value.exit_code == 2


def test_a_batch_of_one_passage_is_possible() -> None:
    assert plain(draw_batches({"corpus": 1}, {"corpus": 1.0}, batch=1, steps=2, seed=0)) == [
        ("corpus", [0], 0),
        ("corpus", [0], 1),
    ]


@settings(deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**6), min_size=1),
    exponent=st.floats(0, 1),
    limit=st.floats(0.05, 1),
    weight=st.floats(0.01, 100),
)
def test_shares_are_a_distribution_under_the_cap(
    sizes: dict[str, int], exponent: float, limit: float, weight: float
) -> None:
    shares = source_shares(sizes, {"a": weight}, exponent=exponent, max_share=limit)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares.keys() == sizes.keys()
    assert max(shares.values()) <= max(limit, 1 / len(sizes)) + 1e-6
    free = {name: sizes[name] ** exponent * (weight if name == "a" else 1) for name in sizes}
    below = [name for name in sizes if shares[name] < max(limit, 1 / len(sizes)) - 1e-6]
    for one in below:  # what is below the cap keeps its proportions
        for other in below:
            assert shares[one] * free[other] == pytest.approx(shares[other] * free[one], rel=1e-6)


def test_what_the_cap_cuts_goes_to_the_others() -> None:
    shares = source_shares({"a": 80, "b": 15, "c": 5}, {}, exponent=1, max_share=0.5)
    assert shares == pytest.approx({"a": 0.5, "b": 0.375, "c": 0.125})


@settings(max_examples=60, deadline=None)
@given(
    shares=st.dictionaries(
        st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd"), st.sampled_from("12345")),
        st.floats(0.01, 1),
        min_size=1,
    ),
    steps=st.integers(1, 300),
)
def test_task_types_and_sources_get_their_shares(
    shares: dict[tuple[str, str, str], float], steps: int
) -> None:
    names = {"".join(path): path for path in shares}
    draws = draw_batches(
        dict.fromkeys(names, 20),
        {name: shares[path] for name, path in names.items()},
        batch=4,
        steps=steps,
        seed=0,
        within={name: (path[0], "".join(path[:2])) for name, path in names.items()},
    )
    assert len(draws) == steps
    for depth in (1, 2, 3):
        drawn = Counter(draw.source[:depth] for draw in draws)
        for whole in {path[:depth] for path in shares}:
            above = whole[: depth - 1]
            seats = Counter(draw.source[: depth - 1] for draw in draws)["".join(above)]
            share_of_whole, share_of_above = (
                sum(share for path, share in shares.items() if path[: len(which)] == which)
                for which in (whole, above)
            )
            assert abs(drawn["".join(whole)] - share_of_whole / share_of_above * seats) < 1


def test_sources_without_a_whole_are_possible() -> None:
    sizes = dict.fromkeys("abc", 20)
    draws = draw_batches(sizes, even(sizes), batch=4, steps=30, seed=0, within={"a": ("one",), "b": ("one",)})
    assert Counter(draw.source for draw in draws) == {"a": 10, "b": 10, "c": 10}


def test_steps_left_over_go_where_most_was_cut_off() -> None:
    assert apportioned([0.1, 0.45, 0.45], 2).tolist() == [0, 1, 1]
    assert apportioned([0.45, 0.1, 0.45], 2).tolist() == [1, 0, 1]
