"""Metrics of rankings, scored pairs and matchings; all values in 0..1 (correlations in -1..1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

DEPTH = 100  # documents of a ranking that count


def ranking_metrics(ranking: np.ndarray, relevant: Sequence[Mapping[int, int]]) -> dict[str, np.ndarray]:
    """Compute ranking metrics for each query, as trec_eval does.

    The gain in nDCG is linear (Järvelin and Kekäläinen 2002).

    Args:
        ranking: document indices, best first (Q × K, K up to 100 counts); -1 where nothing was found.
        relevant: a query's documents and grades; a grade below 1 is not relevant.

    Returns:
        ndcg@10, mrr@10, recall@10, recall@100, map@100, each an array of Q values.
    """
    ranking = ranking[:, :DEPTH]
    gains_QK = np.zeros(ranking.shape)
    ideal_Q10 = np.zeros((len(relevant), 10))
    total_Q = np.zeros(len(relevant))
    for q, grades in enumerate(relevant):
        positive = {document: grade for document, grade in grades.items() if grade > 0}
        gains_QK[q] = [positive.get(int(document), 0) for document in ranking[q]]
        best = sorted(positive.values(), reverse=True)[:10]
        ideal_Q10[q, : len(best)] = best
        total_Q[q] = len(positive)
    total_Q = np.maximum(total_Q, 1)
    hits_QK = gains_QK > 0
    discount = 1 / np.log2(np.arange(2, DEPTH + 2))
    ideal_Q = (ideal_Q10 * discount[:10]).sum(1)
    dcg_Q = (gains_QK[:, :10] * discount[: gains_QK[:, :10].shape[1]]).sum(1)
    ranks = np.arange(1, ranking.shape[1] + 1)
    first_Q = np.where(hits_QK[:, :10].any(1), hits_QK[:, :10].argmax(1) + 1, np.inf)
    precision_QK = hits_QK.cumsum(1) / ranks
    return {
        "ndcg@10": np.divide(dcg_Q, ideal_Q, out=np.zeros_like(dcg_Q), where=ideal_Q > 0),
        "mrr@10": 1 / first_Q,
        "recall@10": hits_QK[:, :10].sum(1) / total_Q,
        "recall@100": hits_QK.sum(1) / total_Q,
        "map@100": (precision_QK * hits_QK).sum(1) / total_Q,
    }


def without(ranking: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Remove one document from each ranking; the documents after it move up, and -1 follows the last one.

    Args:
        ranking: document indices, best first (Q × K); -1 where nothing was found.
        left_out: the document that is no result (Q); any number below -1 for none.

    >>> without(np.array([[4, 7, 2], [7, 4, -1]]), np.array([7, -2]))
    array([[ 4,  2, -1],
           [ 7,  4, -1]])
    """
    removed = ranking == left_out[:, None]
    order = np.argsort(removed, axis=1, kind="stable")
    return np.take_along_axis(np.where(removed, -1, ranking), order, axis=1)


def bitext_metrics(nearest: np.ndarray) -> dict[str, np.ndarray]:
    """Compute F1 and accuracy of finding sentence i's translation, which is number i; N values each.

    The mean of the F1 values is mteb's weighted F1: class i occurs once, so its F1 is 0 when it is missed,
    and 2 / (2 + wrong predictions of i) when it is found.
    """
    count = len(nearest)
    hit = nearest == np.arange(count)
    wrong = np.bincount(nearest[~hit], minlength=count)
    return {"f1": hit * 2 / (2 + wrong), "accuracy": hit.astype(np.float64)}


def pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the Pearson correlation over the last axis; 0 where one side is constant."""
    x = first - first.mean(-1, keepdims=True)
    y = second - second.mean(-1, keepdims=True)
    norm = np.sqrt((x * x).sum(-1) * (y * y).sum(-1))
    tiny = 1e-12
    correlation: np.ndarray = np.where(norm > tiny, (x * y).sum(-1) / np.maximum(norm, tiny), 0.0)
    return correlation


def spearman(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the Spearman correlation over the last axis, ties with their mean rank."""
    return pearson(rankdata(first, axis=-1), rankdata(second, axis=-1))


def average_precision(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Compute the area under the precision-recall curve as a sum of steps, equal scores as one step.

    Args:
        scores, labels: N similarities and N labels (0 or 1).
        weights: how often each pair counts (… × N); once when None.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, labels = scores[order], labels[order]
    weights = np.ones(len(scores)) if weights is None else weights[..., order]
    ends = np.append(ranked[1:] != ranked[:-1], True)  # the last pair of every group of equal scores
    true = (weights * labels).cumsum(-1)[..., ends]
    seen = weights.cumsum(-1)[..., ends]
    steps = np.diff(true, axis=-1, prepend=0)
    precision = np.divide(true, seen, out=np.zeros_like(true), where=seen > 0)
    positives = true[..., -1]
    area: np.ndarray = (precision * steps).sum(-1) / np.maximum(positives, 1e-12)
    return area
