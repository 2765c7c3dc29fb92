"""BGE-M3's unified loss with self-knowledge distillation (Chen et al. 2024, "M3-Embedding").

    s    = s_dense + 0.3 s_lex + s_mul                            the heads' scores together
    L    = (L(s_dense) + 0.1 L(s_lex) + L(s_mul) + L(s)) / 4      each InfoNCE
    L'   = (L'(s_dense) + 0.1 L'(s_lex) + L'(s_mul)) / 3          each -softmax(s/t) · log softmax(s_head/t)
    loss = (L + L') / 2                                           with s in L' held fixed: it is the teacher

The weights are those of the published code (FlagEmbedding 1.4.2); the paper prints sums without them. The
code is not followed where it has no in-batch negatives: its s is then not made of a query's own documents
(it fails when there are more queries than documents a query). Here s always has the heads' candidates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from embedline.config.model import HybridWeights
from embedline.models.head_scores import hybrid_scores
from embedline.training.objectives.distillation import TeacherScores
from embedline.training.objectives.infonce import contrastive_loss
from embedline.training.objectives.negatives import NegativeRules

WEIGHTS = {"dense": 1.0, "lexical": 0.1, "multi_vector": 1.0}


def unified_loss(
    dense_NM: Tensor,
    lexical_NM: Tensor | None,
    multi_NM: Tensor | None,
    rules: NegativeRules,
    *,
    temperature: float | Tensor,
    distill: bool,
    symmetric: bool = False,
    hybrid: HybridWeights | None = None,
    teacher_scores: TeacherScores | None = None,
) -> Tensor:
    """Return the joint loss of the heads' scores, and of what they learn from their sum.

    Args:
        dense_NM, lexical_NM, multi_NM: scores of N queries and M documents, laid out as for
            `contrastive_loss`; dense ones are cosines. None for a head that the model lacks: its terms are
            left out, and the means are over the others.
        rules: which documents are no negatives. The margin is applied to the dense scores alone; the
            resulting mask is used for all heads.
        distill: add L'; without it the loss is L.
        symmetric: find queries from documents too, in L.
        hybrid: the weights in s; BGE-M3's when None.
        teacher_scores: another teacher's scores: learnt with each InfoNCE, as in the code.
    """
    heads = {"dense": dense_NM, "lexical": lexical_NM, "multi_vector": multi_NM}
    scores = {name: scores_NM for name, scores_NM in heads.items() if scores_NM is not None}
    together_NM = hybrid_scores(scores, hybrid or HybridWeights())
    ignored_mask_NM = rules.ignored_mask(dense_NM)
    masked = NegativeRules(rules.query_index_M, ignored_mask_NM)

    def info_nce(scores_NM: Tensor) -> Tensor:
        return contrastive_loss(
            scores_NM,
            masked,
            temperature=temperature,
            symmetric=symmetric,
            teacher_scores=teacher_scores,
        )

    joint = sum((WEIGHTS[head] * info_nce(scores[head]) for head in scores), info_nce(together_NM))
    joint = joint / (len(scores) + 1)
    if not distill:
        return joint
    distilled = [
        WEIGHTS[head]
        * _self_distillation(scores[head] / temperature, together_NM / temperature, ignored_mask_NM)
        for head in scores
    ]
    return (joint + torch.stack(distilled).mean()) / 2


def _self_distillation(student_NM: Tensor, teacher_NM: Tensor, ignored_mask_NM: Tensor) -> Tensor:
    """Return the mean cross-entropy of the student's and the teacher's softmax over documents."""
    teacher_NM = teacher_NM.detach().masked_fill(ignored_mask_NM, -torch.inf).softmax(-1)
    student_NM = F.log_softmax(student_NM.masked_fill(ignored_mask_NM, -torch.inf), dim=-1)
    return -(teacher_NM * student_NM.masked_fill(ignored_mask_NM, 0.0)).sum(-1).mean()
