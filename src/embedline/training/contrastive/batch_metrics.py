"""How well the vectors of a batch are placed, beside its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.training.engine.step_timer import Metrics
from embedline.training.objectives.infonce import left_out

# Rows of a larger batch stand in no order: some of them tell enough, and N × M scores need not exist.
MOST_QUERIES = 1024
MOST_SCORES = 2**20


@torch.no_grad()
def in_batch(vectors: Tensor, count: int, rules: Mapping[str, Any]) -> Metrics:
    """`dense_loss`, `in_batch_accuracy`, `alignment` and `uniformity` of at most 1,024 queries.

    Args:
        vectors: N queries, then their N positives, then other documents (N + M × D); not normalised.
        count: N.
        rules: what `contrastive_loss` takes beside the scores.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    documents_MD = unit[count:]
    asked = min(count, MOST_QUERIES, max(2, MOST_SCORES // len(documents_MD)))
    queries_nD = unit[:asked]
    scores_nM = queries_nD @ documents_MD.T
    own_n = torch.arange(asked, device=unit.device)
    counted = {
        "owner_M": rules["owner_M"],
        "same_NM": rules["same_NM"][:asked],
        "in_batch_negatives": rules["in_batch_negatives"],
    }
    trained_nM = left_out(scores_nM, false_negative_margin=rules["false_negative_margin"], **counted)
    logits_nM = (scores_nM / rules["temperature"]).masked_fill(trained_nM, -torch.inf)
    found: Metrics = {"dense_loss": F.cross_entropy(logits_nM, own_n)}
    # What the margin takes for an answer is the model's own opinion: here it counts as wrong.
    others_nM = scores_nM.masked_fill(left_out(scores_nM, **counted), -torch.inf)
    others_nM[own_n, own_n] = -torch.inf
    found["in_batch_accuracy"] = (scores_nM[own_n, own_n] > others_nM.amax(1)).float().mean()
    positives_nD = documents_MD[:asked]
    found["alignment"] = alignment(queries_nD, positives_nD)
    if asked > 1:
        found["uniformity"] = (uniformity(queries_nD) + uniformity(positives_nD)) / 2
    return found


def alignment(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    """mean over i of |x_i - y_i|² of N pairs of unit vectors (Wang & Isola 2020, section 4.1.1, α = 2)."""
    return (first_ND - second_ND).square().sum(-1).mean()


def uniformity(vectors_ND: Tensor) -> Tensor:
    """log of the mean over i ≠ j of exp(-2 |x_i - x_j|²) of unit vectors (section 4.1.2 there, t = 2)."""
    squares_NN = (2 - 2 * vectors_ND @ vectors_ND.T).clamp(min=0).fill_diagonal_(torch.inf)
    count = len(vectors_ND)
    return ((-2 * squares_NN).exp().sum() / (count * (count - 1))).log()
