"""CoSENT (Su 2022; Huang et al. 2024, "CoSENT: Consistent Sentence Embedding via Similarity Ranking").

    L = log( 1 + sum over i, j with y_i > y_j of exp(λ (c_j - c_i)) )

c_i is the cosine of pair i, y_i its label of similarity, λ the scale. Only the order of the labels counts: of
two pairs, the one with the higher label should have the larger cosine.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.training.objectives.streaming import by_rows


def cosent(first_ND: Tensor, second_ND: Tensor, labels_N: Tensor, *, scale: float | Tensor = 20.0) -> Tensor:
    """Return the `ranking_loss` of the cosines of N pairs.

    Args:
        first_ND, second_ND: the two texts of each pair; normalised here.
    """
    cosines_N = (F.normalize(first_ND, dim=-1) * F.normalize(second_ND, dim=-1)).sum(-1)
    return ranking_loss(cosines_N, labels_N, scale=scale)


def ranking_loss(scores_N: Tensor, labels_N: Tensor, *, scale: float | Tensor = 20.0) -> Tensor:
    """Penalise scores of N pairs that contradict the order of their labels; 0 where all labels are equal.

    Args:
        scale: the inverse of a temperature; meant for scores between -1 and 1.
    """

    def log_sum(rows: slice) -> Tensor:
        excess_nN = scale * (scores_N.unsqueeze(0) - scores_N[rows].unsqueeze(1))  # [i, j]: λ (c_j - c_i)
        ordered_nN = labels_N[rows].unsqueeze(1) > labels_N.unsqueeze(0)
        return excess_nN.masked_fill(~ordered_nN, -torch.inf).flatten().logsumexp(0)

    blocks = by_rows(log_sum, len(scores_N), len(scores_N))
    return torch.stack([scores_N.new_zeros(()), *blocks]).logsumexp(0)  # exp(0) is the 1
