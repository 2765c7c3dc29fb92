"""The composition of a training's batches, against counting them one by one."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.config.training import ContrastiveConfig
from embedline.errors import InputError
from embedline.training.batching.batches import Draws, draw_batches
from embedline.training.batching.buckets import Group, groups
from embedline.training.batching.mixture import Mixture, mixture_of
from embedline.training.batching.rows import Columns, RowGroup, split_by_source
from embedline.training.contrastive import training as contrastive
from embedline.training.contrastive.step import ContrastiveStep
from embedline.training.contrastive.training import train_contrastive

# GigaEmbeddings' shares of task types, as the preset asks for them.
GIGA = {"short-long": 33, "long-short": 24, "sts": 19, "bitext": 18, "short-short": 3, "long-long": 3}


def columns(sizes: dict[str, int], tasks: dict[str, str], seed: int = 0) -> Columns:
    row_groups = [RowGroup(name, tasks[name], "ru") for name in sizes]
    kind = np.repeat(np.arange(len(row_groups)), list(sizes.values()))
    longest = np.random.default_rng(seed).integers(3, 60, len(kind))
    return Columns(row_groups, kind, longest, longest + 3, {})


def drawn(
    found: Columns, weights: dict[str, float], steps: int, **values: Any
) -> tuple[Draws, dict[str, Group], Mixture]:
    config = ContrastiveConfig(**({"batch": 8, "size_exponent": 0.0} | values))
    of = groups(split_by_source(found, weights, by_task=bool(config.task_shares)), config, found.longest)
    sizes = {name: len(group.source) for name, group in of.items()}
    shares = {name: group.share for name, group in of.items()}
    draws = draw_batches(
        sizes, shares, batch={n: group.batch for n, group in of.items()}, steps=steps, seed=1
    )
    return draws, of, mixture_of(draws, of, found)


def test_gigas_mix_of_task_types_is_drawn_within_one_percent() -> None:
    """Two sources a task type share its weight."""
    tasks = {f"{task} {i}": task for task in GIGA for i in range(2)}
    found = columns(dict.fromkeys(tasks, 40), tasks)
    _, _, mixture = drawn(found, {name: GIGA[task] / 2 for name, task in tasks.items()}, 200)
    for task, percent in GIGA.items():
        assert mixture.task_types[task].requested == pytest.approx(percent / 100)
        assert mixture.task_types[task].drawn == pytest.approx(percent / 100, abs=0.01)
    for name, task in tasks.items():
        assert mixture.sources[name].drawn == pytest.approx(GIGA[task] / 200, abs=0.01)
    assert mixture.error <= 0.01


def test_gigas_mix_is_a_setting_whatever_the_sources_and_their_sizes() -> None:
    """Rows of one source are of several task types; some sources are too small to make a batch."""
    row_groups = [RowGroup(f"{task} {i}", task, "ru") for task in GIGA for i in range(3)]
    row_groups += [RowGroup("mixed", task, "ru") for task in GIGA]
    sizes = [*(5 + 11 * i for i in range(len(row_groups) - 6)), 200, 30, 9, 50, 90, 10]
    longest = np.random.default_rng(0).integers(3, 60, sum(sizes))
    found = Columns(row_groups, np.repeat(np.arange(len(row_groups)), sizes), longest, longest, {})
    buckets = [{"tokens": 20, "batch": 8}, {"tokens": 64, "batch": 4}]
    for more in ({}, {"buckets": buckets}):
        draws, of, mixture = drawn(found, {"mixed": 3.0}, 500, task_shares=GIGA, size_exponent=0.6, **more)
        for task, percent in GIGA.items():
            assert mixture.task_types[task].requested == pytest.approx(percent / 100)
            assert mixture.task_types[task].drawn == pytest.approx(percent / 100, abs=0.01)
        for draw in draws:
            rows = of[draw.source].source.numbers[draw.rows]
            assert len({found.row_groups[found.row_group[row]].task_type for row in rows}) == 1


def test_the_sources_of_a_task_type_divide_its_share_by_weight_and_rows() -> None:
    found = columns({"a": 90, "b": 40, "c": 10}, {"a": "sts", "b": "bitext", "c": "sts"})
    _, of, _ = drawn(found, {"c": 3.0}, 10, task_shares={"sts": 1, "bitext": 3}, size_exponent=0.5)
    shares = {name: group.share for name, group in of.items()}
    assert shares["b"] == pytest.approx(0.75)
    assert shares["c"] / shares["a"] == pytest.approx(3 * 10**0.5 / 90**0.5)


def test_task_types_that_are_not_there_leave_their_share_to_the_others() -> None:
    found = columns({"a": 90, "b": 40}, {"a": "sts", "b": "bitext"})
    _, of, _ = drawn(found, {}, 10, task_shares={"sts": 20, "bitext": 30, "long-long": 50})
    assert {name: group.share for name, group in of.items()} == pytest.approx({"a": 0.4, "b": 0.6})


def test_a_task_type_without_a_share_is_an_error_that_names_it() -> None:
    found = columns({"a": 90, "b": 40}, {"a": "sts", "b": "bitext"})
    with pytest.raises(InputError, match=r"task_shares: there are records of task type bitext") as error:
        drawn(found, {}, 10, task_shares={"sts": 1})
    assert error.value.exit_code == 2


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcd"), st.integers(8, 60), min_size=1),
    weight=st.floats(0.2, 5),
    limit=st.floats(0.4, 1),
    data=st.data(),
)
def test_drawn_shares_are_near_the_requested_ones(
    sizes: dict[str, int], weight: float, limit: float, data: st.DataObject
) -> None:
    tasks = {name: data.draw(st.sampled_from(["sts", "short-long"])) for name in sizes}
    found = columns(sizes, tasks)
    draws, _, mixture = drawn(found, {"a": weight}, 200, max_share=limit, size_exponent=0.7)
    steps = Counter(draw.source for draw in draws)
    assert {name: share.drawn for name, share in mixture.sources.items()} == pytest.approx(
        {name: steps[name] / 200 for name in sizes}
    )
    for task, share in mixture.task_types.items():
        assert share.drawn == pytest.approx(sum(steps[n] for n in sizes if tasks[n] == task) / 200)
    assert sum(share.requested for share in mixture.sources.values()) == pytest.approx(1)
    assert all(abs(share.requested - share.drawn) <= 0.01 for share in mixture.sources.values())


def test_a_batch_of_several_sources_counts_for_each_by_its_rows() -> None:
    found = columns({"a": 100, "b": 6, "c": 2}, dict.fromkeys("abc", "sts"))
    _, _, mixture = drawn(found, {}, 200)
    assert mixture.groups.keys() == {"a", "small sts ru"}
    for name, part in (("b", 6 / 8), ("c", 2 / 8)):
        assert mixture.sources[name].requested == pytest.approx(
            part * mixture.groups["small sts ru"][1].requested
        )
        assert mixture.sources[name].drawn == pytest.approx(part * mixture.groups["small sts ru"][1].drawn)


def test_the_heaviest_batches_equal_brute_force() -> None:
    draws, of, mixture = drawn(columns({"a": 90, "b": 70}, dict.fromkeys("ab", "sts")), {}, 60)
    found = columns({"a": 90, "b": 70}, dict.fromkeys("ab", "sts"))
    rows = [of[draw.source].source.numbers[draw.rows] for draw in draws]
    tokens = [int(found.tokens[chosen].sum()) for chosen in rows]
    longest = [int(found.longest[chosen].max()) for chosen in rows]
    assert mixture.heaviest == (tokens.index(max(tokens)), longest.index(max(longest)))


def test_the_heaviest_batches_come_first(
    make_embedder, record, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [record(f"{text} {i}", [f"{i} {text}" + " слово" * (i % 7)]) for i, text in enumerate(texts * 5)]
    seen: list[list[int]] = []
    real = ContrastiveStep.__call__

    def watched(self: Any, module: Any, batch: dict[str, Any]) -> Any:
        seen.append([len(ids) for ids in batch.ids])
        return real(self, module, batch)

    monkeypatch.setattr(ContrastiveStep, "__call__", watched)
    train_contrastive(
        make_embedder(),
        rows,
        ContrastiveConfig(batch=4, steps=9, batch_tokens=64, prompts=False),
        weights={},
        seed=0,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda *_: None,
    )
    assert sum(seen[0]) == max(map(sum, seen)) > min(map(sum, seen))
    assert max(max(seen[0]), max(seen[1])) == max(map(max, seen))


def test_buckets_belong_to_their_source_and_sources_to_their_task_type(
    make_embedder, record, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_wholes: list[Any] = []

    def watched(*given: Any, **named: Any) -> Draws:
        given_wholes.append(named["within"])
        return draw_batches(*given, **named)

    monkeypatch.setattr(contrastive, "draw_batches", watched)
    rows = [
        replace(record(text[:12], [f"{i} {'слово ' * 4 * (i % 6)}{text}"], task_type=task), source=source)
        for i, text in enumerate(texts * 12)
        for source, task in (("a", "sts"), ("b", "short-long"))
    ]
    train_contrastive(
        make_embedder(),
        rows,
        ContrastiveConfig(
            buckets=[{"tokens": 20, "batch": 2}, {"tokens": 32, "batch": 2}], steps=2, prompts=False
        ),
        weights={},
        seed=0,
        bf16=False,
        checkpoints=tmp_path,
        on_metrics=lambda *_: None,
    )
    assert given_wholes == [
        {
            "a, 20 tokens": ("sts", "a"),
            "b, 20 tokens": ("short-long", "b"),
            "a, 32 tokens": ("sts", "a"),
            "b, 32 tokens": ("short-long", "b"),
        }
    ]
