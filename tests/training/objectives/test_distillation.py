"""Distillation losses against sentence-transformers' and against slow formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss
from torch import nn

from embedline.models.heads import Encoded
from embedline.training.objectives.distillation import (
    TEMPERATURE,
    TeacherScores,
    cosine_distance,
    distillation_loss,
    heads_distance,
    score_divergence,
)
from embedline.training.objectives.infonce import contrastive_loss
from embedline.training.objectives.negatives import NegativeRules


@pytest.fixture
def scored() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Vectors of queries, positives and two columns of negatives; the student's and a teacher's scores."""
    torch.manual_seed(0)
    columns = [torch.randn(5, 8, requires_grad=True) for _ in range(4)]
    student = torch.stack([(columns[0] * other).sum(-1) for other in columns[1:]], dim=1)
    return columns, student, torch.randn(5, 3)


def test_divergence_equals_sentence_transformers(scored) -> None:
    """Theirs is multiplied by the square of the temperature."""
    columns, student, teacher = scored
    peer = DistillKLDivLoss(
        SentenceTransformer(modules=[nn.Identity()]), student_temperature=2.0, teacher_temperature=2.0
    )
    theirs = peer.compute_loss_from_embeddings(columns, teacher)
    ours = score_divergence(student, teacher, temperature=2.0).mean() * 4
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(
        torch.autograd.grad(ours, columns), torch.autograd.grad(theirs, columns), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_divergence_depends_on_differences_of_scores_only() -> None:
    student, teacher = torch.randn(2, 4, 6)
    ours = score_divergence(student, teacher, temperature=0.5)
    torch.testing.assert_close(ours, score_divergence(student + 3, teacher - 2, temperature=0.5))
    torch.testing.assert_close(score_divergence(teacher, teacher, temperature=0.5), torch.zeros(4))


def test_cosine_distance_depends_on_directions_only() -> None:
    student, teacher = torch.randn(2, 4, 6)
    torch.testing.assert_close(cosine_distance(student, teacher), cosine_distance(2 * student, 5 * teacher))
    torch.testing.assert_close(cosine_distance(student, -student), torch.full((4,), 2.0))


def test_the_loss_is_the_slow_formula_and_zero_only_at_the_teacher() -> None:
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(2, 7, 5))
    student /= np.linalg.norm(student, axis=1, keepdims=True)
    teacher /= np.linalg.norm(teacher, axis=1, keepdims=True)
    expected = []
    for s, t in zip(student, teacher, strict=True):
        p, q = (np.exp([v @ other / TEMPERATURE for other in teacher]) for v in (t, s))
        p, q = p / p.sum(), q / q.sum()
        expected.append(1 - s @ t + sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)))
    s, t = torch.from_numpy(student), torch.from_numpy(teacher)
    np.testing.assert_allclose(distillation_loss(s, t, t).numpy(), expected, rtol=1e-9)
    np.testing.assert_allclose(distillation_loss(t, t, t).numpy(), 0, atol=1e-12)
    assert (distillation_loss(s, t, t) > 0).all()


def test_heads_are_compared_token_by_token() -> None:
    """By loops over real tokens; tokens without a vector of the teacher do not count."""
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])

    def encoded() -> Encoded:
        tokens = torch.nn.functional.normalize(torch.randn(2, 4, 3), dim=-1) * mask.unsqueeze(-1)
        tokens[:, 0] = 0
        return Encoded(torch.randn(2, 5), torch.rand(2, 4) * mask, tokens)

    student, teacher = encoded(), encoded()
    found = heads_distance(student, teacher, mask)
    for row, length in enumerate((3, 2)):
        squares = [float((student.lexical[row, t] - teacher.lexical[row, t]) ** 2) for t in range(length)]
        cosine_distances = [
            1 - float(student.tokens[row, t] @ teacher.tokens[row, t]) for t in range(1, length)
        ]
        assert float(found[row]) == pytest.approx(np.mean(squares) + np.mean(cosine_distances), rel=1e-5)
    assert heads_distance(Encoded(student.dense), teacher, mask).tolist() == [0, 0]


@pytest.mark.parametrize("in_batch", [False, True], ids=["own negatives", "in batch"])
def test_graded_positives_equal_the_slow_formula_and_infonce_without_scores(in_batch: bool) -> None:
    """By loops, in float64: queries with scores of three documents, of two, and of none."""
    torch.manual_seed(0)
    owner = [0, 1, 2, 0, 0, 1, 2]
    graded: dict[int, list[float]] = {0: [2.0, -1.0, 0.5], 1: [0.0, 3.0]}
    scores, given = torch.rand(3, 7, dtype=torch.float64).requires_grad_(), torch.full((3, 7), -torch.inf)
    for row, values in graded.items():
        given[row, torch.tensor(owner) == row] = torch.tensor(values)
    same = torch.zeros(3, 7, dtype=torch.bool)
    same[0, 1] = True  # another query's document that is a positive of this one, too
    same[1, 5] = True  # its own: the teacher's score of it counts
    loss = contrastive_loss(
        scores,
        NegativeRules(torch.tensor(owner), same, in_batch_negatives=in_batch),
        temperature=0.5,
        teacher_scores=TeacherScores(given.double(), "m3_kd_loss"),
    )
    expected, values_of = 0.0, scores.detach().numpy()
    for row in range(3):
        own = [column for column in range(7) if owner[column] == row]
        shares = np.exp(graded.get(row, [0.0]))
        counted = [c for c in range(7) if (in_batch or c in own) and not (same[row, c] and c not in own)]
        for k, share in enumerate(shares / shares.sum()):
            among = [values_of[row, c] / 0.5 for c in counted if c not in own[:k]]
            expected -= share * (values_of[row, own[k]] / 0.5 - np.log(np.sum(np.exp(among)))) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    (gradient,) = torch.autograd.grad(loss, scores)
    assert gradient.isfinite().all()
