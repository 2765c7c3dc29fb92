"""`resident_tokens: auto`: graphs are kept as far as they fit into memory, which changes nothing else."""

from __future__ import annotations

import gc
import random
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedline.models.embedder import Embedder
from embedline.models.heads import Encoded
from embedline.training.contrastive import activation_memory
from embedline.training.contrastive.activation_memory import SavedTensors, resident_token_budget
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.engine import processes
from embedline.training.engine.checkpoint_callback import CheckpointCallback
from embedline.training.engine.checkpoints import TrainingProgress
from embedline.training.engine.token_budget import TokenBudget

CHUNK = 64
AMPLE, NONE = 10**12, 0


def rows_of(seed: int, count: int = 24) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(5, 300) for _ in range(generator.randint(2, 20))] for _ in range(count)]


def in_batch_loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
    count = len(vectors) // 2
    scores = F.normalize(vectors[:count], dim=-1) @ F.normalize(vectors[count:], dim=-1).T
    return F.cross_entropy(scores / 0.05, torch.arange(count)), {}


@pytest.fixture(scope="module")
def dropping(make_embedder) -> Embedder:
    return make_embedder(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()


@pytest.mark.parametrize("bf16", [False, True])
def test_kept_graphs_do_not_change_a_digit(make_embedder, bf16: bool) -> None:
    heads = ("dense", "lexical")
    model = make_embedder(heads=heads, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1).train()

    def gradients(resident: int | None) -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(5)
        cache = GradCache(model, batch_tokens=CHUNK, resident_tokens=resident, bf16=bf16)
        cache.step(rows_of(0), in_batch_loss, dense_only=True)
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    twice = gradients(0)
    for resident in (100, 10**6, None):
        assert all(torch.equal(*pair) for pair in zip(twice, gradients(resident), strict=True))


def chunks(model: Embedder, monkeypatch: pytest.MonkeyPatch, free: float) -> list[tuple[bool, int]]:
    """(with a graph, tokens) of each encoding of a step, when so many bytes are free."""
    monkeypatch.setattr(activation_memory, "available_bytes", lambda: free)
    cache = GradCache(model, batch_tokens=CHUNK, resident_tokens=None)
    seen, real = [], cache._encode

    def encode(inputs: dict[str, Tensor], heads: bool) -> Encoded:
        seen.append((torch.is_grad_enabled(), inputs["input_ids"].numel()))
        return real(inputs, heads)

    cache._encode = encode  # type: ignore[method-assign]
    cache.step(rows_of(0), in_batch_loss)
    return seen


def test_with_room_every_text_is_encoded_once(dropping: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(graph for graph, _ in chunks(dropping, monkeypatch, AMPLE))


def test_without_room_the_first_chunk_alone_is_kept(
    dropping: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = chunks(dropping, monkeypatch, NONE)
    once = [tokens for graph, tokens in seen if not graph]
    assert [graph for graph, _ in seen] == [True, *[False] * len(once), *[True] * len(once)]
    assert [tokens for _, tokens in seen[-len(once) :]] == once


def test_kept_tokens_fill_half_of_the_free_memory(
    dropping: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = dropping.pad(sorted(rows_of(0), key=len, reverse=True)[:3])
    tokens, graph = ids["input_ids"].numel(), SavedTensors(dropping)
    with graph.counting():
        dropping(**ids)
    each = graph.bytes / tokens
    weights = sum(4 * p.numel() for p in dropping.parameters())
    monkeypatch.setattr(activation_memory, "available_bytes", lambda: 3 * weights + 2 * 500 * each + 1)
    assert resident_token_budget(dropping, graph, tokens) == 500
    monkeypatch.setattr(activation_memory, "available_bytes", lambda: 2 * (3 * weights + 2 * 500 * each) + 1)
    monkeypatch.setattr(processes, "world_size", lambda: 2)  # both on this machine
    assert resident_token_budget(dropping, graph, tokens) == 500
    monkeypatch.setattr(activation_memory, "available_bytes", lambda: 3 * weights)
    assert resident_token_budget(dropping, graph, tokens) == 0


def test_a_frozen_parameter_gets_no_moments(dropping: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = SimpleNamespace(bytes=1000)
    weights = sum(4 * p.numel() for p in dropping.parameters())
    monkeypatch.setattr(activation_memory, "available_bytes", lambda: 3 * weights)
    assert resident_token_budget(dropping, graph, 10) == 0  # type: ignore[arg-type]
    dropping.requires_grad_(False)
    try:
        assert resident_token_budget(dropping, graph, 10) == int(0.5 * 3 * weights / 100)  # type: ignore[arg-type]
    finally:
        dropping.requires_grad_(True)


def test_a_graph_counts_by_hand() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    given = torch.randn(5, 8)
    graph = SavedTensors(net)
    with graph.counting():
        net(given).sum()
    # The first product keeps its input, GELU its own, the second product GELU's output; weights do not count.
    assert graph.bytes == 4 * 5 * (8 + 16 + 16)


def test_the_measured_graph_is_freed_without_a_collector(dropping: Embedder) -> None:
    kept: list[weakref.ref[Any]] = []
    layer = dropping.backbone.encoder.layer[0]
    handle = layer.register_forward_hook(
        lambda _module, _given, out: kept.append(weakref.ref(out[0] if isinstance(out, tuple) else out))
    )
    gc.collect()
    gc.disable()
    try:
        GradCache(dropping, batch_tokens=CHUNK, resident_tokens=None).step(rows_of(0), in_batch_loss)
        assert kept
        assert not [one for one in kept if one() is not None]
    finally:
        gc.enable()
        handle.remove()


@pytest.mark.parametrize(("given", "expected"), [(None, None), (7, 500)])
def test_a_resumed_training_measures_its_budget_again(
    monkeypatch: pytest.MonkeyPatch, given: int | None, expected: int | None
) -> None:
    saved = TrainingProgress({}, 2, (256, 500))
    monkeypatch.setattr("embedline.training.engine.checkpoint_callback.read_progress", lambda _: saved)
    budget = TokenBudget(1024, given)
    progress: Any = SimpleNamespace(restore=lambda _: None)
    CheckpointCallback(progress, SimpleNamespace(), budget).restore(Path())  # type: ignore[arg-type]
    assert (budget.chunk, budget.resident) == (256, expected)
