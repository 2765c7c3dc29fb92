"""Matryoshka's sum over prefixes; against sentence-transformers: tests/peers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from embedline.errors import InputError
from embedline.training.contrastive import weighted_dims
from embedline.training.objectives.matryoshka import matryoshka


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("weights", [[], [1.0, 0.5, 0.25]])
def test_the_loss_of_each_prefix_is_added_by_its_weight(weights: list[float], layer_norm: bool) -> None:
    """With a layer norm, it is the whole vector's, before the cut: by its definition, number by number."""
    vectors = torch.randn(5, 16, dtype=torch.float64)
    seen: list[Tensor] = []

    def loss(prefix: Tensor) -> Tensor:
        seen.append(prefix)
        return prefix[:, -1].sum()

    total = matryoshka(loss, vectors, [16, 8, 3], weights, layer_norm=layer_norm)
    assert [prefix.shape for prefix in seen] == [(5, 16), (5, 8), (5, 3)]
    expected = 0.0
    for row in vectors.tolist():
        mean = sum(row) / 16 if layer_norm else 0.0
        spread = math.sqrt(sum((x - mean) ** 2 for x in row) / 16 + 1e-5) if layer_norm else 1.0
        for dim, weight in zip([16, 8, 3], weights or [1.0] * 3, strict=True):
            expected += weight * (row[dim - 1] - mean) / spread
    assert total.item() == pytest.approx(expected, rel=1e-9)


def test_a_layer_norm_lets_no_common_component_rule_a_prefix() -> None:
    """Vectors that share a large offset look alike; after the norm their differences decide."""
    vectors = torch.randn(2, 64) + 10
    nearness = {}
    for layer_norm in (False, True):
        nearness[layer_norm] = matryoshka(
            lambda prefix: torch.cosine_similarity(prefix[0], prefix[1], dim=0),
            vectors,
            [32],
            layer_norm=layer_norm,
        ).item()
    assert nearness[False] > 0.95
    assert abs(nearness[True]) < 0.6


def test_weights_stay_with_their_dims() -> None:
    assert weighted_dims(32, (8, 16), [0.5, 0.7]) == {32: 1.0, 8: 0.5, 16: 0.7}
    assert weighted_dims(32, (8, 32), [0.5, 0.7]) == {32: 0.7, 8: 0.5}
    assert weighted_dims(32, (16, 8), []) == {32: 1.0, 16: 1.0, 8: 1.0}
    assert weighted_dims(32, (), []) == {32: 1.0}


def test_a_dim_wider_than_the_model_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.dims: 64 is larger than the model's width 32"):
        weighted_dims(32, (64, 16), [])
