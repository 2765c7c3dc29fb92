"""Scores of queries and documents by each of BGE-M3's heads (Chen et al. 2024, section 3.1), in batches.

All functions are differentiable, and compute in the precision of their inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from embedline.config.model import HybridWeights
from embedline.models.batching import token_batches


def lexical_scores(q_ids_NT: Tensor, q_weights_NT: Tensor, d_ids_MT: Tensor, d_weights_MT: Tensor) -> Tensor:
    """Compute s = Σ_t w_q(t) w_d(t) over the terms t of both texts (N × M).

    A term's weight is the largest of its tokens'. Only terms with a positive weight in a query get a column:
    no other term adds to a score.
    """
    terms_V = torch.unique(q_ids_NT[q_weights_NT > 0])
    return term_matrix(q_ids_NT, q_weights_NT, terms_V) @ term_matrix(d_ids_MT, d_weights_MT, terms_V).T


def term_matrix(ids_BT: Tensor, weights_BT: Tensor, terms_V: Tensor) -> Tensor:
    """Return the largest weight of each of the sorted terms in each row (B × V)."""
    count = len(terms_V)
    if not count:
        return weights_BT[:, :0]
    column_BT = torch.searchsorted(terms_V, ids_BT.contiguous()).clamp(max=count - 1)
    elsewhere = torch.full_like(column_BT, count)  # a last column, dropped below, for all other terms
    column_BT = torch.where(terms_V[column_BT] == ids_BT, column_BT, elsewhere)
    zeros = weights_BT.new_zeros(len(weights_BT), count + 1)
    return zeros.scatter_reduce(1, column_BT, weights_BT, "amax")[:, :count]


def multi_vector_scores(q_tokens_NTK: Tensor, d_tokens_MTK: Tensor, *, block: int = 2**23) -> Tensor:
    """Compute s = mean over query tokens of the maximum over document tokens of their dot product (N × M).

    A zero vector is padding: it is not counted in the mean and is never the maximum. A text without tokens
    scores 0. Under autocast the dot products are computed in its precision, the rest in that of the vectors.

    Args:
        block: token pairs compared at once. The N × T × M × T products are never in memory together: blocks
            of texts of like length are computed in turn, and recomputed in the backward pass.
    """
    if not len(q_tokens_NTK) or not len(d_tokens_MTK):
        return q_tokens_NTK.new_zeros(len(q_tokens_NTK), len(d_tokens_MTK))
    documents, d_order = _by_length(d_tokens_MTK, min(4 * int(block**0.5), block // q_tokens_NTK.shape[1]))
    widest = max(part.shape[:2].numel() for part in documents)
    queries, q_order = _by_length(q_tokens_NTK, block // widest)
    rows = [torch.cat([_block(q, d) for d in documents], dim=1) for q in queries]
    return torch.cat(rows)[q_order.argsort()][:, d_order.argsort()]


def _by_length(tokens_BTK: Tensor, tokens: int) -> tuple[list[Tensor], Tensor]:
    """Split into blocks of texts of like length, each as wide as its longest; return them and their order."""
    place_T = torch.arange(1, tokens_BTK.shape[1] + 1, device=tokens_BTK.device)
    length_B = ((tokens_BTK != 0).any(-1) * place_T).amax(-1).clamp(min=1)
    blocks = token_batches(length_B.tolist(), tokens)
    order = torch.from_numpy(np.concatenate(blocks)).to(tokens_BTK.device)
    parts = torch.split(tokens_BTK[order], [len(rows) for rows in blocks])
    return [part[:, : int(length_B[rows[0]])] for part, rows in zip(parts, blocks, strict=True)], order


def _block(q_nTK: Tensor, d_mTK: Tensor) -> Tensor:
    if torch.is_grad_enabled() and (q_nTK.requires_grad or d_mTK.requires_grad):
        scores: Tensor = checkpoint(
            _late_interaction, q_nTK, d_mTK, use_reentrant=False, preserve_rng_state=False
        )
        return scores
    return _late_interaction(q_nTK, d_mTK)


def _late_interaction(q_nTK: Tensor, d_mTK: Tensor) -> Tensor:
    q_real_nT, d_real_mT = (q_nTK != 0).any(-1), (d_mTK != 0).any(-1)
    never_mT = torch.zeros_like(d_real_mT, dtype=q_nTK.dtype).masked_fill(~d_real_mT, -torch.inf)
    dots = torch.addmm(
        never_mT.flatten(), q_nTK.flatten(0, 1), d_mTK.flatten(0, 1).T
    )  # one product is fastest
    best_nTm = dots.view(*q_real_nT.shape, *d_real_mT.shape).max(-1).values.to(q_nTK.dtype)
    counted_nTm = q_real_nT.unsqueeze(-1) & d_real_mT.any(-1)
    best_nTm = torch.where(counted_nTm, best_nTm, 0.0)
    return best_nTm.sum(1) / q_real_nT.sum(1, keepdim=True).clamp(min=1)


def hybrid_scores(scores: Mapping[str, Tensor], weights: HybridWeights | Mapping[str, float]) -> Tensor:
    """Add the heads' scores (each N × M), weighted; heads without scores are left out (N × M)."""
    by_head = weights.model_dump() if isinstance(weights, HybridWeights) else weights
    return torch.stack([by_head[head] * score for head, score in scores.items()]).sum(0)
