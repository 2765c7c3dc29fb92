"""Rows of a token table trained in its place, against AdamW on the whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from embedline.config.training import ContrastiveConfig
from embedline.models.embedder import Embedder
from embedline.training.batching.records import Record
from embedline.training.contrastive.training import train_contrastive
from embedline.training.engine import processes
from embedline.training.engine import token_rows as module
from embedline.training.engine.token_rows import TokenRows, token_rows

TOKENS, WIDTH, STEPS = 60, 16, 24
MakeEmbedder = Callable[..., Embedder]


class KilledError(Exception):
    """Stands for a kill in the middle of a step."""


class Model(nn.Module):
    def __init__(self, padding: int | None = 0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(TOKENS, WIDTH, padding_idx=padding)
        self.layer = nn.Linear(WIDTH, 4)

    def loss(self, ids: list[list[int]]) -> Tensor:
        """Two passes, as GradCache makes them; the last token of a batch is padding."""
        return sum((self.layer(self.table(torch.tensor([*row, 0]))) - 1).square().mean() for row in ids)


def batches(steps: int = STEPS, *, every_row: bool = False) -> list[list[list[int]]]:
    """Token 1 in each step, others seldom, tokens from 40 on never."""
    if every_row:
        return [[list(range(30)), list(range(30, TOKENS))]] * steps
    generator = torch.Generator().manual_seed(1)
    return [
        [[1, *torch.randint(2, 40, (3,), generator=generator).tolist()] for _ in range(2)]
        for _ in range(steps)
    ]


def optimizer_of(
    model: Model, weight_decay: float
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=weight_decay, fused=True
    )
    return optimizer, torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, STEPS)


def step(model: Model, ids: list[list[int]], clip: float) -> None:
    for row in ids:
        model.loss([row]).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)


def whole(
    data: list[list[list[int]]], weight_decay: float, *, padding: int | None = 0, clip: float = 100.0
) -> tuple[Model, torch.optim.AdamW]:
    model = Model(padding)
    optimizer, schedule = optimizer_of(model, weight_decay)
    for ids in data:
        step(model, ids, clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model, optimizer


def by_rows(
    data: list[list[list[int]]],
    weight_decay: float,
    *,
    padding: int | None = 0,
    clip: float = 100.0,
    settled_after: tuple[int, ...] = (),
) -> tuple[Model, torch.optim.AdamW]:
    model = Model(padding)
    optimizer, schedule = optimizer_of(model, weight_decay)
    with TokenRows(model.table, [0]) as rows:
        rows.bind(optimizer)
        for number, ids in enumerate(data):
            rows.select(ids)
            assert len(model.table.weight) == len({0, *(token for row in ids for token in row)})
            step(model, ids, clip)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            assert len(model.table.weight) == TOKENS
            if number in settled_after:
                rows.settle()
    return model, optimizer


def states(model: Model, optimizer: torch.optim.AdamW) -> Iterator[Tensor]:
    yield model.table.weight.data
    yield model.layer.weight.data
    yield from (optimizer.state[model.table.weight][name] for name in ("step", "exp_avg", "exp_avg_sq"))


def assert_equal(one: tuple[Model, torch.optim.AdamW], other: tuple[Model, torch.optim.AdamW]) -> None:
    for mine, theirs in zip(states(*one), states(*other), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("padding", [0, None])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_rows_end_bit_for_bit_as_adamw_on_the_whole_table(weight_decay: float, padding: int | None) -> None:
    expected = whole(batches(), weight_decay, padding=padding)
    assert_equal(by_rows(batches(), weight_decay, padding=padding), expected)


def test_a_table_whose_every_row_occurs_is_trained_as_one_parameter() -> None:
    data = batches(every_row=True)
    assert_equal(by_rows(data, 0.1), whole(data, 0.1))


def test_clipped_rows_are_those_of_the_clipped_table() -> None:
    """The norm is a sum over fewer zeros: the last digit may differ."""
    expected, found = whole(batches(), 0.1, clip=0.05), by_rows(batches(), 0.1, clip=0.05)
    for mine, theirs in zip(states(*found), states(*expected), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settled_after", [(0,), (5, 6, 20), tuple(range(STEPS))])
def test_settling_between_steps_changes_no_bit(settled_after: tuple[int, ...]) -> None:
    assert_equal(by_rows(batches(), 0.1, settled_after=settled_after), by_rows(batches(), 0.1))


def test_rows_in_several_blocks_end_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_rows(batches(), 0.1)
    monkeypatch.setattr(module, "_BLOCK", 7)
    assert_equal(by_rows(batches(), 0.1), expected)


def test_a_row_that_occurs_no_more_still_moves_unlike_sparse_adam() -> None:
    data = [[[5]], *[[[1]]] * 5]
    model, _ = by_rows(data, 0.0)
    lazy = Model()
    lazy.table.sparse = True
    optimizers = [
        torch.optim.SparseAdam(lazy.table.parameters(), lr=0.01, betas=(0.9, 0.98)),
        torch.optim.AdamW(lazy.layer.parameters(), lr=0.01, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    schedules = [torch.optim.lr_scheduler.LinearLR(each, 1.0, 0.1, STEPS) for each in optimizers]
    first = None
    for ids in data:
        lazy.loss(ids).backward()
        for each, schedule in zip(optimizers, schedules, strict=True):
            each.step()
            schedule.step()
            each.zero_grad()
        first = lazy.table.weight.data[5].clone() if first is None else first
    assert torch.equal(lazy.table.weight.data[5], first)
    assert (model.table.weight.data[5] - first).abs().min() > 0.01  # five updates by the moments of the first


def test_a_skipped_step_is_no_update() -> None:
    data = batches(6)
    model = Model()
    optimizer, _ = optimizer_of(model, 0.1)
    reference = Model()
    other, _ = optimizer_of(reference, 0.1)
    with TokenRows(model.table, [0]) as rows:
        rows.bind(optimizer)
        for number, ids in enumerate(data):
            rows.select(ids)
            rows.select(ids)  # repeated in smaller chunks
            for trained, update in ((model, optimizer), (reference, other)):
                step(trained, ids, 100.0)
                if number == 3:
                    update.zero_grad()
                update.step()
                update.zero_grad()
    assert_equal((model, optimizer), (reference, other))


def test_between_steps_the_model_reads_the_table_as_adamw_left_it() -> None:
    data = batches(7)
    expected, _ = whole(data, 0.1)
    model = Model()
    optimizer, schedule = optimizer_of(model, 0.1)
    with TokenRows(model.table, [0]) as rows:
        rows.bind(optimizer)
        for ids in data:
            rows.select(ids)
            step(model, ids, 100.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        everything = torch.arange(TOKENS)
        assert not torch.equal(rows.table_VD, expected.table.weight.data)
        assert torch.equal(model.table(everything), expected.table(everything))


def test_a_token_without_a_selected_row_is_an_error() -> None:
    model = Model()
    optimizer, _ = optimizer_of(model, 0.0)
    with TokenRows(model.table, [0]) as rows:
        rows.bind(optimizer)
        rows.select([[1, 2]])
        with pytest.raises(IndexError):
            model.loss([[3]])
    assert len(model.table.weight) == TOKENS
    model.loss([[3]])


def trained(make_embedder: MakeEmbedder, folder: Path, *, die_at: int | None = None) -> Embedder:
    """A whole stage, with clipping, dropout and a schedule; a kill comes before the optimizer's step."""
    torch.manual_seed(0)
    embedder = make_embedder(hidden_dropout_prob=0.1)
    words = ["почта", "printer", "пароль", "VPN", "driver", "лист"]
    rows = [
        Record(str(i), f"{words[i % 6]} {i}", [f"{words[i % 5]} {i} ?"], [], "sts", "ru") for i in range(24)
    ]
    settings = {"steps": 9, "batch": 4, "checkpoint_every": 3, "log_every": 3, "learning_rate": 1e-3}
    real = processes.sum_gradients

    def sum_gradients(model: nn.Module) -> None:
        nonlocal die_at
        if die_at == 0:
            raise KilledError
        die_at = None if die_at is None else die_at - 1
        real(model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "sum_gradients", sum_gradients)
        train_contrastive(
            embedder,
            rows,
            ContrastiveConfig(**settings),
            weights={},
            seed=3,
            bf16=False,
            checkpoints=folder,
            on_metrics=lambda *_: None,
        )
    return embedder


