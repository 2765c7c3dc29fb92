"""Metrics of the vectors of a batch, beside its loss."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.training.engine.step_timer import Metrics
from embedline.training.objectives.negatives import NegativeRules

# The rows of a larger batch are in random order: some of them are a sample, and N × M scores need not exist.
MOST_QUERIES = 1024
MOST_SCORES = 2**20


@torch.no_grad()
def batch_metrics(
    vectors: Tensor, count: int, rules: NegativeRules, *, temperature: float | Tensor
) -> Metrics:
    """Measure `dense_loss`, `in_batch_accuracy`, `alignment` and `uniformity` of at most 1,024 queries.

    Args:
        vectors: N queries, then their N positives, then other documents (N + M × D); not normalised.
        count: N.
        rules, temperature: as for `info_nce`.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    documents_MD = unit[count:]
    measured = min(count, MOST_QUERIES, max(2, MOST_SCORES // len(documents_MD)))
    queries_nD = unit[:measured]
    scores_nM = queries_nD @ documents_MD.T
    own_n = torch.arange(measured, device=unit.device)
    rules = replace(rules, known_positives_NM=rules.known_positives_NM[:measured])
    logits_nM = (scores_nM / temperature).masked_fill(rules.ignored_mask(scores_nM), -torch.inf)
    metrics: Metrics = {"dense_loss": F.cross_entropy(logits_nM, own_n)}
    # The margin masks by the model's own scores: these metrics count the masked documents as negatives.
    without_margin = replace(rules, false_negative_margin=None)
    negatives_nM = scores_nM.masked_fill(without_margin.ignored_mask(scores_nM), -torch.inf)
    negatives_nM[own_n, own_n] = -torch.inf
    metrics["in_batch_accuracy"] = (scores_nM[own_n, own_n] > negatives_nM.amax(1)).float().mean()
    positives_nD = documents_MD[:measured]
    metrics["alignment"] = alignment(queries_nD, positives_nD)
    if measured > 1:
        metrics["uniformity"] = (uniformity(queries_nD) + uniformity(positives_nD)) / 2
    return metrics


def alignment(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    """Return the mean over i of |x_i - y_i|² of N pairs of unit vectors.

    Wang & Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere", section 4.1.1, α = 2.
    """
    return (first_ND - second_ND).square().sum(-1).mean()


def uniformity(vectors_ND: Tensor) -> Tensor:
    """Return log of the mean over i ≠ j of exp(-2 |x_i - x_j|²) of unit vectors (section 4.1.2, t = 2)."""
    squares_NN = (2 - 2 * vectors_ND @ vectors_ND.T).clamp(min=0).fill_diagonal_(torch.inf)
    count = len(vectors_ND)
    return ((-2 * squares_NN).exp().sum() / (count * (count - 1))).log()
