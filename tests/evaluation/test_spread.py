"""The spread of a model's vectors, against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from embedline.evaluation.compare import markdown, spread_table
from embedline.evaluation.evaluated_models import EvaluatedModel
from embedline.evaluation.local import score_model
from embedline.evaluation.requests import ScoringRequest
from embedline.evaluation.sets import read_sets
from embedline.evaluation.spread import effective_rank, mean_cosine, spread_rows
from embedline.evaluation.summary import score_metrics
from embedline.vectors.unit import unit


class Encoder:
    """Random vectors (64 dims) around one point; `noise` is their standard deviation in each dimension."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        rows = [np.random.default_rng(list(text.encode())).normal(size=64) for text in texts]
        return unit((1 + self.noise * np.array(rows)).astype(np.float32))


def test_effective_rank_is_the_exponential_of_the_entropy_of_singular_values() -> None:
    assert effective_rank(np.eye(5)) == pytest.approx(5)
    assert effective_rank(np.ones((5, 3))) == pytest.approx(1)
    first, second = math.sqrt(3) / (math.sqrt(3) + 1), 1 / (math.sqrt(3) + 1)
    entropy = -first * math.log(first) - second * math.log(second)
    vectors = np.eye(4)[[0, 0, 0, 1]]  # singular values: the square roots of 3 and 1
    assert effective_rank(vectors) == pytest.approx(math.exp(entropy))
    assert math.isnan(effective_rank(np.array([[1.0, np.nan], [0.0, 1.0]])))


def test_mean_cosine_is_over_pairs_of_different_vectors() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32))
    pairs = [float(vectors[i] @ vectors[j]) for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(vectors) == pytest.approx(np.mean(pairs), abs=1e-6)


def test_spread_is_measured_on_the_texts_of_the_sets(evaluation_folder: Path) -> None:
    model = EvaluatedModel("candidate", "d", Encoder(0.1))
    scores = score_model(model, read_sets(evaluation_folder), resamples=0)
    model.encoder = None  # type: ignore[assignment] # nothing is encoded again
    rows = spread_rows(model)
    assert {(row.set, row.main, row.dim) for row in rows} == {("unrelated texts", False, 64)}
    assert rows[0].value == pytest.approx(1 / (1 + 0.1**2), abs=0.01)
    assert 1 < rows[1].value < rows[1].count
    rows += scores.rows
    spread = spread_table(rows)["candidate"]
    assert spread.dims == spread.texts == rows[0].count
    metrics = score_metrics(rows)
    assert metrics["candidate/spread/mean_cosine"] == spread.mean_cosine
    assert metrics["candidate/spread/effective_rank"] == spread.effective_rank
    assert "| unrelated texts | mean cosine | effective rank |" in markdown(rows)
    request = ScoringRequest("base", "d", evaluation_folder, ("Questions",))
    assert set(spread_table(request.select(rows))) == {"base"}


def test_a_model_that_encoded_nothing_has_no_spread() -> None:
    assert spread_rows(EvaluatedModel("candidate", "d", Encoder(1.0))) == []


def test_a_large_sample_is_evenly_spaced() -> None:
    model = EvaluatedModel("candidate", "d", Encoder(1.0))
    vectors = model.vectors([f"text {number}" for number in range(10)], "", 8)
    model.vectors(["one query"], "query: ", 8)
    np.testing.assert_array_equal(model.sample(4), vectors[[0, 3, 6, 9]])
    np.testing.assert_array_equal(model.sample(100), vectors)
