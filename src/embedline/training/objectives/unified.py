"""BGE-M3's unified loss with self-knowledge distillation (Chen et al. 2024, "M3-Embedding").

    s    = s_dense + 0.3 s_lex + s_mul                            what the heads say together
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
from embedline.training.objectives.distillation import Told
from embedline.training.objectives.infonce import contrastive_loss, left_out

WEIGHTS = {"dense": 1.0, "lexical": 0.1, "multi_vector": 1.0}


def unified_loss(
    dense_NM: Tensor,
    lexical_NM: Tensor | None,
    multi_NM: Tensor | None,
    *,
    owner_M: Tensor,
    same_NM: Tensor,
    temperature: float | Tensor,
    distill: bool,
    symmetric: bool = False,
    in_batch_negatives: bool = True,
    false_negative_margin: float | None = None,
    hybrid: HybridWeights | None = None,
    told: Told | None = None,
) -> Tensor:
    """The joint loss of the heads' scores, and what they learn from their sum.

    Args:
        dense_NM, lexical_NM, multi_NM: scores of N queries and M documents, laid out as for
            `contrastive_loss`; dense ones are cosines. None for a head that the model lacks: its terms are
            left out, and the means are over the others.
        owner_M, same_NM, in_batch_negatives, false_negative_margin: as in `infonce.left_out`. A document is
            an answer or it is not, whichever head looks at it: what the dense scores leave out by the
            margin, all heads leave out.
        distill: add L'; without it the loss is L.
        symmetric: find queries from documents too, in L.
        hybrid: the weights in s; BGE-M3's when None.
        told: what another teacher said: learnt with each InfoNCE, as in the code.
    """
    heads = {"dense": dense_NM, "lexical": lexical_NM, "multi_vector": multi_NM}
    scores = {name: scores_NM for name, scores_NM in heads.items() if scores_NM is not None}
    together_NM = hybrid_scores(scores, hybrid or HybridWeights())
    left_out_NM = left_out(
        dense_NM,
        owner_M=owner_M,
        same_NM=same_NM,
        in_batch_negatives=in_batch_negatives,
        false_negative_margin=false_negative_margin,
    )

    def found(scores_NM: Tensor) -> Tensor:
        return contrastive_loss(
            scores_NM,
            owner_M=owner_M,
            same_NM=left_out_NM,
            temperature=temperature,
            symmetric=symmetric,
            told=told,
        )

    joint = sum((WEIGHTS[head] * found(scores[head]) for head in scores), found(together_NM))
    joint = joint / (len(scores) + 1)
    if not distill:
        return joint
    lessons = [
        WEIGHTS[head] * _lesson(scores[head] / temperature, together_NM / temperature, left_out_NM)
        for head in scores
    ]
    return (joint + torch.stack(lessons).mean()) / 2


def _lesson(student_NM: Tensor, teacher_NM: Tensor, left_out_NM: Tensor) -> Tensor:
    """Cross-entropy of the student's distribution over documents and the teacher's, mean over queries."""
    expected_NM = teacher_NM.detach().masked_fill(left_out_NM, -torch.inf).softmax(-1)
    found_NM = F.log_softmax(student_NM.masked_fill(left_out_NM, -torch.inf), dim=-1)
    return -(expected_NM * found_NM.masked_fill(left_out_NM, 0.0)).sum(-1).mean()
