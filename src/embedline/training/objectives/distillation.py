"""Learning from a teacher: from its vectors, or from its scores of documents for a query."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

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


def margin_mse(student_NM: Tensor, teacher_NM: Tensor) -> Tensor:
    """Mean over queries and negatives of ((s_0 - s_j) - (t_0 - t_j))² (Hofstätter et al. 2020).

    Args:
        student_NM, teacher_NM: scores of each query's own M documents: column 0 its positive, then its
            negatives. The teacher's may be higher or lower as a whole, but must be in the student's units.
    """
    student = student_NM[:, :1] - student_NM[:, 1:]
    teacher = teacher_NM[:, :1] - teacher_NM[:, 1:]
    return F.mse_loss(student, teacher)


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
