"""Matryoshka's sum over prefixes; against sentence-transformers: tests/peers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from embedline.errors import InputError
from embedline.training.contrastive.step import weighted_dims
from embedline.training.objectives.matryoshka import matryoshka


@pytest.mark.parametrize("weights", [[], [1.0, 0.5, 0.25]])
def test_the_loss_of_each_prefix_is_added_by_its_weight(weights: list[float]) -> None:
    vectors = torch.randn(5, 16, dtype=torch.float64)
    seen: list[Tensor] = []

    def loss(prefix: Tensor) -> Tensor:
        seen.append(prefix)
        return prefix[:, -1].sum()

    total = matryoshka(loss, vectors, [16, 8, 3], weights)
    assert [prefix.shape for prefix in seen] == [(5, 16), (5, 8), (5, 3)]
    expected = sum(
        weight * row[dim - 1]
        for row in vectors.tolist()
        for dim, weight in zip([16, 8, 3], weights or [1.0] * 3, strict=True)
    )
    assert total.item() == pytest.approx(expected, rel=1e-9)


def test_weights_stay_with_their_dims() -> None:
    assert weighted_dims(32, (8, 16), [0.5, 0.7]) == {32: 1.0, 8: 0.5, 16: 0.7}
    assert weighted_dims(32, (8, 32), [0.5, 0.7]) == {32: 0.7, 8: 0.5}
    assert weighted_dims(32, (16, 8), []) == {32: 1.0, 16: 1.0, 8: 1.0}
    assert weighted_dims(32, (), []) == {32: 1.0}


def test_a_dim_wider_than_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.dims: 64 is larger than the model's width 32"):
        weighted_dims(32, (64, 16), [])
