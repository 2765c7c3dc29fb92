"""InfoNCE (van den Oord et al. 2018, eq. 4) with in-batch and hard negatives.

    L = mean over i of  -log( exp(s_ii / t) / sum over j of exp(s_ij / t) )

s_ij is the score of query i and document j, t the temperature; document i answers query i.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedline.training.objectives.distillation import Told, told_contrast, told_divergence
from embedline.training.objectives.streaming import Rows, row_blocks

_SHORTEST = 1e-12  # as F.normalize


def info_nce(
    queries_ND: Tensor,
    documents_MD: Tensor,
    *,
    owner_M: Tensor,
    same_NM: Rows,
    temperature: float | Tensor,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
    false_negative_margin: float | None = None,
    told: Told | None = None,
) -> Tensor:
    """`contrastive_loss` of the cosines, in blocks of queries: memory grows with N + M, not with N × M.

    Args:
        queries_ND, documents_MD: vectors, normalised here.
        same_NM: as in `left_out`; asked for some rows at a time.
    """
    rules: dict[str, Any] = {
        "owner_M": owner_M,
        "in_batch_negatives": in_batch_negatives,
        "false_negative_margin": false_negative_margin,
    }
    if told is not None:  # it speaks of a few documents of each query, in batches that are small
        return contrastive_loss(
            F.normalize(queries_ND, dim=-1) @ F.normalize(documents_MD, dim=-1).T,
            same_NM=same_NM[:],
            temperature=temperature,
            symmetric=symmetric,
            told=told,
            **rules,
        )
    scale = torch.as_tensor(1 / temperature, dtype=queries_ND.dtype, device=queries_ND.device)
    loss: Tensor = _InfoNCE.apply(  # type: ignore[no-untyped-call]
        queries_ND, documents_MD, scale, same_NM, rules, symmetric
    )
    return loss


class _InfoNCE(torch.autograd.Function):
    """The loss, and its gradient by the formula, while a block of scores is at hand:

        dL / d logit_ij = (p_ij - [i = j]) / N           p_ij: the softmax over the documents j
                        + (r_ij - [i = j]) / N           r_ij: the softmax over the queries i, if symmetric

    (the mean of the two, if symmetric); logit_ij = scale · cosine_ij. Nothing of a block is kept, and of the
    vectors nothing but the gradients at them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries_ND: Tensor,
        documents_MD: Tensor,
        scale: Tensor,
        same_NM: Rows,
        rules: dict[str, Any],
        symmetric: bool,
    ) -> Tensor:
        queries_ND, query_norms = _unit(queries_ND)
        documents_MD, document_norms = _unit(documents_MD)
        count = len(queries_ND)
        blocks = row_blocks(count, len(documents_MD))

        def block(rows: slice) -> tuple[Tensor, Tensor]:
            """Scores of some queries, and their logits: -inf where a document is left out."""
            scores_nM = queries_ND[rows] @ documents_MD.T
            out_nM = left_out(scores_nM, same_NM=same_NM[rows], first=rows.start, **rules)
            return scores_nM, (scores_nM * scale).masked_fill_(out_nM, -torch.inf)

        column_sums_N = queries_ND.new_full((count,), -torch.inf)  # logarithms of them
        for rows in blocks if symmetric else ():
            column_sums_N = torch.logaddexp(column_sums_N, block(rows)[1][:, :count].logsumexp(0))

        directions = 2 if symmetric else 1
        loss, by_scale = torch.zeros_like(scale), torch.zeros_like(scale)
        by_queries_ND, by_documents_MD = torch.empty_like(queries_ND), torch.zeros_like(documents_MD)
        for rows in blocks:
            scores_nM, logits_nM = block(rows)
            sums_n = logits_nM.logsumexp(1)
            loss += sums_n.sum() - directions * logits_nM.diagonal(rows.start).sum()
            columns_nN = (logits_nM[:, :count] - column_sums_N).exp_() if symmetric else None
            gradient_nM = logits_nM.sub_(sums_n.unsqueeze(1)).exp_()
            if columns_nN is not None:
                gradient_nM[:, :count] += columns_nN
            gradient_nM.diagonal(rows.start).sub_(directions)
            torch.mm(gradient_nM, documents_MD, out=by_queries_ND[rows])
            by_documents_MD.addmm_(gradient_nM.T, queries_ND[rows])
            by_scale += torch.dot(gradient_nM.flatten(), scores_nM.flatten())
        if symmetric:
            loss += column_sums_N.sum()
        share = 1 / (directions * count)
        ctx.save_for_backward(
            _through_unit(by_queries_ND, queries_ND, query_norms).mul_(scale * share),
            _through_unit(by_documents_MD, documents_MD, document_norms).mul_(scale * share),
            by_scale * share,
        )
        return loss * share

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Any:
        return *(slope * gradient for gradient in ctx.saved_tensors), None, None, None


def _unit(vectors_ND: Tensor) -> tuple[Tensor, Tensor]:
    """What `F.normalize` gives, and the lengths that it divides by (N × 1)."""
    norms = torch.linalg.vector_norm(vectors_ND, dim=-1, keepdim=True).clamp_min(_SHORTEST)
    return vectors_ND / norms, norms


def _through_unit(gradient_ND: Tensor, unit_ND: Tensor, norms: Tensor) -> Tensor:
    """From the gradient at unit vectors to that at the vectors, in place: (g - (g · u) u) / length."""
    along = torch.einsum("nd,nd->n", gradient_ND, unit_ND).unsqueeze(1)
    along = along.masked_fill(norms <= _SHORTEST, 0.0)  # shorter ones are divided by a constant
    return gradient_ND.addcmul_(unit_ND, along, value=-1).div_(norms)


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
    first: int = 0,
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
        first: the number of the first query, where the rows are some of a batch's.
    """
    last = first + len(scores_NM)
    left_out_NM = same_NM.clone()
    if not in_batch_negatives:
        left_out_NM |= owner_M.unsqueeze(0) != torch.arange(first, last, device=owner_M.device).unsqueeze(1)
    if false_negative_margin is not None:
        left_out_NM |= scores_NM > scores_NM.diagonal(first).unsqueeze(1) + false_negative_margin
    left_out_NM[:, first:last].fill_diagonal_(False)  # a query's own positive always counts
    return left_out_NM
