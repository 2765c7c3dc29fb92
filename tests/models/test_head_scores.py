from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.config.model import HybridWeights
from embedline.models.head_scores import hybrid_scores, lexical_scores, multi_vector_scores

Term = tuple[int, float]
TEXTS = st.lists(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])), max_size=5),
    min_size=1,
    max_size=4,
)


def padded(texts: list[list[Term]]) -> tuple[Tensor, Tensor]:
    ids, weights = torch.zeros(len(texts), 5, dtype=torch.int64), torch.zeros(len(texts), 5)
    for row, text in enumerate(texts):
        for column, (term, weight) in enumerate(text):
            ids[row, column], weights[row, column] = term, weight
    return ids, weights


@settings(max_examples=100, deadline=None)
@given(queries=TEXTS, documents=TEXTS)
def test_a_lexical_score_is_the_dot_of_each_terms_largest_weight(
    queries: list[list[Term]], documents: list[list[Term]]
) -> None:
    scores = lexical_scores(*padded(queries), *padded(documents))
    for i, query in enumerate(queries):
        for j, document in enumerate(documents):
            expected = sum(
                max(w for t, w in query if t == term)
                * max((w for t, w in document if t == term), default=0.0)
                for term in {t for t, _ in query}
            )
            assert scores[i, j] == pytest.approx(expected)


def test_the_gradient_of_a_lexical_score_is_that_of_dense_vocabulary_vectors() -> None:
    torch.manual_seed(0)
    q_ids, d_ids = torch.randint(0, 20, (3, 6)), torch.randint(0, 20, (5, 9))
    q, d = torch.rand(3, 6, requires_grad=True), torch.rand(5, 9, requires_grad=True)
    gradient = torch.randn(3, 5)
    (lexical_scores(q_ids, q, d_ids, d) * gradient).sum().backward()
    gradients = q.grad, d.grad
    q.grad = d.grad = None
    one_hot = torch.nn.functional.one_hot
    q_V = (one_hot(q_ids, 20) * q.unsqueeze(-1)).max(1).values
    d_V = (one_hot(d_ids, 20) * d.unsqueeze(-1)).max(1).values
    (q_V @ d_V.T * gradient).sum().backward()
    torch.testing.assert_close(gradients, (q.grad, d.grad))


def test_texts_without_weight_score_zero_and_have_a_gradient() -> None:
    ids, none = torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, requires_grad=True)
    scores = lexical_scores(ids, none, ids, torch.ones(2, 3))
    assert scores.tolist() == [[0, 0], [0, 0]]
    scores.sum().backward()
    assert none.grad is not None


def token_vectors(lengths: list[int], width: int = 4) -> Tensor:
    tokens = torch.nn.functional.normalize(torch.randn(len(lengths), max(lengths), width), dim=-1)
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
    tokens[:, 0] = 0  # the first token is the dense vector's
    return tokens.requires_grad_()


def slow(q_tokens: Tensor, d_tokens: Tensor) -> Tensor:
    rows = []
    for query in q_tokens:
        for document in d_tokens:
            best = [
                torch.stack([q @ d for d in document if d.abs().sum() > 0]).max()
                for q in query
                if q.abs().sum() > 0 and document.abs().sum() > 0
            ]
            rows.append(torch.stack(best).mean() if best else torch.zeros(()))
    return torch.stack(rows).view(len(q_tokens), len(d_tokens))


@pytest.mark.parametrize("block", [1, 30, 100, 2**25])
def test_a_multi_vector_score_is_the_mean_of_maxima_over_real_tokens(block: int) -> None:
    torch.manual_seed(1)
    queries, documents = token_vectors([4, 2, 1, 5]), token_vectors([2, 7, 3, 1, 2])
    gradient = torch.randn(4, 5)
    scores = multi_vector_scores(queries, documents, block=block)
    (scores * gradient).sum().backward()
    gradients = queries.grad, documents.grad
    queries.grad = documents.grad = None
    expected = slow(queries, documents)
    assert (expected < 0).any()  # a counted zero vector would be the maximum there
    torch.testing.assert_close(scores, expected)
    (expected * gradient).sum().backward()
    torch.testing.assert_close(gradients, (queries.grad, documents.grad))


def test_no_block_exceeds_its_token_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    from embedline.models import head_scores

    sizes = []
    late = head_scores._late_interaction
    monkeypatch.setattr(
        head_scores,
        "_late_interaction",
        lambda q, d: (sizes.append(q.shape[:2].numel() * d.shape[:2].numel()), late(q, d))[1],
    )
    with torch.no_grad():
        multi_vector_scores(torch.randn(9, 3, 2), torch.randn(11, 5, 2), block=100)
    assert sum(sizes) == 9 * 3 * 11 * 5
    assert max(sizes) <= 100


def test_a_hybrid_score_adds_the_heads_by_weight() -> None:
    dense, lexical = torch.randn(2, 3), torch.randn(2, 3)
    weights = HybridWeights(dense=1, lexical=0.3, multi_vector=5)
    torch.testing.assert_close(
        hybrid_scores({"dense": dense, "lexical": lexical}, weights), dense + 0.3 * lexical
    )
    torch.testing.assert_close(hybrid_scores({"lexical": lexical}, {"lexical": 2.0}), 2 * lexical)
