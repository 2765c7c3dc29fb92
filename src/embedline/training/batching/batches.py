"""The rows of each step: batches of one group, groups drawn by their shares, the same for a seed.

A group is a source, or the rows of a source that are of similar length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedline.errors import InputError
from embedline.training.batching.rows import compact


@dataclass(frozen=True)
class Draw:
    """The rows of one batch, all from `source`, in that source's pass number `epoch`."""

    source: str
    rows: np.ndarray
    epoch: int


def source_shares(
    sizes: Mapping[str, int], weights: Mapping[str, float], *, exponent: float, max_share: float
) -> dict[str, float]:
    """Return the share of batches by source: rows ** exponent × weight, normalised, at most `max_share`."""
    raw = {name: sizes[name] ** exponent * weights.get(name, 1.0) for name in sizes}
    total = sum(raw.values())
    shares = {name: value / total for name, value in raw.items()}
    limit = max(max_share, 1 / len(shares))
    while any(share > limit + 1e-9 for share in shares.values()):  # the excess goes to the other sources
        over = {name for name, share in shares.items() if share >= limit}
        rest = sum(share for name, share in shares.items() if name not in over)
        room = 1 - limit * len(over)
        shares = {n: limit if n in over else s * room / rest for n, s in shares.items()}
    return shares


def weights_by_task(
    sizes: Mapping[str, int],
    weights: Mapping[str, float],
    tasks: Mapping[str, str],
    task_shares: Mapping[Any, float],
    *,
    exponent: float,
) -> dict[str, float]:
    """Return weights with which `source_shares` gives each task type its share.

    The sources of a task type keep their proportions.

    Args:
        tasks: the task type of each source.

    Raises:
        InputError: a task type has no share.
    """
    if missing := sorted(set(tasks.values()) - set(task_shares)):
        raise InputError(
            f"there are records of task type {missing[0]}, which has no share.",
            where="task_shares",
            fix="Give it one, or leave its sources out of the stage.",
        )
    whole: dict[str, float] = {}
    for name, task in tasks.items():
        whole[task] = whole.get(task, 0.0) + sizes[name] ** exponent * weights[name]
    return {name: weights[name] * task_shares[task] / whole[task] for name, task in tasks.items()}


def draw_batches(
    sizes: Mapping[str, int],
    shares: Mapping[str, float],
    *,
    batch: int | Mapping[str, int],
    steps: int,
    seed: int,
    within: Mapping[str, tuple[str, ...]] | None = None,
) -> Draws:
    """Draw `steps` batches of up to `batch` rows, each from one source, no row twice in a pass over it.

    A source gets its share of the steps, rounded up or down. The batches of a source smaller than the batch
    size are all its rows.

    Args:
        batch: rows of a batch, for all sources or by source.
        within: the wholes that each source is a part of (a task type), the widest first; the share of a whole
            is rounded once, whatever the number of its sources.

    Raises:
        InputError: no source has as many rows as its batch.
    """
    batches = dict.fromkeys(sizes, batch) if isinstance(batch, int) else batch
    largest = max(sizes, key=lambda name: (sizes[name] / batches[name], sizes[name]))
    if sizes[largest] < batches[largest]:
        raise InputError(
            f"the largest source ({largest}) has {sizes[largest]} rows, one batch needs {batches[largest]}.",
            where="batch" if isinstance(batch, int) else "buckets",
            fix="Lower the stage's batch, or add data.",
        )
    names = sorted(name for name in sizes if sizes[name] >= min(2, batches[name]))
    counts = _divided(
        [(within or {}).get(name, ()) for name in names], [shares[name] for name in names], steps
    )
    picks = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(names)), counts))
    passes = [_Passes(name, sizes[name], batches[name], [seed, i]) for i, name in enumerate(names)]
    return Draws(passes, picks)


def apportioned(shares: Sequence[float], seats: int) -> np.ndarray:
    """Divide `seats` by shares into whole numbers, each rounded up or down (Hamilton's method)."""
    exact = np.asarray(shares, dtype=np.float64) / sum(shares) * seats
    counts = np.floor(exact).astype(np.int64)
    left = seats - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:left]] += 1
    return counts


def _divided(within: Sequence[tuple[str, ...]], shares: Sequence[float], seats: int) -> np.ndarray:
    """Apply `apportioned` to the widest wholes, then to the parts of each whole, and so on."""
    if not any(within):
        return apportioned(shares, seats)
    parts: dict[str | int, list[int]] = {}
    for index, wholes in enumerate(within):
        parts.setdefault(wholes[0] if wholes else index, []).append(index)
    counts = np.zeros(len(within), dtype=np.int64)
    part_shares = [sum(shares[i] for i in indices) for indices in parts.values()]
    for indices, own in zip(parts.values(), apportioned(part_shares, seats), strict=True):
        counts[indices] = _divided([within[i][1:] for i in indices], [shares[i] for i in indices], int(own))
    return counts


class Draws(Sequence[Draw]):
    """The batches of a training, drawn when accessed: one order of each source's rows is in memory.

    Args:
        picks: the number of the source of each batch.
        order: the batch of each step; as they are drawn when None.
    """

    def __init__(self, passes: list[_Passes], picks: np.ndarray, order: np.ndarray | None = None) -> None:
        self.passes, self.picks = passes, picks
        self.order = np.arange(len(picks)) if order is None else order
        self.turns = np.zeros_like(picks)  # how many batches of the same source were drawn before
        for source in range(len(passes)):
            own = np.flatnonzero(picks == source)
            self.turns[own] = np.arange(len(own))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Any) -> Any:
        batch = self.order[index]
        return self.passes[self.picks[batch]].draw(int(self.turns[batch]))

    @property
    def names(self) -> list[str]:
        """The sources that batches can be drawn from."""
        return [passes.name for passes in self.passes]

    def led_by(self, first: Sequence[int]) -> Draws:
        """Return the same batches, those of the steps `first` before all others."""
        leading = list(dict.fromkeys(first))
        return Draws(
            self.passes, self.picks, np.concatenate([self.order[leading], np.delete(self.order, leading)])
        )


class _Passes:
    """The passes over a source's rows, each in its own order; the order used last is kept."""

    def __init__(self, name: str, size: int, batch: int, seed: Sequence[int]) -> None:
        self.name, self.size, self.batch, self.seed = name, size, min(batch, size), seed
        self.epoch = -1

    def draw(self, turn: int) -> Draw:
        """Draw the source's batch number `turn`; rows left over at the end of a pass are dropped."""
        epoch, number = divmod(turn, self.size // self.batch)
        rows = self._order(epoch)[number * self.batch : (number + 1) * self.batch]
        return Draw(self.name, rows, epoch)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch < self.epoch or self.epoch < 0:
            self.generator, self.epoch = np.random.default_rng(self.seed), -1
        while self.epoch < epoch:
            self.order = compact(self.generator.permutation(self.size), self.size)
            self.epoch += 1
        return self.order
