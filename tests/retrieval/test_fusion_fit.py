"""The fit of a fusion's weights: what it learns, and when it leaves the default ones."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from embedline.retrieval import fusion_fit
from embedline.retrieval.fusion import DEFAULT_COEFFICIENTS, FEATURES, Candidates, Fusion
from embedline.retrieval.fusion_fit import MIN_QUERIES, JudgedQueries, fit_fusion, ndcg


def ranked(scores_QN):
    order = np.argsort(-scores_QN, axis=1, kind="stable")
    return Candidates(np.take_along_axis(scores_QN, order, 1), order)


def judged(count, seed, *, dense=1.0, words=1.0):
    """Queries two thirds of which match words: BM25 finds the answer of those, dense that of all."""
    generator = np.random.default_rng(seed)
    answers = generator.integers(0, 30, count)
    matching = np.arange(count) % 3 > 0
    right = np.eye(30)[answers]
    scores = {
        "dense": generator.normal(size=(count, 30)) + dense * 2 * right,
        "bm25": generator.normal(size=(count, 30)) + words * 4 * right * matching[:, None],
    }
    features = np.ones((count, len(FEATURES)))
    features[:, FEATURES.index("match")] = matching
    found = {name: ranked(values) for name, values in scores.items()}
    return JudgedQueries(found, features, [frozenset([int(answer)]) for answer in answers])


def test_the_weight_of_words_follows_the_feature_that_tells_their_worth():
    parts = [judged(120, 0), judged(80, 1)]
    fitted = fit_fusion(Fusion(), parts)
    assert fitted.queries == 200
    assert fitted.legs == ("dense", "bm25")
    weights = fitted.weights(fitted.legs, parts[0].features)["bm25"]
    assert weights[1] > 0.4 > 0.25 > weights[0]
    unseen = [judged(400, 2)]
    equal = Fusion(coefficients={"bm25": (0.0,) * len(FEATURES)})
    by_fusion = [np.mean(ndcg(fusion, unseen)) for fusion in (equal, Fusion(), fitted)]
    assert by_fusion == sorted(by_fusion)
    assert by_fusion[2] > by_fusion[0] + 0.02
    assert fitted.scores["fitted"] > fitted.scores["default"]
    assert set(fitted.scores) == {"dense", "bm25", "default", "fitted"}
    assert fit_fusion(Fusion(), parts) == fitted


def test_few_queries_leave_the_default_weights():
    fitted = fit_fusion(Fusion(), [judged(MIN_QUERIES - 1, 0)])
    assert (fitted.queries, fitted.coefficients) == (0, DEFAULT_COEFFICIENTS)
    assert fitted.scores["default"] > 0
    assert fit_fusion(Fusion(), []) == Fusion()


def test_weights_that_do_not_rank_unseen_queries_better_are_not_kept(monkeypatch):
    worse = {"bm25": (20.0, 0.0, 0.0, 0.0)}
    monkeypatch.setattr(fusion_fit, "_fitted", lambda default, _: replace(default, coefficients=worse))
    fitted = fit_fusion(Fusion(), [judged(100, 0)])
    assert (fitted.queries, fitted.coefficients) == (0, DEFAULT_COEFFICIENTS)
    assert fitted.scores["fitted"] < fitted.scores["default"]


def test_rank_fusion_is_scored_and_has_nothing_to_fit():
    fitted = fit_fusion(Fusion("rrf"), [judged(100, 0)])
    assert (fitted.method, fitted.queries, set(fitted.scores)) == ("rrf", 0, {"dense", "bm25", "default"})


def test_the_fit_follows_its_gradient(monkeypatch):
    seen = {}

    def watched(loss, begin, **_):
        seen["error"] = check_grad(lambda x: loss(x)[0], lambda x: loss(x)[1], begin + 0.3)
        return pytest.importorskip("scipy.optimize").OptimizeResult(x=begin)

    monkeypatch.setattr(fusion_fit, "minimize", watched)
    part = judged(60, 3)
    legs = part.legs | {"lexical": judged(60, 4).legs["dense"]}
    fit_fusion(Fusion(), [replace(part, legs=legs)])
    assert seen["error"] < 1e-3


def test_queries_whose_answer_no_leg_finds_do_not_stop_the_fit():
    part = judged(100, 0)
    relevant = [frozenset([99]), *part.relevant[1:]]
    assert fit_fusion(Fusion(), [replace(part, relevant=relevant)]).scores["default"] < 1
