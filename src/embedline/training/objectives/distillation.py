"""Learning from a teacher: from its vectors, or from its scores of documents for a query.

L = sum over the batch of  1 - cos(student, teacher)  and/or  KL(teacher's ranking || student's)
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.models.heads import Encoded

# Sharp enough that a text's nearest neighbours decide, soft enough that more than one of them does.
TEMPERATURE = 0.05


def cosine_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """1 - cosine of each student vector to the teacher's of the same text (B,)."""
    return 1 - F.cosine_similarity(student_BD, teacher_BD, dim=-1)


def score_divergence(student_NM: Tensor, teacher_NM: Tensor, *, temperature: float | Tensor) -> Tensor:
    """KL(p || q) = sum over j of p_j log(p_j / q_j), for each row of scores (N,).

    p and q are the softmax of the teacher's and the student's scores / temperature, so only differences
    between a row's scores matter (Hinton et al. 2015; for search: Hofstätter et al. 2021).
    """
    expected = F.log_softmax(teacher_NM / temperature, dim=-1)
    found = F.log_softmax(student_NM / temperature, dim=-1)
    return F.kl_div(found, expected, reduction="none", log_target=True).sum(-1)


class Told(NamedTuple):
    """What a teacher said of each query's own documents, and how that is learnt.

    Args:
        scores: N × M; -inf where a document is another query's, and everywhere for a query that the teacher
            said nothing about.
        loss: `told_divergence` beside InfoNCE, or `told_contrast` in its place; named as in FlagEmbedding.
        weight: of the divergence; InfoNCE weighs 1.
    """

    scores: Tensor
    loss: Literal["kl_div", "m3_kd_loss"] = "kl_div"
    weight: float = 1.0


def told_divergence(scores_NM: Tensor, told_NM: Tensor, *, temperature: float | Tensor) -> Tensor:
    """-mean over i of sum over j of p_ij log q_ij                                 (FlagEmbedding's kl_div)

    p_i is the softmax of what a teacher said of the documents that belong to query i, q_i that of the
    student's scores / temperature of the same ones.

    Args:
        told_NM: as `Told.scores`. A query that the teacher said nothing about does not count; one at least
            counts.
    """
    asked_N = told_NM.isfinite().any(-1)
    told_NM, scores_NM = told_NM[asked_N], scores_NM[asked_N]
    foreign_NM = told_NM == -torch.inf
    found_NM = (scores_NM / temperature).masked_fill(foreign_NM, -torch.inf).log_softmax(-1)
    return -(told_NM.softmax(-1) * found_NM.masked_fill(foreign_NM, 0.0)).sum(-1).mean()


def told_contrast(
    scores_NM: Tensor, told_NM: Tensor, left_out_NM: Tensor, *, temperature: float | Tensor
) -> Tensor:
    """-mean over i of sum over k of p_ik log( exp(s_ik/t) / sum over j of exp(s_ij/t) )  (theirs: m3_kd_loss)

    InfoNCE in which each of a query's own documents is an answer, k one after the other, and weighs by its
    share p_i of what the teacher said (softmax). j leaves out those that were asked for before, and what is
    left out in InfoNCE; never a document that the teacher spoke of.

    Args:
        told_NM: as `Told.scores`. A query that the teacher said nothing about has one answer, the document
            in its own column: that is InfoNCE.
    """
    unknown_N1 = ~told_NM.isfinite().any(-1, keepdim=True)
    positive_NM = torch.eye(*told_NM.shape, dtype=torch.bool, device=told_NM.device)
    told_NM = told_NM.masked_fill(unknown_N1 & positive_NM, 0.0)
    own_NM, share_NM = told_NM.isfinite(), told_NM.softmax(-1)
    place_NM = own_NM.cumsum(-1) * own_NM  # 1, 2, … at a query's own documents, 0 at others
    logits_NM = (scores_NM / temperature).masked_fill(left_out_NM & ~own_NM, -torch.inf)
    loss_N = torch.zeros_like(logits_NM[:, 0])
    for k in range(1, int(place_NM.max()) + 1):
        # A query without a k-th one keeps all of its own: the softmax of nothing is not a number.
        asked_before_NM = own_NM & (place_NM < k) & (place_NM == k).any(-1, keepdim=True)
        found_NM = logits_NM.masked_fill(asked_before_NM, -torch.inf).log_softmax(-1)
        loss_N = loss_N - (share_NM * found_NM.masked_fill(place_NM != k, 0.0)).sum(-1)
    return loss_N.mean()


def heads_distance(student: Encoded, teacher: Encoded, mask_BT: Tensor) -> Tensor:
    """How far the other heads of B texts are from the teacher's (B,); 0 where it has none.

    The mean over tokens of the squared difference of lexical weights, and of 1 - cosine of token vectors.
    """
    distance_B = torch.zeros_like(student.dense[:, 0])
    if student.lexical is not None and teacher.lexical is not None:
        squares_BT = (student.lexical - teacher.lexical).square() * mask_BT
        distance_B = distance_B + squares_BT.sum(-1) / mask_BT.sum(-1)
    if student.tokens is not None and teacher.tokens is not None:
        told_BT = teacher.tokens.abs().sum(-1) > 0
        apart_BT = (1 - (student.tokens * teacher.tokens).sum(-1)) * told_BT
        distance_B = distance_B + apart_BT.sum(-1) / told_BT.sum(-1).clamp(min=1)
    return distance_B


def distillation_loss(student_BD: Tensor, teacher_BD: Tensor, teacher_ND: Tensor) -> Tensor:
    """The loss of each of B texts (B,): be the teacher's vector, and see the batch as the teacher sees it.

    All vectors have length 1. The second term is the divergence of the student's similarities to the
    batch's N teacher vectors from the teacher's own (as in SEED, Fang et al. 2021): it weighs the errors
    that change which texts are near. Since the other side of each similarity is the teacher's, the loss of
    a batch is a sum over its texts, and chunks need no GradCache.
    """
    divergence = score_divergence(
        student_BD @ teacher_ND.T, teacher_BD @ teacher_ND.T, temperature=TEMPERATURE
    )
    return cosine_distance(student_BD, teacher_BD) + divergence
