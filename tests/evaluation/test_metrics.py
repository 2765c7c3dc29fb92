"""Metrics against the libraries that define them."""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, f1_score

from embedline.evaluation.bootstrap import interval_of, interval_of_mean
from embedline.evaluation.metrics import (
    average_precision,
    bitext_metrics,
    pearson,
    ranking_metrics,
    spearman,
)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), documents=st.integers(1, 150), found=st.integers(1, 150))
def test_ranking_metrics_are_trec_evals(seed, documents, found):
    generator = np.random.default_rng(seed)
    ranking = np.stack([generator.permutation(documents) for _ in range(5)])[:, :100]
    ranking[:, found:] = -1
    relevant = []
    for _ in range(5):
        chosen = generator.choice(documents, min(documents, int(generator.integers(1, 15))), replace=False)
        grades = {int(d): int(generator.integers(0, 4)) for d in chosen}
        grades[-2] = 1  # relevant, but not in the corpus
        relevant.append(grades)
    ours = ranking_metrics(ranking, relevant)
    run = {
        str(q): {f"d{d}": float(1000 - rank) for rank, d in enumerate(row) if d >= 0}
        for q, row in enumerate(ranking)
    }
    qrels = {str(q): {f"d{d}": g for d, g in grades.items()} for q, grades in enumerate(relevant)}
    theirs = {
        "ndcg@10": "ndcg_cut_10",
        "recall@10": "recall_10",
        "recall@100": "recall_100",
        "map@100": "map",
    }
    judged = pytrec_eval.RelevanceEvaluator(qrels, {*theirs.values(), "recip_rank"}).evaluate(run)
    top10 = {q: {d: s for d, s in row.items() if s > 990} for q, row in run.items()}
    first = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(top10)
    for q in range(5):
        for name, theirs_name in theirs.items():
            assert ours[name][q] == pytest.approx(judged[str(q)][theirs_name], abs=1e-6), name
        assert ours["mrr@10"][q] == pytest.approx(first[str(q)]["recip_rank"], abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 40))
def test_pair_metrics_are_scipys_and_scikit_learns(seed, count):
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 6, count).astype(float)
    y = generator.integers(0, 4, count) + 0.1 * x
    y[:2], x[:2] = (0, 9), (3, 4)  # neither side constant
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert pearson(x, y) == pytest.approx(pearsonr(x, y).statistic)
    labels = generator.integers(0, 2, count)
    labels[0] = 1
    assert average_precision(x, labels) == pytest.approx(average_precision_score(labels, x))
    rows = generator.integers(0, count, (3, count))
    weights = np.stack([np.bincount(row, minlength=count) for row in rows]).astype(float)
    for row, value in zip(rows, average_precision(x, labels, weights), strict=True):
        if labels[row].any():
            assert value == pytest.approx(average_precision_score(labels[row], x[row]))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=10, max_size=10))
def test_bitext_f1_is_mtebs_weighted_f1(nearest):
    values = bitext_metrics(np.array(nearest))
    expected = f1_score(range(10), nearest, average="weighted", zero_division=0)
    assert values["f1"].mean() == pytest.approx(expected)
    assert values["accuracy"].mean() == np.mean(np.array(nearest) == np.arange(10))


def test_interval_is_seeded_and_close_to_the_normal_one():
    values = np.random.default_rng(1).normal(0.5, 0.2, 400)
    low, high = interval_of_mean(values, 4000)
    assert (low, high) == interval_of_mean(values, 4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)
    assert interval_of_mean(values, 0) == (None, None)


def test_interval_of_a_statistic_over_pairs_narrows_with_their_number():
    def width(count):
        x = np.random.default_rng(0).normal(size=count)
        y = x + np.random.default_rng(1).normal(size=count)
        low, high = interval_of(lambda rows: spearman(x[rows], y[rows]), count, 300)
        assert low < spearman(x, y) < high
        return high - low

    assert width(400) < width(50)
