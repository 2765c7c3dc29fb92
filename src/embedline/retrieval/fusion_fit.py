"""Fit of the weights of a fusion, on queries with known answers that the training did not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from embedline.retrieval.fusion import (
    DEFAULT_COEFFICIENTS,
    FEATURES,
    LEGS,
    Candidates,
    Fusion,
    pooled,
)

PRIOR_STRENGTH = 4.0  # of a coefficient: twice what the square of 1 off its default costs, in nats
MIN_QUERIES = 40  # on fewer, the default coefficients stay
_TEMPERATURE = 10.0  # of the softmax at the start; it is fitted, too


@dataclass(frozen=True)
class JudgedQueries:
    """Queries over one corpus, with what each leg found for them.

    Args:
        legs: by name.
        features: of the queries (Q × F).
        relevant: of each query, the indices of its documents.
    """

    legs: Mapping[str, Candidates]
    features: np.ndarray
    relevant: Sequence[frozenset[int]]

    def rows(self, chosen: np.ndarray) -> JudgedQueries:
        """Return some of the queries."""
        legs = {name: Candidates(*(part[chosen] for part in leg)) for name, leg in self.legs.items()}
        return JudgedQueries(legs, self.features[chosen], [self.relevant[i] for i in chosen])


def fit_fusion(fusion: Fusion, parts: Sequence[JudgedQueries]) -> Fusion:
    """Return `fusion` with fitted coefficients and its scores; rank fusion has nothing to fit.

    They minimise the cross entropy of a softmax over each query's documents, with a Gaussian prior around the
    default ones: the fewer the queries, the nearer they stay. They are kept only when they do not rank worse
    than the default ones on queries that they were not fitted on: each half of the queries is ranked with the
    coefficients of the other half.

    Args:
        parts: one a corpus, each with the same legs.
    """
    parts = [part for part in parts if part.relevant]
    if not parts:
        return fusion
    legs = tuple(name for name in LEGS if name in fusion.legs and name in parts[0].legs)
    default = replace(fusion, legs=legs, coefficients=DEFAULT_COEFFICIENTS)
    scores = {name: _mean([_gains(part.legs[name], part) for part in parts]) for name in legs}
    scores["default"] = before = _mean(ndcg(default, parts))
    count = sum(len(part.relevant) for part in parts)
    if fusion.method == "rrf" or count < MIN_QUERIES or len(legs) < 2:
        return replace(default, scores=scores)
    halves = [[part.rows(np.arange(half, len(part.relevant), 2)) for part in parts] for half in (0, 1)]
    crossed = [ndcg(_fitted(default, one), other) for one, other in (halves, halves[::-1])]
    scores["fitted"] = _mean(crossed[0] + crossed[1])
    if scores["fitted"] < before:
        return replace(default, scores=scores)
    return replace(_fitted(default, parts), queries=count, scores=scores)


def ndcg(fusion: Fusion, parts: Sequence[JudgedQueries]) -> list[np.ndarray]:
    """Return nDCG@10 of each query of each part, ranked by a fusion."""
    return [_gains(fusion.rank(part.legs, part.features, 10), part) for part in parts]


def _gains(found: Candidates, part: JudgedQueries) -> np.ndarray:
    discount = 1 / np.log2(np.arange(2, 12))
    values = []
    for indices, relevant in zip(found.indices[:, :10].tolist(), part.relevant, strict=True):
        hits = np.array([document in relevant for document in indices], dtype=float)
        values.append(hits @ discount[: len(hits)] / discount[: len(relevant)].sum())
    return np.array(values)


def _mean(parts: Sequence[np.ndarray]) -> float:
    return float(np.concatenate(parts).mean())


def _fitted(default: Fusion, parts: Sequence[JudgedQueries]) -> Fusion:
    """Return the fusion with the coefficients that fit `parts` best."""
    legs = default.legs
    scores_LQP, targets_QP, real_QP, features_QF = _arrays(legs, parts)
    none = (0.0,) * len(FEATURES)
    start_LF = np.array([default.coefficients.get(name, none) for name in legs])
    free = np.array([name != legs[0] for name in legs])  # only differences between legs matter

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        temperature, moved = np.exp(values[0]), values[1:].reshape(-1, len(FEATURES))
        coefficients_LF = start_LF.copy()
        coefficients_LF[free] += moved
        weights_LQ = softmax(coefficients_LF @ features_QF.T, axis=0)
        total_QP = np.einsum("lq,lqp->qp", weights_LQ, scores_LQP)
        logits = np.where(real_QP, temperature * total_QP, -np.inf)
        log_shares = np.where(real_QP, log_softmax(logits, axis=1), 0.0)
        off_QP = np.where(real_QP, np.exp(log_shares) - targets_QP, 0.0)
        by_leg_LQ = temperature * np.einsum("qp,lqp->lq", off_QP, scores_LQP)
        by_logit_LQ = weights_LQ * (by_leg_LQ - (weights_LQ * by_leg_LQ).sum(0))
        gradient = (by_logit_LQ @ features_QF)[free] + PRIOR_STRENGTH * moved
        value = -(targets_QP * log_shares).sum() + PRIOR_STRENGTH / 2 * (moved**2).sum()
        return value, np.concatenate([[temperature * (off_QP * total_QP).sum()], gradient.ravel()])

    begin = np.zeros(1 + int(free.sum()) * len(FEATURES))
    begin[0] = np.log(_TEMPERATURE)
    found = minimize(loss, begin, jac=True, method="L-BFGS-B").x[1:].reshape(-1, len(FEATURES))
    start_LF[free] += found
    return replace(default, coefficients=dict(zip(legs, map(tuple, start_LF.tolist()), strict=True)))


def _arrays(
    legs: Sequence[str], parts: Sequence[JudgedQueries]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return scores by leg (L × Q × P), targets (Q × P), which documents are real, and features (Q × F).

    The targets of a query add up to 1; queries of which no leg found a relevant document are left out.
    """
    pools = [pooled({name: part.legs[name] for name in legs}) for part in parts]
    width = max(pool.indices.shape[1] for pool in pools)

    def wide(rows: np.ndarray, fill: float) -> np.ndarray:
        return np.pad(rows, [(0, 0), (0, width - rows.shape[1])], constant_values=fill)

    indices_QP = np.concatenate([wide(pool.indices, -1) for pool in pools])
    scores_LQP = np.stack([np.concatenate([wide(pool.scores[name], 0) for pool in pools]) for name in legs])
    relevant = [documents for part in parts for documents in part.relevant]
    hits_QP = np.array([np.isin(row, list(r)) for row, r in zip(indices_QP, relevant, strict=True)], float)
    used = hits_QP.any(1)
    targets_QP = hits_QP[used] / hits_QP[used].sum(1, keepdims=True)
    features_QF = np.concatenate([part.features for part in parts])[used]
    return scores_LQP[:, used], targets_QP, (indices_QP >= 0)[used], features_QF
