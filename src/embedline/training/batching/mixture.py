"""The composition of a training's batches by source and task type, known before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embedline.training.batching.batches import Draws
from embedline.training.batching.buckets import Group
from embedline.training.batching.rows import Columns


@dataclass(frozen=True)
class Share:
    """A share of the batches, as requested and as drawn; a batch of several sources counts by its rows."""

    requested: float
    drawn: float


@dataclass(frozen=True)
class Mixture:
    """The composition of a training's batches.

    Args:
        records: number of the stage's records.
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
        """The largest difference between a requested share and the drawn one."""
        shares = (*self.sources.values(), *self.task_types.values())
        return max(abs(share.requested - share.drawn) for share in shares)

    def metrics(self) -> dict[str, float]:
        """Return the drawn shares as metrics."""
        sources = {f"share.source.{name}": share.drawn for name, share in self.sources.items()}
        return sources | {f"share.task.{name}": share.drawn for name, share in self.task_types.items()}

    def summary(self) -> str:
        """Return the shares in one line."""

        def listed(shares: Mapping[str, Share]) -> str:
            return ", ".join(f"{n} {s.drawn:.1%} (requested {s.requested:.1%})" for n, s in shares.items())

        return f"shares of the batches: {listed(self.sources)}; {listed(self.task_types)}"


def mixture_of(draws: Draws, groups: Mapping[str, Group], columns: Columns) -> Mixture:
    """Measure the composition of all batches, one after another."""
    tokens, longest = (np.zeros(len(draws), dtype=np.int64) for _ in range(2))
    steps = dict.fromkeys(groups, 0)
    drawn_K = np.zeros(len(columns.row_groups))
    for step, draw in enumerate(draws):
        numbers = groups[draw.source].source.numbers[draw.rows]
        tokens[step] = columns.tokens[numbers].sum()
        longest[step] = columns.longest[numbers].max()
        drawn_K += _row_group_shares(columns, numbers)
        steps[draw.source] += 1
    requested = {name: group.share for name, group in groups.items() if name in draws.names}
    total = sum(requested.values())
    requested_K = sum(
        (
            share / total * _row_group_shares(columns, groups[name].source.numbers)
            for name, share in requested.items()
        ),
        np.zeros(len(columns.row_groups)),
    )
    drawn_K /= len(draws)
    sources = [row_group.source for row_group in columns.row_groups]
    task_types = [row_group.task_type for row_group in columns.row_groups]
    return Mixture(
        records=len(columns.row_group),
        groups={
            name: (len(group.source), Share(requested.get(name, 0.0) / total, steps[name] / len(draws)))
            for name, group in groups.items()
        },
        sources=_summed_shares(sources, requested_K, drawn_K),
        task_types=_summed_shares(task_types, requested_K, drawn_K),
        heaviest=(int(tokens.argmax()), int(longest.argmax())),
    )


def _row_group_shares(columns: Columns, numbers: np.ndarray) -> np.ndarray:
    """Return the share of each group of rows among some rows (K)."""
    counts: np.ndarray = np.bincount(columns.row_group[numbers], minlength=len(columns.row_groups))
    return counts / len(numbers)


def _summed_shares(names: list[str], requested_K: np.ndarray, drawn_K: np.ndarray) -> dict[str, Share]:
    """Sum the shares of the groups of rows of each name."""
    shares: dict[str, Share] = {}
    for name in sorted(set(names)):
        own = np.array([each == name for each in names])
        shares[name] = Share(float(requested_K[own].sum()), float(drawn_K[own].sum()))
    return shares
