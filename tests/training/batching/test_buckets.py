"""Batches of records of like length."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedline.config.training import Bucket, ContrastiveConfig
from embedline.errors import InputError
from embedline.training.batching.batches import Draw, draw_batches
from embedline.training.batching.buckets import Group, bucket_of, groups
from embedline.training.batching.pairs import ContrastiveBatches, tokenised
from embedline.training.batching.rows import Columns, RowGroup, split_by_source
from embedline.training.contrastive.training import train_contrastive

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)
BUCKETS = [Bucket(tokens=8, batch=6), Bucket(tokens=16, batch=4), Bucket(tokens=32, batch=2)]
LIMITS = [8, 16, 32]


def config(**values: Any) -> ContrastiveConfig:
    base = {"buckets": BUCKETS, "steps": 30, "batch_tokens": 64, "size_exponent": 1.0}
    return ContrastiveConfig(**(base | values))


def columns(sources: dict[str, list[int]]) -> Columns:
    """The lengths of each source's rows, one source after another."""
    kind = np.repeat(np.arange(len(sources)), [len(lengths) for lengths in sources.values()])
    longest = np.array([length for lengths in sources.values() for length in lengths])
    return Columns([RowGroup(name, "short-long", "ru") for name in sources], kind, longest, longest, {})


def made(sources: dict[str, list[int]], weights: dict[str, float], **values: Any) -> dict[str, Group]:
    found = columns(sources)
    return groups(split_by_source(found, weights), config(**values), found.longest)


@given(lengths=LENGTHS)
def test_a_record_goes_to_the_first_bucket_it_fits_in_or_to_the_last(lengths: list[int]) -> None:
    expected = [next((i for i, limit in enumerate(LIMITS) if n <= limit), 2) for n in lengths]
    assert bucket_of(lengths, LIMITS).tolist() == expected


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sources=st.dictionaries(st.sampled_from("abcd"), LENGTHS, min_size=1),
    weight=st.floats(0.1, 10),
    seed=st.integers(0, 9),
)
def test_batches_by_bucket_obey_their_laws(sources: dict[str, list[int]], weight: float, seed: int) -> None:
    found, given = made(sources, {"a": weight}), columns(sources)
    rows = [row for group in found.values() for row in group.source.numbers.tolist()]
    assert sorted(rows) == list(range(len(given.row_group)))  # every record is in one group
    assert sum(group.share for group in found.values()) == pytest.approx(1)
    sizes = {name: len(group.source) for name, group in found.items()}
    batches = {name: group.batch for name, group in found.items()}
    shares = {name: group.share for name, group in found.items()}
    if all(sizes[name] < batches[name] for name in found):
        with pytest.raises(InputError, match=r"rows, one batch needs"):
            draw_batches(sizes, shares, batch=batches, steps=30, seed=seed)
        return
    draws = draw_batches(sizes, shares, batch=batches, steps=30, seed=seed)
    seen: Counter[tuple[str, int, int]] = Counter()
    for draw in draws:
        group = found[draw.source]
        chosen = group.source.numbers[draw.rows].tolist()
        limit = LIMITS.index(group.limit or 0)
        assert set(bucket_of(given.longest[chosen], LIMITS).tolist()) == {limit}
        assert len(chosen) == min(BUCKETS[limit].batch, len(group.source)) >= 2
        if not group.source.name.startswith("small"):
            assert {given.row_groups[given.row_group[row]].source for row in chosen} == {group.source.name}
        seen.update((draw.source, draw.epoch, row) for row in chosen)
    assert set(seen.values()) == {1}  # no row twice in a pass


def test_the_buckets_of_a_source_are_drawn_so_that_all_rows_are_seen_equally_often() -> None:
    found = made({"a": [5] * 60 + [30] * 20, "b": [10] * 80}, {})
    assert found["a, 8 tokens"].share + found["a, 32 tokens"].share == pytest.approx(0.5)
    visits = {name: group.share * group.batch / len(group.source) for name, group in found.items()}
    assert visits["a, 8 tokens"] == pytest.approx(visits["a, 32 tokens"])  # of a row, a step


