"""Choice of a query's hard negatives among retrieved texts (NV-Retriever, Moreira et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class Negative:
    """One chosen negative: its index in the pool, its rank among all candidates (0 is best), both scores."""

    index: int
    rank: int
    score: float
    positive_score: float


@dataclass(frozen=True)
class MiningRules:
    """The rules that choose a query's negatives.

    Args:
        count: negatives a query, at most.
        margin: a negative scores below margin × the score of the positive.
        skip_top: best candidates, apart from known positives, that are left out as likely positives.
    """

    count: int
    margin: float
    skip_top: int = 0


@dataclass
class MiningCounts:
    """Counts of the candidates by outcome."""

    candidates: int = 0
    known_positive: int = 0
    above_margin: int = 0
    skipped_top: int = 0
    beyond_need: int = 0
    taken: int = 0

    def add(self, other: MiningCounts) -> None:
        """Add the counts of another query or source."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTS = tuple(field.name for field in fields(MiningCounts))


def choose_negatives(
    scores: np.ndarray,
    indices: np.ndarray,
    rules: MiningRules,
    *,
    positives: frozenset[int],
    positive_score: float,
    draw: np.random.Generator | None = None,
) -> tuple[list[Negative], MiningCounts]:
    """Choose one query's negatives among its candidates, best first.

    A candidate qualifies when it is no known positive, comes after the first `skip_top` others, and scores
    below margin × the positive's score ("TopK-PercPos"). Where the positive's score is zero or less, nothing
    qualifies, because then the score is no measure of what is too similar.

    Args:
        scores, indices: the candidates (K), best first; indices into the pool.
        positives: indices of the known positives.
        positive_score: the lowest cosine of the query to one of its positives.
        draw: selects a random sample of those that qualify instead of the hardest.

    >>> rules = MiningRules(count=1, margin=0.95)
    >>> scores, indices = np.array([0.9, 0.8, 0.5]), np.array([7, 4, 2])
    >>> choose_negatives(scores, indices, rules, positives=frozenset({7}), positive_score=0.9)[0]
    [Negative(index=4, rank=1, score=0.8, positive_score=0.9)]
    """
    counts = MiningCounts(candidates=len(indices))
    limit = rules.margin * positive_score
    qualified: list[Negative] = []
    skipped = 0
    for rank, (index, score) in enumerate(zip(indices.tolist(), scores.tolist(), strict=True)):
        if index in positives:
            counts.known_positive += 1
        elif skipped < rules.skip_top:
            skipped += 1
            counts.skipped_top += 1
        elif not (positive_score > 0 and score < limit):  # also when one of them is NaN
            counts.above_margin += 1
        else:
            qualified.append(Negative(index, rank, score, positive_score))
    taken = qualified[: rules.count]
    if draw is not None and len(qualified) > rules.count:
        drawn = draw.choice(len(qualified), size=rules.count, replace=False)
        taken = [qualified[i] for i in sorted(drawn)]
    counts.taken, counts.beyond_need = len(taken), len(qualified) - len(taken)
    return taken, counts


def pool_of(texts: Sequence[str]) -> dict[str, int]:
    """Map distinct texts to their index in the pool, in order of first appearance."""
    pool: dict[str, int] = {}
    for text in texts:
        pool.setdefault(text, len(pool))
    return pool