def test_a_stage_trains_a_large_table_by_rows_as_a_whole(
    make_embedder: MakeEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(make_embedder, tmp_path / "whole")
    monkeypatch.setattr(module, "_MIN_NUMBERS", 0)
    seen: list[int] = []
    select = TokenRows.select

    def watched(self: TokenRows, ids: list[list[int]]) -> None:
        select(self, ids)
        seen.append(len(self.weight))

    monkeypatch.setattr(TokenRows, "select", watched)
    embedder = trained(make_embedder, tmp_path / "rows")
    assert len(seen) == 9
    assert max(seen) < len(embedder.tokenizer) // 2
    for (name, mine), theirs in zip(embedder.named_parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_a_killed_and_resumed_stage_ends_bit_for_bit_the_same(
    make_embedder: MakeEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MIN_NUMBERS", 0)
    whole = trained(make_embedder, tmp_path / "whole")
    with pytest.raises(KilledError):
        trained(make_embedder, tmp_path / "killed", die_at=4)
    resumed = trained(make_embedder, tmp_path / "killed")
    for (name, mine), theirs in zip(resumed.named_parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs), name


def test_only_a_large_trained_untied_table_is_trained_by_rows(
    make_embedder: MakeEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make_embedder()
    assert token_rows(embedder) is None  # small
    monkeypatch.setattr(module, "_MIN_NUMBERS", 0)
    assert token_rows(embedder) is not None
    embedder.backbone.requires_grad_(False)
    assert token_rows(embedder) is None  # as under LoRA
    embedder.backbone.requires_grad_(True)
    embedder.output = nn.Linear(32, len(embedder.tokenizer))
    embedder.output.weight = embedder.backbone.get_input_embeddings().weight
    assert token_rows(embedder) is None
    assert token_rows(make_embedder(hidden_size=24, num_attention_heads=2)) is None  # rows of 96 bytes
