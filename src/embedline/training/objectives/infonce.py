"""InfoNCE (van den Oord et al. 2018, eq. 4) with in-batch and hard negatives.

    L = mean over i of  -log( exp(s_ii / t) / sum over j of exp(s_ij / t) )

s_ij is the score of query i and document j, t the temperature; document i answers query i.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.training.objectives.distillation import Told, told_contrast, told_divergence


def info_nce(
    queries_ND: Tensor,
    documents_MD: Tensor,
    *,
    owner_M: Tensor,
    same_NM: Tensor,
    temperature: float | Tensor,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
    false_negative_margin: float | None = None,
    told: Told | None = None,
) -> Tensor:
    """`contrastive_loss` of the cosines.

    Args:
        queries_ND, documents_MD: vectors, normalised here.
    """
    return contrastive_loss(
        F.normalize(queries_ND, dim=-1) @ F.normalize(documents_MD, dim=-1).T,
        owner_M=owner_M,
        same_NM=same_NM,
        temperature=temperature,
        symmetric=symmetric,
        in_batch_negatives=in_batch_negatives,
        false_negative_margin=false_negative_margin,
        told=told,
    )


def contrastive_loss(
    scores_NM: Tensor,
    *,
    owner_M: Tensor,
    same_NM: Tensor,
    temperature: float | Tensor,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
    false_negative_margin: float | None = None,
    told: Told | None = None,
) -> Tensor:
    """The mean over queries of -log softmax of the positive's score / temperature.

    Args:
        scores_NM: of N queries and M documents. The first N documents are the positives, in the order of
            the queries; the other M - N are hard negatives.
        owner_M, same_NM, in_batch_negatives, false_negative_margin: as in `left_out`.
        temperature: a tensor where it is trained.
        symmetric: add the loss of finding the query from its positive, among all queries.
        told: what a teacher said of each query's own documents, learnt beside this loss or in its place.
    """
    count = len(scores_NM)
    left_out_NM = left_out(
        scores_NM,
        owner_M=owner_M,
        same_NM=same_NM,
        in_batch_negatives=in_batch_negatives,
        false_negative_margin=false_negative_margin,
    )
    target_N = torch.arange(count, device=scores_NM.device)
    logits_NM = (scores_NM / temperature).masked_fill(left_out_NM, -torch.inf)
    if told is not None and told.loss == "m3_kd_loss":
        loss = told_contrast(scores_NM, told.scores, left_out_NM, temperature=temperature)
    else:
        loss = F.cross_entropy(logits_NM, target_N)
    if symmetric:
        loss = (loss + F.cross_entropy(logits_NM[:, :count].T, target_N)) / 2
    if told is not None and told.loss == "kl_div":
        loss = loss + told.weight * told_divergence(scores_NM, told.scores, temperature=temperature)
    return loss


def left_out(
    scores_NM: Tensor,
    *,
    owner_M: Tensor,
    same_NM: Tensor,
    in_batch_negatives: bool = True,
    false_negative_margin: float | None = None,
) -> Tensor:
    """N × M: True where a document is no negative of a query, so that its score does not count.

    Args:
        owner_M: the query that each document belongs to (0..N-1 for positives).
        same_NM: True where a document is known to answer the query (the same text as its positive).
        in_batch_negatives: False leaves each query its own hard negatives only.
        false_negative_margin: a document scoring above the positive by more than this is taken for an
            unlabelled positive (the rule of GISTEmbed, with the model itself as the guide). It is in the
            units of the scores, and the one that people set is meant for cosines: scores that have no upper
            bound, such as lexical ones, take what the cosines of the same batch leave out, as `same_NM`.
    """
    count = len(scores_NM)
    left_out_NM = same_NM.clone()
    if not in_batch_negatives:
        left_out_NM |= owner_M.unsqueeze(0) != torch.arange(count, device=owner_M.device).unsqueeze(1)
    if false_negative_margin is not None:
        left_out_NM |= scores_NM > scores_NM.diagonal().unsqueeze(1) + false_negative_margin
    left_out_NM[:, :count].fill_diagonal_(False)  # a query's own positive always counts
    return left_out_NM