def test_sources_that_cannot_fill_a_bucket_are_pooled_there_alone() -> None:
    found = made({"a": [5] * 60 + [30], "b": [30], "c": [5, 5]}, {})
    assert {name: len(group.source) for name, group in found.items()} == {
        "a, 8 tokens": 60,
        "small short-long ru, 8 tokens": 2,
        "small short-long ru, 32 tokens": 2,
    }


def test_no_bucket_with_enough_rows_is_an_error_that_names_the_fullest() -> None:
    found = made({"a": [5] * 5 + [10] * 2}, {})
    with pytest.raises(
        InputError, match=r"largest source \(small short-long ru, 8 tokens\) has 5 rows"
    ) as error:
        draw_batches(
            {name: len(group.source) for name, group in found.items()},
            {name: group.share for name, group in found.items()},
            batch={name: group.batch for name, group in found.items()},
            steps=3,
            seed=0,
        )
    assert "buckets" in str(error.value)


def test_a_length_is_that_of_the_longest_text_with_its_prompt_as_it_is_cut(
    make_embedder, record, tmp_path: Path
) -> None:
    embedder = make_embedder()
    values = config(negatives=1, document_length=20)
    rows = [
        record("слово " * 50, ["да"]),  # a query is cut at 16
        record("да", ["слово " * 50]),
        record("да", ["да", "нет"], ["слово " * 3, "слово " * 50]),  # the second negative is not used
    ]
    store = tokenised(embedder, [replace(row, source="faq") for row in rows], values, tmp_path / "tokens")
    found = store.columns()
    assert found.longest[:2].tolist() == [16, 20]
    draw = draw_batches({"faq": 3}, {"faq": 1.0}, batch=3, steps=1, seed=0)
    batch = ContrastiveBatches(store, split_by_source(found, {}), draw)[0]
    queries = dict(zip(draw[0].rows.tolist(), batch.ids, strict=False))
    assert found.longest[2] >= len(queries[2]) > len(embedder.tokenize(["да"], max_length=16)[0])


def test_a_rows_tokens_are_what_a_batch_takes_of_it(make_embedder, record, tmp_path: Path) -> None:
    rows = [record("вопрос", ["да"], ["слово " * 9, "нет"]), record("да " * 9, ["нет", "слово " * 50])]
    store = tokenised(make_embedder(), rows, config(negatives=1), tmp_path / "tokens")
    batch = ContrastiveBatches(store, split_by_source(store.columns(), {}), [Draw("", np.arange(2), 1)])[0]
    lengths = [len(ids) for ids in batch.ids]
    assert batch.query_index == [0, 1, 0]
    assert store.columns().tokens.tolist() == [lengths[0] + lengths[2] + lengths[4], lengths[1] + lengths[3]]


def test_texts_beyond_the_last_bucket_are_cut_to_it(make_embedder, record, tmp_path: Path) -> None:
    values = config(buckets=[Bucket(tokens=12, batch=2)])
    rows = [record("слово " * 50, ["слово " * 50])] * 2
    [row, _] = tokenised(make_embedder(), rows, values, tmp_path / "tokens").rows(np.array([1, 0]))
    assert [len(ids) for ids in (row.query_ids, *row.positive_ids)] == [12, 12]


def test_a_training_by_buckets(make_embedder, record, texts: list[str], tmp_path: Path) -> None:
    rows = [record(f"{i}", [f"да {i}" + f" {text}" * 3 * (i % 2)]) for i, text in enumerate(texts * 3)]
    values = config(
        buckets=[Bucket(tokens=14, batch=8), Bucket(tokens=24, batch=4)],
        steps=20,
        log_every=10,
        prompts=False,
    )
    metrics: list[dict[str, float]] = []
    mixture = train_contrastive(
        make_embedder(),
        [replace(row, source="faq") for row in rows],
        values,
        weights={},
        seed=0,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda each, _: metrics.append(each),
    )
    assert set(mixture.groups) == {"faq, 14 tokens", "faq, 24 tokens"}
    assert sum(count for count, _ in mixture.groups.values()) == mixture.records == len(rows)
    assert all(share.drawn > 0 for _, share in mixture.groups.values())
    assert metrics[-1]["loss"] > 0
