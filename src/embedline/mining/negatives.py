"""Choice of a query's hard negatives among retrieved texts (NV-Retriever, Moreira et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import count
from typing import NamedTuple, TypeVar

import numpy as np

Strategy = TypeVar("Strategy", bound=str)


class Candidates(NamedTuple):
    """The texts that a strategy found for a query, best first: scores by the model, indices into the pool."""

    scores: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class Negative:
    """One chosen negative: its index in the pool, both scores by the model, and where it comes from.

    Args:
        rank: among all candidates of the strategy that found it; 0 is best.
        strategy: that found it.
    """

    index: int
    rank: int
    score: float
    positive_score: float
    strategy: str = "model"


@dataclass(frozen=True)
class MiningRules:
    """The rules that choose a query's negatives.

    Args:
        count: negatives a query, at most.
        margin: a negative scores below margin × the score of the positive.
        skip_top: best candidates of each strategy, apart from known positives, that are left out as likely
            positives; no other strategy brings them back.
    """

    count: int
    margin: float
    skip_top: int = 0


@dataclass
class MiningCounts:
    """Counts of a strategy's candidates by outcome; `repeated` ones were taken from another strategy."""

    candidates: int = 0
    known_positive: int = 0
    above_margin: int = 0
    skipped_top: int = 0
    repeated: int = 0
    beyond_need: int = 0
    taken: int = 0

    def add(self, other: MiningCounts) -> None:
        """Add the counts of another query or source."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


COUNTS = tuple(field.name for field in fields(MiningCounts))


def deal(shares: Mapping[Strategy, float]) -> Iterator[Strategy]:
    """Yield strategies without end, so that each has its share of the first n for every n, as near as can be.

    >>> dealt = deal({"model": 3.0, "bm25": 1.0})
    >>> [next(dealt) for _ in range(8)]
    ['model', 'model', 'bm25', 'model', 'model', 'model', 'bm25', 'model']
    """
    whole, dealt = sum(shares.values()), dict.fromkeys(shares, 0)
    for length in count(1):
        name = max(shares, key=lambda each: shares[each] / whole * length - dealt[each])
        dealt[name] += 1
        yield name


def choose_negatives(
    candidates: Mapping[str, Candidates],
    rules: MiningRules,
    *,
    positives: frozenset[int],
    positive_score: float,
    turns: Sequence[str] = (),
    draw: np.random.Generator | None = None,
) -> tuple[list[Negative], dict[str, MiningCounts]]:
    """Choose one query's negatives among its candidates: of each strategy the best ones, turn by turn.

    A candidate qualifies when it is no known positive, comes after the first `skip_top` others of every
    strategy, and scores below margin × the positive's score ("TopK-PercPos"). Where the positive's score is
    zero or less, nothing qualifies, because then the score is no measure of what is too similar. A strategy
    without a candidate that is left leaves its turn to the others.

    Args:
        candidates: by strategy.
        positives: indices of the known positives.
        positive_score: the lowest cosine of the query to one of its positives.
        turns: the strategy of each negative, `rules.count` of them; the first strategy when empty.
        draw: selects a random sample of those that qualify instead of the hardest.

    Returns:
        The negatives in the order of the turns, and the counts of each strategy.

    >>> rules = MiningRules(count=1, margin=0.95)
    >>> found = {"model": Candidates(np.array([0.9, 0.8, 0.5]), np.array([7, 4, 2]))}
    >>> choose_negatives(found, rules, positives=frozenset({7}), positive_score=0.9)[0]
    [Negative(index=4, rank=1, score=0.8, positive_score=0.9, strategy='model')]
    """
    skipped = {
        name: [i for i in found.indices.tolist() if i not in positives][: rules.skip_top]
        for name, found in candidates.items()
    }
    excluded = frozenset().union(*skipped.values())
    qualified: dict[str, list[Negative]] = {}
    counts: dict[str, MiningCounts] = {}
    for name, found in candidates.items():
        qualified[name], counts[name] = _qualify(name, found, rules, positives, excluded, positive_score)
    offered = {name: _offered(each, rules.count, draw) for name, each in qualified.items()}
    taken = _take_turns(offered, turns or [next(iter(candidates))] * rules.count)
    indices = {pick.index for pick in taken}
    for name, each in counts.items():
        each.taken = sum(pick.strategy == name for pick in taken)
        each.repeated = sum(pick.index in indices for pick in qualified[name]) - each.taken
        each.beyond_need = len(qualified[name]) - each.taken - each.repeated
    return taken, counts


def _qualify(
    strategy: str,
    found: Candidates,
    rules: MiningRules,
    positives: frozenset[int],
    skipped: frozenset[int],
    positive_score: float,
) -> tuple[list[Negative], MiningCounts]:
    counts, limit = MiningCounts(candidates=len(found.indices)), rules.margin * positive_score
    qualified: list[Negative] = []
    for rank, (index, score) in enumerate(zip(found.indices.tolist(), found.scores.tolist(), strict=True)):
        if index in positives:
            counts.known_positive += 1
        elif index in skipped:
            counts.skipped_top += 1
        elif not (positive_score > 0 and score < limit):  # also when one of them is NaN
            counts.above_margin += 1
        else:
            qualified.append(Negative(index, rank, score, positive_score, strategy))
    return qualified, counts


def _offered(qualified: list[Negative], most: int, draw: np.random.Generator | None) -> list[Negative]:
    """Return a strategy's negatives in the order in which they are taken: the best first, or as drawn."""
    if draw is None or len(qualified) <= most:
        return qualified
    return [qualified[i] for i in draw.choice(len(qualified), size=most, replace=False)]


def _take_turns(offered: Mapping[str, list[Negative]], turns: Sequence[str]) -> list[Negative]:
    queues, taken = {name: iter(each) for name, each in offered.items()}, dict[int, Negative]()
    for turn in turns:
        others = (pick for name in (turn, *queues) for pick in queues[name] if pick.index not in taken)
        if (pick := next(others, None)) is None:
            break
        taken[pick.index] = pick
    best_first = {
        name: iter(sorted((p for p in taken.values() if p.strategy == name), key=lambda p: p.rank))
        for name in offered
    }
    return [next(best_first[pick.strategy]) for pick in taken.values()]


def pool_of(texts: Sequence[str]) -> dict[str, int]:
    """Map distinct texts to their index in the pool, in order of first appearance."""
    pool: dict[str, int] = {}
    for text in texts:
        pool.setdefault(text, len(pool))
    return pool
