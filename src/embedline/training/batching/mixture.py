"""What the batches of a training are made of: looked at before the first step, told after the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedline.training.batching.batches import Draws
from embedline.training.batching.buckets import Group
from embedline.training.batching.rows import Columns


@dataclass(frozen=True)
class Share:
    """Of the batches (a batch of several sources counts for each by its rows): as asked for, and as drawn."""

    asked: float
    drawn: float


@dataclass(frozen=True)
class Mix:
    """The composition of a training.

    Args:
        records: that the stage has.
        groups: rows of each group that batches are drawn from, and its share.
        sources, task_types: their shares.
        heaviest: the steps whose batches need most memory: the most tokens, and the longest text.
    """

    records: int
    groups: dict[str, tuple[int, Share]]
    sources: dict[str, Share]
    task_types: dict[str, Share]
    heaviest: tuple[int, int]

    @property
    def error(self) -> float:
        """The largest difference between a share that was asked for and the one that was drawn."""
        shares = (*self.sources.values(), *self.task_types.values())
        return max(abs(share.asked - share.drawn) for share in shares)

    def metrics(self) -> dict[str, float]:
        """The shares that were drawn."""
        sources = {f"share.source.{name}": share.drawn for name, share in self.sources.items()}
        return sources | {f"share.task.{name}": share.drawn for name, share in self.task_types.items()}

    def words(self) -> str:
        """The shares in one line."""

        def told(shares: Mapping[str, Share]) -> str:
            return ", ".join(f"{n} {s.drawn:.1%} (asked {s.asked:.1%})" for n, s in shares.items())

        return f"shares of the batches: {told(self.sources)}; {told(self.task_types)}"


def mix_of(draws: Draws, groups: Mapping[str, Group], columns: Columns) -> Mix:
    """Look at all batches, one after another."""
    tokens, longest = (np.zeros(len(draws), dtype=np.int64) for _ in range(2))
    steps = dict.fromkeys(groups, 0)
    drawn_K = np.zeros(len(columns.kinds))
    for step, draw in enumerate(draws):
        numbers = groups[draw.source].source.numbers[draw.rows]
        tokens[step] = columns.tokens[numbers].sum()
        longest[step] = columns.longest[numbers].max()
        drawn_K += _kinds(columns, numbers)
        steps[draw.source] += 1
    asked = {name: group.share for name, group in groups.items() if name in draws.names}
    whole = sum(asked.values())
    asked_K = sum(
        (share / whole * _kinds(columns, groups[name].source.numbers) for name, share in asked.items()),
        np.zeros(len(columns.kinds)),
    )
    drawn_K /= len(draws)
    return Mix(
        records=len(columns.kind),
        groups={
            name: (len(group.source), Share(asked.get(name, 0.0) / whole, steps[name] / len(draws)))
            for name, group in groups.items()
        },
        sources=_shares([kind.source for kind in columns.kinds], asked_K, drawn_K),
        task_types=_shares([kind.task_type for kind in columns.kinds], asked_K, drawn_K),
        heaviest=(int(tokens.argmax()), int(longest.argmax())),
    )


def _kinds(columns: Columns, numbers: np.ndarray) -> np.ndarray:
    """The share of each kind among some rows (K)."""
    counts: np.ndarray = np.bincount(columns.kind[numbers], minlength=len(columns.kinds))
    return counts / len(numbers)


def _shares(names: list[str], asked_K: np.ndarray, drawn_K: np.ndarray) -> dict[str, Share]:
    found: dict[str, Share] = {}
    for name in sorted(set(names)):
        own = np.array([each == name for each in names])
        found[name] = Share(float(asked_K[own].sum()), float(drawn_K[own].sum()))
    return found
