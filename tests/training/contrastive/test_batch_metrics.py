"""Accuracy, alignment and uniformity of a batch, beside slow transcriptions in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from embedline.training.contrastive import batch_metrics as module
from embedline.training.contrastive.batch_metrics import alignment, batch_metrics, uniformity
from embedline.training.engine.step_timer import Metrics
from embedline.training.objectives.infonce import info_nce
from embedline.training.objectives.negatives import NegativeRules

TEMPERATURE = 0.05


def rules(count: int, owner: list[int]) -> NegativeRules:
    return NegativeRules(torch.tensor(owner), torch.zeros(count, len(owner), dtype=torch.bool))


def measured(vectors: Tensor, count: int, given: NegativeRules) -> Metrics:
    return batch_metrics(vectors, count, given, temperature=TEMPERATURE)


def a_batch(seed: int, count: int, negatives: int, width: int = 5) -> tuple[Tensor, NegativeRules]:
    generator = torch.Generator().manual_seed(seed)
    owner = [*range(count), *(i for i in range(count) for _ in range(negatives))]
    vectors = torch.randn(count + len(owner), width, generator=generator)
    vectors[count : 2 * count] += vectors[:count]
    known = torch.rand(count, len(owner), generator=generator) < 0.1
    return vectors, NegativeRules(torch.tensor(owner), known)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(2, 7), st.integers(0, 2), st.booleans())
def test_accuracy_is_how_often_the_positive_is_nearest(
    seed: int, count: int, negatives: int, everything: bool
) -> None:
    vectors, given = a_batch(seed, count, negatives)
    given = replace(given, in_batch_negatives=everything, false_negative_margin=0.01)
    unit = F.normalize(vectors.double(), dim=-1).tolist()
    right = 0
    for i in range(count):
        cosines = [sum(a * b for a, b in zip(unit[i], d, strict=True)) for d in unit[count:]]
        negatives_of_i = [
            cosine
            for j, cosine in enumerate(cosines)
            if j != i
            and not given.known_positives_NM[:][i, j]
            and (everything or given.query_index_M[j] == i)
        ]
        right += all(cosines[i] > cosine for cosine in negatives_of_i)
    assert float(measured(vectors, count, given)["in_batch_accuracy"]) == pytest.approx(right / count)


def test_vectors_that_are_all_alike_are_never_right() -> None:
    found = measured(torch.ones(8, 3), 4, rules(4, [0, 1, 2, 3]))
    assert float(found["in_batch_accuracy"]) == 0
    assert float(found["uniformity"]) == pytest.approx(0, abs=1e-6)


def test_alignment_and_uniformity_are_those_of_the_papers_code() -> None:
    vectors, given = a_batch(3, 6, 1)
    found = measured(vectors, 6, given)
    unit = F.normalize(vectors.double(), dim=-1)
    queries, positives = unit[:6], unit[6:12]
    near = (queries - positives).norm(p=2, dim=1).pow(2).mean()
    spread = [torch.pdist(side, p=2).pow(2).mul(-2).exp().mean().log() for side in (queries, positives)]
    assert float(found["alignment"]) == pytest.approx(float(near), rel=1e-5)
    assert float(found["uniformity"]) == pytest.approx(float(sum(spread) / 2), rel=1e-5)


def test_vectors_spread_over_the_sphere_reach_the_best_uniformity() -> None:
    unit = F.normalize(torch.randn(500, 256, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert float(uniformity(unit)) == pytest.approx(-4, abs=0.05)
    assert float(alignment(unit, unit)) == 0


def test_the_dense_loss_is_the_objectives() -> None:
    vectors, given = a_batch(5, 6, 2)
    given = replace(given, false_negative_margin=0.1)
    expected = info_nce(vectors[:6], vectors[6:], given, temperature=TEMPERATURE)
    assert float(measured(vectors, 6, given)["dense_loss"]) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("limit", "most"), [("MOST_QUERIES", 3), ("MOST_SCORES", 3 * 16)])
def test_a_large_batch_is_measured_on_some_of_its_queries(
    monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    vectors, given = a_batch(1, 8, 1)
    whole = measured(vectors, 8, given)
    monkeypatch.setattr(module, limit, most)
    some = measured(vectors, 8, given)
    unit = F.normalize(vectors, dim=-1)
    assert float(some["alignment"]) == pytest.approx(float(alignment(unit[:3], unit[8:11])))
    assert some.keys() == whole.keys()
    assert all(math.isfinite(float(value)) for value in some.values())


def test_one_pair_has_no_uniformity() -> None:
    assert "uniformity" not in measured(torch.rand(3, 4), 1, rules(1, [0, 0]))
