"""Which retrieved texts become a query's hard negatives (positive-aware, NV-Retriever, Moreira et al.)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Negative:
    """One chosen negative: its place in the pool, its rank among all candidates (0 is best), both scores."""

    index: int
    rank: int
    score: float
    positive_score: float


@dataclass
class MiningCounts:
    """What became of the candidates looked at."""

    candidates: int = 0
    known_positive: int = 0
    above_margin: int = 0
    skipped_top: int = 0
    beyond_need: int = 0
    taken: int = 0

    def add(self, other: MiningCounts) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


def choose_negatives(
    scores: np.ndarray,
    indices: np.ndarray,
    *,
    positives: frozenset[int],
    positive_score: float,
    count: int,
    margin: float,
    skip_top: int = 0,
    draw: np.random.Generator | None = None,
) -> tuple[list[Negative], MiningCounts]:
    """Choose one query's negatives among its candidates, best first.

    A candidate is taken when it is no known positive, stands behind the first `skip_top` others, and scores
    below margin × the positive's score ("TopK-PercPos"; for a positive score of at most zero nothing
    qualifies, because such a positive says nothing about what is too similar).

    Args:
        scores, indices: the candidates (K), best first; indices into the pool.
        positive_score: the lowest cosine of the query to one of its positives.
        draw: takes a random sample of those that qualify instead of the hardest.
    """
    counts = MiningCounts(candidates=len(indices))
    bar = margin * positive_score
    fit: list[Negative] = []
    passed_over = 0
    for rank, (index, score) in enumerate(zip(indices.tolist(), scores.tolist(), strict=True)):
        if index in positives:
            counts.known_positive += 1
        elif passed_over < skip_top:
            passed_over += 1
            counts.skipped_top += 1
        elif not (positive_score > 0 and score < bar):  # nor when one of them is no number
            counts.above_margin += 1
        else:
            fit.append(Negative(index, rank, score, positive_score))
    taken = fit[:count]
    if draw is not None and len(fit) > count:
        taken = [fit[i] for i in sorted(draw.choice(len(fit), size=count, replace=False))]
    counts.taken, counts.beyond_need = len(taken), len(fit) - len(taken)
    return taken, counts


def pool_of(texts: Sequence[str]) -> dict[str, int]:
    """Distinct texts to their place in the pool, in order of first appearance."""
    pool: dict[str, int] = {}
    for text in texts:
        pool.setdefault(text, len(pool))
    return pool
