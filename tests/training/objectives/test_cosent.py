"""CoSENT against its definition; against sentence-transformers: tests/peers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embedline.training.objectives.cosent import cosent, ranking_loss


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_definition(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 7))
    scores = data.draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))
    labels = data.draw(st.lists(st.sampled_from([0.0, 0.2, 0.5, 1.0]), min_size=count, max_size=count))
    scale = data.draw(st.sampled_from([1.0, 20.0]))
    total = sum(
        math.exp(scale * (scores[j] - scores[i]))
        for i in range(count)
        for j in range(count)
        if labels[i] > labels[j]
    )
    ours = ranking_loss(torch.tensor(scores, dtype=torch.float64), torch.tensor(labels), scale=scale)
    assert ours.item() == pytest.approx(math.log(1 + total), abs=1e-9)


def test_only_the_order_of_labels_counts() -> None:
    first, second = torch.randn(2, 6, 8)
    labels = torch.tensor([0.1, 0.9, 0.4, 0.4, 0.0, 0.8])
    torch.testing.assert_close(cosent(first, second, labels), cosent(first, second, labels**3 * 5))


def test_pairs_in_order_cost_nothing_and_the_reverse_much() -> None:
    scores, labels = torch.tensor([0.9, 0.0, -0.9]), torch.tensor([5.0, 2.5, 0.0])
    assert ranking_loss(scores, labels, scale=20.0).item() < 1e-6
    assert ranking_loss(-scores, labels, scale=20.0).item() == pytest.approx(36, abs=0.1)


def test_equal_labels_say_nothing() -> None:
    first = torch.randn(4, 8, requires_grad=True)
    loss = cosent(first, torch.randn(4, 8), torch.ones(4))
    loss.backward()
    assert loss.item() == 0.0
    assert first.grad is not None
    assert first.grad.abs().max() == 0


def test_far_scores_do_not_overflow() -> None:
    scores = torch.tensor([-1.0, 1.0], requires_grad=True)
    loss = ranking_loss(scores, torch.tensor([1.0, 0.0]), scale=1000.0)
    loss.backward()
    assert loss.item() == pytest.approx(2000)
    assert scores.grad is not None
    assert scores.grad.isfinite().all()
