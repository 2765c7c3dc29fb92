"""InfoNCE (van den Oord et al. 2018, eq. 4) with in-batch and hard negatives."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(
    queries_ND: Tensor,
    documents_MD: Tensor,
    *,
    owner_M: Tensor,
    same_NM: Tensor,
    temperature: float,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
    false_negative_margin: float | None = None,
) -> Tensor:
    """The mean over queries of -log softmax of the positive's cosine / temperature.

    Args:
        queries_ND, documents_MD: vectors, normalised here. The first N documents are the positives, in the
            order of the queries; the other M - N are hard negatives.
        owner_M: the query that each document belongs to (0..N-1 for positives).
        same_NM: True where a document is known to answer the query (the same text as its positive); such a
            document is no negative.
        symmetric: add the loss of finding the query from its positive, among all queries.
        in_batch_negatives: False leaves each query its own hard negatives only.
        false_negative_margin: a document scoring above the positive by more than this is taken for an
            unlabelled positive and left out (the rule of GISTEmbed, with the model itself as the guide).
    """
    count = len(queries_ND)
    scores_NM = F.normalize(queries_ND, dim=-1) @ F.normalize(documents_MD, dim=-1).T
    own_NM = owner_M.unsqueeze(0) == torch.arange(count, device=owner_M.device).unsqueeze(1)
    positive_NM = torch.zeros_like(own_NM)
    positive_NM[:, :count].fill_diagonal_(True)
    left_out_NM = same_NM.clone()
    if not in_batch_negatives:
        left_out_NM |= ~own_NM
    if false_negative_margin is not None:
        bar_N1 = scores_NM.detach().diagonal().unsqueeze(1) + false_negative_margin
        left_out_NM |= scores_NM.detach() > bar_N1
    left_out_NM &= ~positive_NM
    target = torch.arange(count, device=queries_ND.device)
    logits_NM = (scores_NM / temperature).masked_fill(left_out_NM, -torch.inf)
    loss = F.cross_entropy(logits_NM, target)
    if symmetric:
        backward_NN = (scores_NM[:, :count].T / temperature).masked_fill(left_out_NM[:, :count].T, -torch.inf)
        loss = (loss + F.cross_entropy(backward_NN, target)) / 2
    return loss
