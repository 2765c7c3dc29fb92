"""GradCache against plain training: one pass over the same chunks, all graphs kept."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.models.batching import token_batches
from embedline.models.embedder import Embedder
from embedline.models.head_scores import lexical_scores, multi_vector_scores
from embedline.models.heads import Encoded
from embedline.training.contrastive.gradcache import GradCache, Loss

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


@pytest.fixture(scope="module")
def three_heads(make_embedder) -> Embedder:
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return make_embedder(heads=("dense", "lexical", "multi_vector"), **dropout).train()


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


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch_tokens=st.integers(1, 200), resident=st.integers(0, 300), seed=st.integers(0, 99))
def test_no_more_tokens_keep_their_graph_than_may_and_the_others_are_encoded_twice(
    dropping: Embedder, batch_tokens: int, resident: int, seed: int
) -> None:
    cache = GradCache(dropping, batch_tokens=batch_tokens, resident_tokens=resident)
    encoded: list[tuple[bool, int]] = []
    first: list[tuple[bool, int]] = []
    settled: list[int] = []
    real = cache._encode
    cache.malloc_trim = SimpleNamespace(after_chunk=lambda: settled.append(1))  # type: ignore[assignment]

    def encode(inputs: dict[str, Tensor], heads: bool) -> Encoded:
        encoded.append((torch.is_grad_enabled(), inputs["input_ids"].numel()))
        return real(inputs, heads)

    def loss(vectors: Tensor) -> tuple[Tensor, dict[str, float]]:
        first.extend(encoded)
        return in_batch_loss(vectors)

    cache._encode = encode  # type: ignore[method-assign]
    cache.step(rows_of(seed), loss)
    kept = [size for graph, size in first if graph]
    cached_sizes = [size for graph, size in first if not graph]
    assert sum(kept) <= resident
    assert min(cached_sizes, default=10**9) > resident - sum(kept)  # as many as may
    assert [size for _, size in encoded[len(first) :]] == cached_sizes
    assert len(settled) == len(cached_sizes) + 1 + len(first)  # after each chunk, and after the loss


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


def all_heads_loss(ids: list[list[int]], pad: int) -> Loss:
    """InfoNCE of the sum of all heads' scores."""
    count, longest = len(ids) // 2, max(map(len, ids))
    ids_NT = torch.tensor([row + [pad] * (longest - len(row)) for row in ids])

    def loss(encoded: Encoded) -> tuple[Tensor, dict[str, float]]:
        dense, lexical, tokens = encoded
        unit = F.normalize(dense, dim=-1)
        scores = unit[:count] @ unit[count:].T
        if lexical is not None:
            scores = scores + lexical_scores(ids_NT[:count], lexical[:count], ids_NT[count:], lexical[count:])
        if tokens is not None:
            scores = scores + multi_vector_scores(tokens[:count], tokens[count:])
        return F.cross_entropy(scores / 0.05, torch.arange(count)), {}

    return loss


def plain_heads(model: Embedder, ids: list[list[int]], batch_tokens: int) -> tuple[float, dict[str, Tensor]]:
    """Ordinary autograd: the chunks' outputs padded to one length and put in order by hand."""
    model.zero_grad()
    longest = max(map(len, ids))
    rows_of_head: list[dict[int, Tensor]] = [{}, {}, {}]
    for rows in token_batches([len(row) for row in ids], batch_tokens):
        for found, tensor in zip(
            rows_of_head, model.represent(**model.pad([ids[i] for i in rows])), strict=True
        ):
            if tensor is not None:
                short = longest - tensor.shape[1]
                sides = {2: (0, short), 3: (0, 0, 0, short)}[tensor.dim()]
                whole = tensor if found is rows_of_head[0] else F.pad(tensor, sides)
                found |= {int(row): vector for row, vector in zip(rows, whole, strict=True)}
    stacked = [torch.stack([found[i] for i in range(len(ids))]) if found else None for found in rows_of_head]
    loss, _ = all_heads_loss(ids, model.tokenizer.pad_token_id)(Encoded(*stacked))
    loss.backward()
    return loss.item(), gradients(model)


HEADS = [("dense", "lexical"), ("dense", "multi_vector"), ("dense", "lexical", "multi_vector")]


@pytest.mark.parametrize("resident_tokens", [0, 60, 1_000_000], ids=["none", "some", "all"])
@pytest.mark.parametrize("pooling", ["mean", "latent", "mcls"])
@pytest.mark.parametrize("heads", HEADS, ids="+".join)
def test_gradients_of_all_heads_equal_plain_training_with_dropout(
    make_embedder, heads: tuple[str, ...], pooling: str, resident_tokens: int
) -> None:
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    model, ids = make_embedder(heads=heads, pooling=pooling, **dropout).train(), rows_of(0)
    torch.manual_seed(5)
    expected = plain_heads(model, ids, 64)
    assert all(
        name in expected[1] for name, _ in model.named_parameters() if "pooler" not in name
    )  # every part learns
    model.zero_grad()
    torch.manual_seed(5)
    cache = GradCache(model, batch_tokens=64, resident_tokens=resident_tokens)
    loss, _ = cache.step(ids, all_heads_loss(ids, model.tokenizer.pad_token_id))
    assert_same((loss.item(), gradients(model)), expected)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(batch_tokens=st.integers(1, 400), resident=st.integers(0, 300), seed=st.integers(0, 99))
def test_no_chunking_changes_the_gradient_of_the_heads(
    three_heads: Embedder, batch_tokens: int, resident: int, seed: int
) -> None:
    ids = rows_of(seed)
    torch.manual_seed(seed)
    expected = plain_heads(three_heads, ids, batch_tokens)
    three_heads.zero_grad()
    torch.manual_seed(seed)
    cache = GradCache(three_heads, batch_tokens=batch_tokens, resident_tokens=resident)
    loss, _ = cache.step(ids, all_heads_loss(ids, three_heads.tokenizer.pad_token_id))
    assert_same((loss.item(), gradients(three_heads)), expected)


def test_a_loss_of_dense_vectors_leaves_the_other_heads_alone(three_heads: Embedder) -> None:
    called: list[int] = []
    hooks = [head.register_forward_hook(lambda *_: called.append(1)) for head in three_heads.heads.values()]
    ids = rows_of(0)
    torch.manual_seed(5)
    three_heads.zero_grad()
    loss, _ = GradCache(three_heads, batch_tokens=64).step(ids, in_batch_loss, dense_only=True)
    torch.manual_seed(5)
    dense = (loss.item(), gradients(three_heads))
    assert_same(dense, plain(three_heads, ids, 64))
    assert not called
    for hook in hooks:
        hook.remove()


def test_a_head_that_the_loss_does_not_use_gets_no_gradient(three_heads: Embedder) -> None:
    three_heads.zero_grad()
    GradCache(three_heads, batch_tokens=64).step(rows_of(0), lambda e: (e.lexical.square().sum(), {}))
    found = gradients(three_heads)
    assert "heads.lexical.weigh.weight" in found
    assert "heads.multi_vector.project.weight" not in found


def test_a_loss_without_vectors_is_an_error(dropping: Embedder) -> None:
    with pytest.raises(RuntimeError, match="does not depend on the vectors"):
        GradCache(dropping, batch_tokens=64).step(
            rows_of(0), lambda _: (torch.ones((), requires_grad=True) * 2, {})
        )
