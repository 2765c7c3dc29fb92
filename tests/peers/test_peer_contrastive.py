"""InfoNCE, cached InfoNCE, Matryoshka and CoSENT against sentence-transformers: values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    CoSENTLoss,
    GISTEmbedLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor, nn

from embedline.models.embedder import Embedder
from embedline.models.folder import load_embedder, save_embedder
from embedline.training.contrastive.gradcache import GradCache
from embedline.training.objectives.cosent import cosent
from embedline.training.objectives.infonce import info_nce
from embedline.training.objectives.matryoshka import matryoshka
from embedline.training.objectives.negatives import NegativeRules

TEMPERATURE = 0.05
COUNT = 4
DIMS, WEIGHTS = [32, 16, 8], [1.0, 0.5, 0.25]
BOTH_WAYS = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
Loss = Callable[[Tensor], Tensor]


@pytest.fixture
def pair(make_embedder, tmp_path: Path) -> tuple[Embedder, SentenceTransformer]:
    """One folder, loaded by both."""
    save_embedder(make_embedder(), tmp_path)
    return load_embedder(tmp_path).train(), SentenceTransformer(str(tmp_path), device="cpu").train()


def columns(texts: list[str], negatives: int) -> list[list[str]]:
    """Queries, positives, and columns of hard negatives; some texts are in several."""
    return [texts[:4], texts[4:], *(texts[1 + k : 5 + k] for k in range(negatives))]


def contrastive(symmetric: bool, count: int = COUNT, margin: float | None = None) -> Loss:
    def loss(vectors: Tensor) -> Tensor:
        documents = len(vectors) - count
        rules = NegativeRules(
            torch.arange(documents) % count,
            torch.zeros(count, documents, dtype=torch.bool),
            false_negative_margin=margin,
        )
        return info_nce(vectors[:count], vectors[count:], rules, temperature=TEMPERATURE, symmetric=symmetric)

    return loss


def nested(loss: Loss) -> Loss:
    return lambda vectors: matryoshka(loss, vectors, DIMS, WEIGHTS)


def assert_same_step(
    pair: tuple[Embedder, SentenceTransformer],
    columns: list[list[str]],
    ours: Loss,
    theirs: nn.Module,
    labels: Tensor,
    *,
    cached: bool,
) -> None:
    """The same loss of the same texts, and the same gradient in every weight."""
    embedder, peer = pair
    ids = embedder.tokenize([text for column in columns for text in column], max_length=24)
    if cached:
        value, _ = GradCache(embedder, batch_tokens=40).step(ids, lambda vectors: (ours(vectors), {}))
    else:
        value = ours(embedder(**embedder.pad(ids)))
        value.backward()
    expected = theirs([peer.preprocess(column) for column in columns], labels)
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), abs=1e-5, rel=1e-5)
    wanted = {name.rpartition("model.")[2]: p.grad for name, p in peer.named_parameters()}
    for name, parameter in embedder.backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5, rtol=1e-5, msg=name)
    assert any(gradient.abs().max() > 1e-2 for gradient in wanted.values())


@pytest.mark.parametrize("symmetric", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("negatives", [0, 3])
def test_equals_multiple_negatives_ranking_loss(pair, texts, negatives: int, symmetric: bool) -> None:
    theirs = MultipleNegativesRankingLoss(pair[1], scale=1 / TEMPERATURE, **(BOTH_WAYS if symmetric else {}))
    texts = columns(texts, negatives)
    assert_same_step(pair, texts, contrastive(symmetric), theirs, torch.zeros(0), cached=False)


@pytest.mark.parametrize("symmetric", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("negatives", [0, 3])
def test_gradcache_equals_cached_multiple_negatives_ranking_loss(
    pair, texts, negatives: int, symmetric: bool
) -> None:
    theirs = CachedMultipleNegativesRankingLoss(
        pair[1], scale=1 / TEMPERATURE, mini_batch_size=3, **(BOTH_WAYS if symmetric else {})
    )
    texts = columns(texts, negatives)
    assert_same_step(pair, texts, contrastive(symmetric), theirs, torch.zeros(0), cached=True)


@pytest.mark.parametrize("margin", [0.0, 0.02])
def test_the_margin_equals_gistembed_guided_by_the_model_itself(pair, texts, margin: float) -> None:
    """Theirs is a margin below the positive, ours above it."""
    texts, labels = columns(texts, 1), torch.zeros(0)
    theirs = GISTEmbedLoss(
        pair[1],
        pair[1],
        temperature=TEMPERATURE,
        margin=-margin,
        contrast_anchors=False,
        contrast_positives=False,
    )
    features = [pair[1].preprocess(column) for column in texts]
    plain = MultipleNegativesRankingLoss(pair[1], scale=1 / TEMPERATURE)(features, labels)
    assert theirs(features, labels) < plain - 0.01  # some documents are left out
    assert_same_step(pair, texts, contrastive(False, margin=margin), theirs, labels, cached=False)


@pytest.mark.parametrize("symmetric", [False, True], ids=["one way", "both ways"])
@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
def test_matryoshka_equals_theirs(pair, texts, cached: bool, symmetric: bool) -> None:
    ways = BOTH_WAYS if symmetric else {}
    if cached:
        inner = CachedMultipleNegativesRankingLoss(pair[1], scale=1 / TEMPERATURE, mini_batch_size=3, **ways)
    else:
        inner = MultipleNegativesRankingLoss(pair[1], scale=1 / TEMPERATURE, **ways)
    theirs = MatryoshkaLoss(pair[1], inner, DIMS, matryoshka_weights=WEIGHTS)
    texts = columns(texts, 2)
    assert_same_step(pair, texts, nested(contrastive(symmetric)), theirs, torch.zeros(0), cached=cached)


@pytest.mark.parametrize("cached", [False, True], ids=["plain", "cached"])
@pytest.mark.parametrize("prefixes", [False, True], ids=["full width", "matryoshka"])
def test_cosent_equals_theirs(pair, texts, prefixes: bool, cached: bool) -> None:
    """Ties among the labels included: of two pairs with equal labels, neither needs to be nearer."""
    labels = torch.tensor([0.2, 1.0, 0.2, 0.6])

    def ours(vectors: Tensor) -> Tensor:
        return cosent(vectors[:COUNT], vectors[COUNT:], labels, scale=20.0)

    theirs: nn.Module = CoSENTLoss(pair[1], scale=20.0)
    if prefixes:
        ours, theirs = nested(ours), MatryoshkaLoss(pair[1], theirs, DIMS, matryoshka_weights=WEIGHTS)
    assert_same_step(pair, columns(texts, 0), ours, theirs, labels, cached=cached)


def test_a_big_random_batch_gives_the_same_gradient_at_the_vectors() -> None:
    queries, documents = torch.randn(64, 48), torch.randn(64 * 4, 48)
    vectors = torch.cat([queries, documents]).requires_grad_()
    peer = MultipleNegativesRankingLoss(SentenceTransformer(modules=[nn.Identity()]), scale=1 / TEMPERATURE)
    theirs = peer.compute_loss_from_embeddings(list(vectors.split(64)), torch.zeros(0))
    ours = contrastive(False, 64)(vectors)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    [mine], [other] = (torch.autograd.grad(value, vectors) for value in (ours, theirs))
    torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)
