"""GradCache against plain training: one pass over the same chunks, all graphs kept."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.training.gradcache import GradCache

PAIRS = 6


def rows_of(seed: int, count: int = 2 * PAIRS) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(5, 300) for _ in range(generator.randint(2, 20))] for _ in range(count)]


def in_batch_loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
    count = len(vectors) // 2
    scores = F.normalize(vectors[:count], dim=-1) @ F.normalize(vectors[count:], dim=-1).T
    return F.cross_entropy(scores / 0.05, torch.arange(count)), {"pairs": float(count)}


def gradients(model: Embedder) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def plain(model: Embedder, ids: list[list[int]], batch_tokens: int) -> tuple[float, dict[str, Tensor]]:
    """The loss and gradients of ordinary autograd over the whole batch."""
    model.zero_grad()
    vectors: dict[int, Tensor] = {}
    for rows in token_batches([len(row) for row in ids], batch_tokens):
        encoded = model(**model.pad([ids[i] for i in rows]))
        vectors |= {int(row): vector for row, vector in zip(rows, encoded, strict=True)}
    loss, _ = in_batch_loss(torch.stack([vectors[i] for i in range(len(ids))]))
    loss.backward()
    return loss.item(), gradients(model)


def cached(
    model: Embedder, ids: list[list[int]], batch_tokens: int, resident_tokens: int
) -> tuple[float, dict[str, Tensor]]:
    model.zero_grad()
    cache = GradCache(model, batch_tokens=batch_tokens, resident_tokens=resident_tokens)
    loss, metrics = cache.step(ids, in_batch_loss)
    assert metrics == {"pairs": float(len(ids) // 2)}
    return loss.item(), gradients(model)


def assert_same(
    one: tuple[float, dict[str, Tensor]], other: tuple[float, dict[str, Tensor]], tolerance: float = 1e-5
) -> None:
    assert one[0] == pytest.approx(other[0], abs=tolerance)
    assert one[1].keys() == other[1].keys()
    for name, gradient in one[1].items():
        torch.testing.assert_close(gradient, other[1][name], atol=tolerance, rtol=1e-4, msg=name)


@pytest.fixture(scope="module")
def dropping(make_embedder) -> Embedder:
    model = make_embedder(hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    return model.train()


@pytest.mark.parametrize("resident_tokens", [0, 60, 1_000_000], ids=["none", "some", "all"])
def test_gradients_equal_plain_training_with_dropout(dropping: Embedder, resident_tokens: int) -> None:
    ids = rows_of(0)
    torch.manual_seed(5)
    expected = plain(dropping, ids, 64)
    torch.manual_seed(5)
    assert_same(cached(dropping, ids, 64, resident_tokens), expected)


def test_dropout_is_really_on_in_that_comparison(dropping: Embedder) -> None:
    ids = rows_of(0)
    torch.manual_seed(5)
    loss = cached(dropping, ids, 64, 0)[0]
    torch.manual_seed(6)
    assert cached(dropping, ids, 64, 0)[0] != loss


def test_the_generator_goes_on_as_after_one_forward_pass(dropping: Embedder) -> None:
    ids, drawn = rows_of(0), []
    for resident in (0, 60, 1_000_000):
        torch.manual_seed(5)
        cached(dropping, ids, 64, resident)
        drawn.append(torch.rand(1).item())
    assert len(set(drawn)) == 1


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch_tokens=st.integers(1, 400), resident=st.integers(0, 300), seed=st.integers(0, 99))
def test_no_chunking_changes_the_gradient(
    dropping: Embedder, batch_tokens: int, resident: int, seed: int
) -> None:
    ids = rows_of(seed)
    torch.manual_seed(seed)
    expected = plain(dropping, ids, batch_tokens)
    torch.manual_seed(seed)
    assert_same(cached(dropping, ids, batch_tokens, resident), expected)


@pytest.mark.parametrize("architecture", ["modernbert", "nomic_bert"])
def test_without_dropout_one_unchunked_pass_gives_the_same(make_embedder, architecture: str) -> None:
    model, ids = make_embedder(architecture).train(), rows_of(3)
    assert_same(cached(model, ids, 40, 0), plain(model, ids, 1_000_000))


def test_gradients_add_to_those_already_there(dropping: Embedder) -> None:
    ids = rows_of(1)
    torch.manual_seed(5)
    _, once = cached(dropping, ids, 64, 0)
    torch.manual_seed(5)
    GradCache(dropping, batch_tokens=64).step(ids, in_batch_loss)
    for name, gradient in gradients(dropping).items():
        torch.testing.assert_close(gradient, 2 * once[name])


def test_one_text_is_a_batch(dropping: Embedder) -> None:
    dropping.zero_grad()
    loss, _ = GradCache(dropping, batch_tokens=8).step([[2, 3]], lambda v: (v.square().sum(), {}))
    assert torch.isfinite(loss)
    assert gradients(dropping)


def test_bf16_gives_fp32_gradients_near_those_of_fp32(make_embedder) -> None:
    model, ids = make_embedder().train(), rows_of(2)
    _, exact = cached(model, ids, 64, 0)
    model.zero_grad()
    GradCache(model, batch_tokens=64, bf16=True).step(ids, in_batch_loss)
    rough = gradients(model)
    assert all(gradient.dtype == torch.float32 for gradient in rough.values())
    flat = [torch.cat([g.flatten() for g in each.values()]) for each in (exact, rough)]
    assert F.cosine_similarity(flat[0], flat[1], dim=0) > 0.98
