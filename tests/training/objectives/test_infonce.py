"""InfoNCE against a slow loop in float64; against sentence-transformers: tests/peers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.training.objectives.infonce import contrastive_loss, info_nce
from embedline.training.objectives.negatives import NegativeRules

TEMPERATURE = 0.05


def vectors(count: int, negatives: int, seed: int = 0, dim: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, documents (positives, then each query's negatives) and the documents' owners."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(count, dim, generator=generator)
    documents = torch.randn(count * (1 + negatives), dim, generator=generator)
    owner = torch.tensor([*range(count), *(i for i in range(count) for _ in range(negatives))])
    return queries, documents, owner


def nothing_known(queries: Tensor, documents: Tensor) -> Tensor:
    return torch.zeros(len(queries), len(documents), dtype=torch.bool)


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
        NegativeRules(owner, same, in_batch_negatives=in_batch, false_negative_margin=margin),
        temperature=TEMPERATURE,
        symmetric=symmetric,
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
    info_nce(queries, documents, NegativeRules(owner, same), temperature=TEMPERATURE).backward()
    assert documents.grad is not None
    assert documents.grad[4].abs().max() == 0
    assert (documents.grad[[0, 1, 2, 3, 5]].abs().amax(1) > 0).all()


def test_the_positive_is_never_masked() -> None:
    queries, documents, owner = vectors(4, 0)
    everything = torch.ones(4, 4, dtype=torch.bool)
    loss = info_nce(queries, documents, NegativeRules(owner, everything), temperature=TEMPERATURE)
    assert loss.item() == 0.0  # finite: only the positives are left, and they are certain


def test_only_directions_count() -> None:
    queries, documents, owner = vectors(5, 2)
    rules = NegativeRules(owner, nothing_known(queries, documents))
    one = info_nce(queries, documents, rules, temperature=TEMPERATURE)
    other = info_nce(queries * 3, documents * 0.1, rules, temperature=TEMPERATURE)
    torch.testing.assert_close(one, other)


def test_it_is_the_contrastive_loss_of_the_cosines() -> None:
    queries, documents, owner = vectors(5, 2)
    rules = NegativeRules(owner, nothing_known(queries, documents), false_negative_margin=0.1)
    options = {"temperature": TEMPERATURE, "symmetric": True}
    cosines = torch.nn.functional.cosine_similarity(queries.unsqueeze(1), documents.unsqueeze(0), dim=-1)
    torch.testing.assert_close(
        info_nce(queries, documents, rules, **options), contrastive_loss(cosines, rules, **options)
    )


def test_scores_need_not_be_cosines() -> None:
    """Their softmax over the documents, whatever they are; the margin is in their own units."""
    scores = torch.tensor([[3.0, 9.0, 1.0], [0.0, 7.0, 8.0]])
    rules = NegativeRules(torch.tensor([0, 1, 0]), torch.zeros(2, 3, dtype=torch.bool))
    everything = contrastive_loss(scores, rules, temperature=2.0)
    expected = -(scores[0] / 2).log_softmax(0)[0] - (scores[1] / 2).log_softmax(0)[1]
    torch.testing.assert_close(everything, expected / 2)
    assert replace(rules, false_negative_margin=5.0).ignored_mask(scores).tolist() == [
        [False, True, False],
        [False] * 3,
    ]
    assert replace(rules, false_negative_margin=0.5).ignored_mask(scores).tolist() == [
        [False, True, False],
        [False, False, True],
    ]


def test_a_temperature_that_is_a_tensor_is_trained() -> None:
    queries, documents, owner = vectors(6, 1)
    rules = NegativeRules(owner, nothing_known(queries, documents))
    temperature = torch.tensor(TEMPERATURE, requires_grad=True)
    loss = info_nce(queries, documents, rules, temperature=temperature, symmetric=True)
    torch.testing.assert_close(
        loss, info_nce(queries, documents, rules, temperature=TEMPERATURE, symmetric=True)
    )
    [slope] = torch.autograd.grad(loss, temperature)
    step = 1e-4
    above, below = (
        info_nce(
            queries.double(), documents.double(), rules, temperature=TEMPERATURE + sign * step, symmetric=True
        )
        for sign in (1, -1)
    )
    assert slope.item() == pytest.approx((above - below).item() / (2 * step), rel=1e-3)
