"""InfoNCE against sentence-transformers' losses and against a slow loop in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from torch import Tensor

from embedline.models.folder import save_embedder
from embedline.training.gradcache import GradCache
from embedline.training.objectives.infonce import info_nce

TEMPERATURE = 0.05
BOTH_WAYS = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}


def vectors(count: int, negatives: int, seed: int = 0, dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, documents (positives, then each query's negatives) and the documents' owners."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(count, dim, generator=generator)
    documents = torch.randn(count * (1 + negatives), dim, generator=generator)
    owner = torch.tensor([*range(count), *(i for i in range(count) for _ in range(negatives))])
    return queries, documents, owner


def nothing_known(queries: Tensor, documents: Tensor) -> Tensor:
    return torch.zeros(len(queries), len(documents), dtype=torch.bool)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("negatives", [0, 3])
def test_equals_multiple_negatives_ranking_loss(negatives: int, symmetric: bool) -> None:
    queries, documents, owner = (
        x.requires_grad_() if x.is_floating_point() else x for x in vectors(7, negatives)
    )
    ours = info_nce(
        queries,
        documents,
        owner_M=owner,
        same_NM=nothing_known(queries, documents),
        temperature=TEMPERATURE,
        symmetric=symmetric,
    )
    columns = [
        queries,
        documents[:7],
        *(documents[7:].view(7, negatives, -1)[:, k] for k in range(negatives)),
    ]
    peer = MultipleNegativesRankingLoss(
        SentenceTransformer(modules=[torch.nn.Identity()]),
        scale=1 / TEMPERATURE,
        **(BOTH_WAYS if symmetric else {}),
    )
    theirs = peer.compute_loss_from_embeddings(columns, labels=torch.zeros(0))
    torch.testing.assert_close(ours, theirs)
    for mine, other in zip(
        torch.autograd.grad(ours, [queries, documents]),
        torch.autograd.grad(theirs, [queries, documents]),
        strict=True,
    ):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_whole_step_equals_sentence_transformers_cached_loss(
    make_embedder, texts, tmp_path, symmetric: bool
) -> None:
    """The same folder, the same texts: the same loss and the same gradient in every weight."""
    embedder = make_embedder("modernbert")
    save_embedder(embedder, tmp_path)
    peer = SentenceTransformer(str(tmp_path), device="cpu")
    queries, positives, negatives = texts[:4], texts[4:8], texts[1:5]
    loss = CachedMultipleNegativesRankingLoss(
        peer, scale=1 / TEMPERATURE, mini_batch_size=2, **(BOTH_WAYS if symmetric else {})
    )
    theirs = loss([peer.preprocess(column) for column in (queries, positives, negatives)], torch.zeros(0))
    theirs.backward()

    def ours(encoded: Tensor) -> tuple[Tensor, dict[str, float]]:
        known = torch.zeros(4, 8, dtype=torch.bool)
        owner = torch.arange(8) % 4
        options = {"temperature": TEMPERATURE, "symmetric": symmetric}
        return info_nce(encoded[:4], encoded[4:], owner_M=owner, same_NM=known, **options), {}

    ids = embedder.tokenize([*queries, *positives, *negatives], max_length=embedder.spec.document_length)
    value, _ = GradCache(embedder, batch_tokens=40).step(ids, ours)
    assert value.item() == pytest.approx(theirs.item(), rel=1e-5)
    wanted = {name.rpartition("model.")[2]: p.grad for name, p in peer.named_parameters()}
    for name, parameter in embedder.backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5, rtol=1e-3)


def slow(
    queries: Tensor,
    documents: Tensor,
    owner: list[int],
    same: Tensor,
    *,
    symmetric: bool,
    in_batch: bool,
    margin: float | None,
) -> float:
    """The definition, one number at a time."""
    q = [row / np.linalg.norm(row) for row in queries.double().numpy()]
    d = [row / np.linalg.norm(row) for row in documents.double().numpy()]
    n = len(q)

    def allowed(i: int, j: int) -> bool:
        if i == j:
            return True
        if same[i, j] or (not in_batch and owner[j] != i):
            return False
        return margin is None or float(q[i] @ d[j]) <= float(q[i] @ d[i]) + margin

    def term(i: int, others: list[float]) -> float:
        return -float(q[i] @ d[i]) / TEMPERATURE + math.log(sum(math.exp(s / TEMPERATURE) for s in others))

    forward = [term(i, [float(q[i] @ d[j]) for j in range(len(d)) if allowed(i, j)]) for i in range(n)]
    if not symmetric:
        return sum(forward) / n
    backward = [term(j, [float(q[i] @ d[j]) for i in range(n) if allowed(i, j)]) for j in range(n)]
    return (sum(forward) + sum(backward)) / (2 * n)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_masks_equal_the_slow_definition(data: st.DataObject) -> None:
    count, negatives = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 3))
    queries, documents, owner = vectors(count, negatives, seed=data.draw(st.integers(0, 999)))
    known = st.lists(st.booleans(), min_size=count * len(documents), max_size=count * len(documents))
    same = torch.tensor(data.draw(known)).view(count, len(documents))
    symmetric, in_batch = data.draw(st.booleans()), data.draw(st.booleans())
    margin = data.draw(st.sampled_from([None, -0.1, 0.0, 0.1, 0.5]))
    ours = info_nce(
        queries,
        documents,
        owner_M=owner,
        same_NM=same,
        temperature=TEMPERATURE,
        symmetric=symmetric,
        in_batch_negatives=in_batch,
        false_negative_margin=margin,
    )
    expected = slow(
        queries, documents, owner.tolist(), same, symmetric=symmetric, in_batch=in_batch, margin=margin
    )
    assert ours.item() == pytest.approx(expected, abs=1e-4, rel=1e-5)


def test_a_masked_document_gets_no_gradient() -> None:
    queries, documents, owner = vectors(3, 1)
    documents.requires_grad_()
    same = nothing_known(queries, documents)
    same[:, 4] = True
    info_nce(queries, documents, owner_M=owner, same_NM=same, temperature=TEMPERATURE).backward()
    assert documents.grad is not None
    assert documents.grad[4].abs().max() == 0
    assert (documents.grad[[0, 1, 2, 3, 5]].abs().amax(1) > 0).all()


def test_the_positive_is_never_masked() -> None:
    queries, documents, owner = vectors(4, 0)
    everything = torch.ones(4, 4, dtype=torch.bool)
    loss = info_nce(queries, documents, owner_M=owner, same_NM=everything, temperature=TEMPERATURE)
    assert loss.item() == 0.0  # finite: only the positives are left, and they are certain


def test_only_directions_count() -> None:
    queries, documents, owner = vectors(5, 2)
    known = nothing_known(queries, documents)
    one = info_nce(queries, documents, owner_M=owner, same_NM=known, temperature=TEMPERATURE)
    other = info_nce(queries * 3, documents * 0.1, owner_M=owner, same_NM=known, temperature=TEMPERATURE)
    torch.testing.assert_close(one, other)
