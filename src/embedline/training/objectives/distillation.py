"""Distillation from a teacher: from its vectors, or from its scores of documents for a query.

L = sum over the batch of  1 - cos(student, teacher)  and/or  KL(teacher's ranking || student's)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.models.heads import Encoded

# Low enough that a text's nearest neighbours dominate, high enough that more than one of them counts.
TEMPERATURE = 0.05


def cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Return 1 - cosine of each student vector and the teacher's vector of the same text (B,)."""
    return 1 - F.cosine_similarity(student_BD, teacher_BD, dim=-1)


def score_divergence(student_NM: Tensor, teacher_NM: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Return KL(p || q) = sum over j of p_j log(p_j / q_j), for each row of scores (N,).

    p and q are the softmax of the teacher's and the student's scores / temperature, so only differences
    between a row's scores matter (Hinton et al. 2015; for search: Hofstätter et al. 2021).
    """
    expected = F.log_softmax(teacher_NM / temperature, dim=-1)
    found = F.log_softmax(student_NM / temperature, dim=-1)
    return F.kl_div(found, expected, reduction="none", log_target=True).sum(-1)


class TeacherScores(NamedTuple):
    """A teacher's scores of each query's own documents, and the loss that learns them.

    Args:
        scores: N × M; -inf where a document is another query's, and everywhere for a query without scores.
        loss: "kl_div" adds `teacher_kl_loss` to InfoNCE, "m3_kd_loss" replaces InfoNCE by `m3_kd_loss`; named
            as in FlagEmbedding.
        weight: of `teacher_kl_loss`; InfoNCE weighs 1.
    """

    scores: Tensor
    loss: Literal["kl_div", "m3_kd_loss"] = "kl_div"
    weight: float = 1.0


def teacher_kl_loss(scores_NM: Tensor, teacher_NM: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Return -mean over i of sum over j of p_ij log q_ij                          (FlagEmbedding's kl_div).

    p_i is the softmax of the teacher's scores of the documents that belong to query i, q_i that of the
    student's scores / temperature of the same documents.

    Args:
        teacher_NM: as `TeacherScores.scores`. Queries without scores do not count; one query has some.
    """
    has_teacher_N = teacher_NM.isfinite().any(-1)
    teacher_NM, scores_NM = teacher_NM[has_teacher_N], scores_NM[has_teacher_N]
    foreign_NM = teacher_NM == -torch.inf
    student_NM = (scores_NM / temperature).masked_fill(foreign_NM, -torch.inf).log_softmax(-1)
    return -(teacher_NM.softmax(-1) * student_NM.masked_fill(foreign_NM, 0.0)).sum(-1).mean()


def m3_kd_loss(
    scores_NM: Tensor, teacher_NM: Tensor, ignored_mask_NM: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """Return InfoNCE with each of a query's own documents as the positive, one after the other.

    L = -mean over i of sum over k of p_ik log( exp(s_ik/t) / sum over j of exp(s_ij/t) )

    (FlagEmbedding's m3_kd_loss.) p_ik is the share of document k in the softmax of the teacher's scores. j
    leaves out the own documents before k, and the documents that InfoNCE ignores; never one that the teacher
    scored.

    Args:
        teacher_NM: as `TeacherScores.scores`. A query without scores has one positive, the document in its
            own column: that is InfoNCE.
    """
    no_scores_N1 = ~teacher_NM.isfinite().any(-1, keepdim=True)
    positive_NM = torch.eye(*teacher_NM.shape, dtype=torch.bool, device=teacher_NM.device)
    teacher_NM = teacher_NM.masked_fill(no_scores_N1 & positive_NM, 0.0)
    own_NM, share_NM = teacher_NM.isfinite(), teacher_NM.softmax(-1)
    number_NM = own_NM.cumsum(-1) * own_NM  # 1, 2, … at a query's own documents, 0 at others
    logits_NM = (scores_NM / temperature).masked_fill(ignored_mask_NM & ~own_NM, -torch.inf)
    loss_N = torch.zeros_like(logits_NM[:, 0])
    for k in range(1, int(number_NM.max()) + 1):
        # A query without a k-th one keeps all of its own: the softmax of an empty row is not a number.
        before_k_NM = own_NM & (number_NM < k) & (number_NM == k).any(-1, keepdim=True)
        log_shares_NM = logits_NM.masked_fill(before_k_NM, -torch.inf).log_softmax(-1)
        loss_N = loss_N - (share_NM * log_shares_NM.masked_fill(number_NM != k, 0.0)).sum(-1)
    return loss_N.mean()


def heads_distance(student: Encoded, teacher: Encoded, mask_BT: Tensor) -> Tensor:
    """Return the distance of the other heads' outputs of B texts to the teacher's (B,); 0 without such heads.

    The mean over tokens of the squared difference of lexical weights, and of 1 - cosine of token vectors.
    """
    distance_B = torch.zeros_like(student.dense[:, 0])
    if student.lexical is not None and teacher.lexical is not None:
        squares_BT = (student.lexical - teacher.lexical).square() * mask_BT
        distance_B = distance_B + squares_BT.sum(-1) / mask_BT.sum(-1)
    if student.tokens is not None and teacher.tokens is not None:
        has_vector_BT = teacher.tokens.abs().sum(-1) > 0
        distance_BT = (1 - (student.tokens * teacher.tokens).sum(-1)) * has_vector_BT
        distance_B = distance_B + distance_BT.sum(-1) / has_vector_BT.sum(-1).clamp(min=1)
    return distance_B


def distillation_loss(student_BD: Tensor, teacher_BD: Tensor, teacher_ND: Tensor) -> Tensor:
    """Return the loss of each of B texts (B,): its vector and its similarities differ from the teacher's.

    All vectors have length 1. The first term is the cosine distance to the teacher's vector. The second is
    the divergence of the student's similarities to the batch's N teacher vectors from the teacher's own (as
    in SEED, Fang et al. 2021): it weighs the errors that change which texts are near. Since the other side of
    each similarity is the teacher's, the loss of a batch is a sum over its texts, and chunks need no
    GradCache.
    """
    divergence = score_divergence(
        student_BD @ teacher_ND.T, teacher_BD @ teacher_ND.T, temperature=TEMPERATURE
    )
    return cosine_distance(student_BD, teacher_BD) + divergence
