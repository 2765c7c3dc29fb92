"""InfoNCE (van den Oord et al. 2018, eq. 4) with in-batch and hard negatives.

    L = mean over i of  -log( exp(s_ii / t) / sum over j of exp(s_ij / t) )

s_ij is the score of query i and document j, t the temperature; document i is the positive of query i.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from embedline.training.objectives.distillation import TeacherScores, m3_kd_loss, teacher_kl_loss
from embedline.training.objectives.negatives import NegativeRules
from embedline.training.objectives.streaming import row_blocks

_SHORTEST = 1e-12  # as F.normalize


def info_nce(
    queries_ND: Tensor,
    documents_MD: Tensor,
    rules: NegativeRules,
    *,
    temperature: float | Tensor,
    symmetric: bool = False,
    teacher_scores: TeacherScores | None = None,
) -> Tensor:
    """Return the `contrastive_loss` of the cosines, in blocks of queries.

    Memory grows with N + M, not with N × M.

    Example:
        >>> known = KnownPositives(queries, positives, documents)
        >>> rules = NegativeRules(torch.arange(len(documents)), known)
        >>> info_nce(query_vectors, document_vectors, rules, temperature=0.02).backward()

    Args:
        queries_ND, documents_MD: vectors, normalised here. The first N documents are the positives, in the
            order of the queries.
        rules: which documents are no negatives; its matrix is read some rows at a time.
        temperature, symmetric, teacher_scores: as in `contrastive_loss`.
    """
    if teacher_scores is not None:  # of a few documents of each query, in batches that are small
        return contrastive_loss(
            F.normalize(queries_ND, dim=-1) @ F.normalize(documents_MD, dim=-1).T,
            rules,
            temperature=temperature,
            symmetric=symmetric,
            teacher_scores=teacher_scores,
        )
    scale = torch.as_tensor(1 / temperature, dtype=queries_ND.dtype, device=queries_ND.device)
    loss: Tensor = _InfoNCE.apply(  # type: ignore[no-untyped-call]
        queries_ND, documents_MD, scale, rules, symmetric
    )
    return loss


class _InfoNCE(torch.autograd.Function):
    """The loss and its gradient, computed together while a block of scores is in memory:

        dL / d logit_ij = (p_ij - [i = j]) / N           p_ij: the softmax over the documents j
                        + (r_ij - [i = j]) / N           r_ij: the softmax over the queries i, if symmetric

    (the mean of the two, if symmetric); logit_ij = scale · cosine_ij. No block is kept, only the gradients at
    the vectors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries_ND: Tensor,
        documents_MD: Tensor,
        scale: Tensor,
        rules: NegativeRules,
        symmetric: bool,
    ) -> Tensor:
        queries_ND, query_norms = _unit(queries_ND)
        documents_MD, document_norms = _unit(documents_MD)
        count = len(queries_ND)
        blocks = row_blocks(count, len(documents_MD))

        def block(rows: slice) -> tuple[Tensor, Tensor]:
            """Return the scores of some queries, and their logits: -inf where a document is ignored."""
            scores_nM = queries_ND[rows] @ documents_MD.T
            ignored_mask_nM = rules.ignored_mask(scores_nM, first=rows.start)
            return scores_nM, (scores_nM * scale).masked_fill_(ignored_mask_nM, -torch.inf)

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
        return *(slope * gradient for gradient in ctx.saved_tensors), None, None


def _unit(vectors_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Return the result of `F.normalize`, and the lengths that it divides by (N × 1)."""
    norms = torch.linalg.vector_norm(vectors_ND, dim=-1, keepdim=True).clamp_min(_SHORTEST)
    return vectors_ND / norms, norms


def _through_unit(gradient_ND: Tensor, unit_ND: Tensor, norms: Tensor) -> Tensor:
    """Turn the gradient at unit vectors into that at the vectors, in place: (g - (g · u) u) / length."""
    along = torch.einsum("nd,nd->n", gradient_ND, unit_ND).unsqueeze(1)
    along = along.masked_fill(norms <= _SHORTEST, 0.0)  # shorter ones are divided by a constant
    return gradient_ND.addcmul_(unit_ND, along, value=-1).div_(norms)


def contrastive_loss(
    scores_NM: Tensor,
    rules: NegativeRules,
    *,
    temperature: float | Tensor,
    symmetric: bool = False,
    teacher_scores: TeacherScores | None = None,
) -> Tensor:
    """Return the mean over queries of -log softmax of the positive's score / temperature.

    Args:
        scores_NM: of N queries and M documents. The first N documents are the positives, in the order of
            the queries; the other M - N are hard negatives.
        rules: which documents are no negatives.
        temperature: a tensor where it is trained.
        symmetric: add the loss of finding the query from its positive, among all queries.
        teacher_scores: a teacher's scores of each query's own documents; their loss is added to this one, or
            replaces it.
    """
    count = len(scores_NM)
    ignored_mask_NM = rules.ignored_mask(scores_NM)
    target_N = torch.arange(count, device=scores_NM.device)
    logits_NM = (scores_NM / temperature).masked_fill(ignored_mask_NM, -torch.inf)
    if teacher_scores is not None and teacher_scores.loss == "m3_kd_loss":
        loss = m3_kd_loss(scores_NM, teacher_scores.scores, ignored_mask_NM, temperature=temperature)
    else:
        loss = F.cross_entropy(logits_NM, target_N)
    if symmetric:
        loss = (loss + F.cross_entropy(logits_NM[:, :count].T, target_N)) / 2
    if teacher_scores is not None and teacher_scores.loss == "kl_div":
        divergence = teacher_kl_loss(scores_NM, teacher_scores.scores, temperature=temperature)
        loss = loss + teacher_scores.weight * divergence
    return loss
