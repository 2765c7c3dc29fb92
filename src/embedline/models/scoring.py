"""How texts are scored by each of BGE-M3's heads (Chen et al. 2024, section 3.1), a batch of queries at once.

All functions are differentiable, and compute in the precision of their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from embedline.config.model import HybridWeights


def lexical_scores(q_ids_NT: Tensor, q_weights_NT: Tensor, d_ids_MT: Tensor, d_weights_MT: Tensor) -> Tensor:
    """s = Σ_t w_q(t) w_d(t) over the terms t of both texts (N × M); a term's weight is its tokens' largest.

    Only terms that weigh something in a query get a column: no other one adds to a score.
    """
    terms_V = torch.unique(q_ids_NT[q_weights_NT > 0])
    return _by_term(q_ids_NT, q_weights_NT, terms_V) @ _by_term(d_ids_MT, d_weights_MT, terms_V).T


def _by_term(ids_BT: Tensor, weights_BT: Tensor, terms_V: Tensor) -> Tensor:
    """The largest weight of each of the sorted `terms` in each row (B × V)."""
    count = len(terms_V)
    if not count:
        return weights_BT[:, :0]
    column_BT = torch.searchsorted(terms_V, ids_BT.contiguous()).clamp(max=count - 1)
    elsewhere = torch.full_like(column_BT, count)  # a last column for all other terms, thrown away
    column_BT = torch.where(terms_V[column_BT] == ids_BT, column_BT, elsewhere)
    zeros = weights_BT.new_zeros(len(weights_BT), count + 1)
    return zeros.scatter_reduce(1, column_BT, weights_BT, "amax")[:, :count]


def multi_vector_scores(q_tokens_NTK: Tensor, d_tokens_MTK: Tensor, *, block: int = 2**25) -> Tensor:
    """s = mean over query tokens of the maximum over document tokens of their dot product (N × M).

    A zero vector is no token: not counted in the mean, never the maximum. A text without tokens scores 0.

    Args:
        block: token pairs compared at once. N × T × M × T of them never exist together: blocks of rows are
            computed one after the other, and anew in the backward pass.
    """
    pairs = max(1, q_tokens_NTK.shape[1] * d_tokens_MTK.shape[1])
    documents = min(max(1, block // pairs), max(1, len(d_tokens_MTK)))
    queries = max(1, block // (pairs * documents))
    rows = [
        torch.cat([_block(q, d) for d in torch.split(d_tokens_MTK, documents)], dim=1)
        for q in torch.split(q_tokens_NTK, queries)
    ]
    return torch.cat(rows)


def _block(q_nTK: Tensor, d_mTK: Tensor) -> Tensor:
    if torch.is_grad_enabled() and (q_nTK.requires_grad or d_mTK.requires_grad):
        scores: Tensor = checkpoint(_late, q_nTK, d_mTK, use_reentrant=False, preserve_rng_state=False)
        return scores
    return _late(q_nTK, d_mTK)


def _late(q_nTK: Tensor, d_mTK: Tensor) -> Tensor:
    q_real_nT, d_real_mT = (q_nTK != 0).any(-1), (d_mTK != 0).any(-1)
    dots_nTmT = torch.einsum("itk,jsk->itjs", q_nTK, d_mTK)
    best_nTm = dots_nTmT.masked_fill(~d_real_mT, -torch.inf).max(-1).values
    counted_nTm = q_real_nT.unsqueeze(-1) & d_real_mT.any(-1)
    best_nTm = torch.where(counted_nTm, best_nTm, 0.0)
    return best_nTm.sum(1) / q_real_nT.sum(1, keepdim=True).clamp(min=1)


def hybrid_scores(scores: Mapping[str, Tensor], weights: HybridWeights | Mapping[str, float]) -> Tensor:
    """The heads' scores (each N × M) added up by their weights; heads without scores are left out (N × M)."""
    by_head = weights.model_dump() if isinstance(weights, HybridWeights) else weights
    return torch.stack([by_head[head] * score for head, score in scores.items()]).sum(0)
