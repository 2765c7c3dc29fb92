"""Which rows train at which step: batches of one group, groups drawn by share, the same for a seed.

A group is a source, or the rows of a source that are of like length.
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
    """Share of batches a source: rows ** exponent × weight, normalised, none above `max_share`."""
    raw = {name: sizes[name] ** exponent * weights.get(name, 1.0) for name in sizes}
    total = sum(raw.values())
    shares = {name: value / total for name, value in raw.items()}
    limit = max(max_share, 1 / len(shares))
    while any(share > limit + 1e-9 for share in shares.values()):  # what is cut goes to the others
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
    """Weights with which `source_shares` gives each task type its share; its sources keep their proportions.

    Args:
        tasks: the task type of each source.

    Raises:
        InputError: a task type that has no share.
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
    """`steps` batches of up to `batch` rows, each from one source, no row twice in a pass over its source.

    A source gets its share of the steps, rounded up or down. One smaller than the batch gives smaller
    batches: its negatives are then all it has.

    Args:
        batch: of every source, or by source.
        within: what each source belongs to, the widest first; that gets its share, too, rounded once, however
            many sources it has.

    Raises:
        InputError: no source has as many rows as its batch.
    """
    batches = dict.fromkeys(sizes, batch) if isinstance(batch, int) else batch
    largest = max(sizes, key=lambda name: (sizes[name] / batches[name], sizes[name]))
    if sizes[largest] < batches[largest]:
        raise InputError(
            f"the largest source ({largest}) has {sizes[largest]} rows, one batch needs {batches[largest]}.",
            where="batch" if isinstance(batch, int) else "buckets",
            fix="Lower the stage's batch, or bring more data.",
        )
    names = sorted(name for name in sizes if sizes[name] >= min(2, batches[name]))
    counts = _divided(
        [(within or {}).get(name, ()) for name in names], [shares[name] for name in names], steps
    )
    picks = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(names)), counts))
    passes = [_Passes(name, sizes[name], batches[name], [seed, i]) for i, name in enumerate(names)]
    return Draws(passes, picks)


def apportioned(shares: Sequence[float], seats: int) -> np.ndarray:
    """Whole numbers that add up to `seats`, each its share of them rounded up or down (Hamilton's method)."""
    wanted = np.asarray(shares, dtype=np.float64) / sum(shares) * seats
    counts = np.floor(wanted).astype(np.int64)
    left = seats - int(counts.sum())
    counts[np.argsort(counts - wanted, kind="stable")[:left]] += 1
    return counts


def _divided(within: Sequence[tuple[str, ...]], shares: Sequence[float], seats: int) -> np.ndarray:
    """`apportioned` among the widest wholes, then of each one's seats among what is in it, and so on."""
    if not any(within):
        return apportioned(shares, seats)
    parts: dict[str | int, list[int]] = {}
    for place, wholes in enumerate(within):
        parts.setdefault(wholes[0] if wholes else place, []).append(place)
    counts = np.zeros(len(within), dtype=np.int64)
    wanted = [sum(shares[place] for place in places) for places in parts.values()]
    for places, own in zip(parts.values(), apportioned(wanted, seats), strict=True):
        counts[places] = _divided(
            [within[place][1:] for place in places], [shares[p] for p in places], int(own)
        )
    return counts


class Draws(Sequence[Draw]):
    """The batches of a training, drawn when they are asked for: held is one order of each source's rows.

    Args:
        picks: the source of each batch.
        order: which batch each step gets; as they are drawn when None.
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
        """The same batches, those of the steps `first` before all others."""
        leading = list(dict.fromkeys(first))
        return Draws(
            self.passes, self.picks, np.concatenate([self.order[leading], np.delete(self.order, leading)])
        )


class _Passes:
    """Passes over a source's rows, each in an order of its own; the last one asked for is remembered."""

    def __init__(self, name: str, size: int, batch: int, seed: Sequence[int]) -> None:
        self.name, self.size, self.batch, self.seed = name, size, min(batch, size), seed
        self.epoch = -1

    def draw(self, turn: int) -> Draw:
        """The source's batch number `turn`; a tail shorter than a batch waits for no one: it starts anew."""
        epoch, place = divmod(turn, self.size // self.batch)
        rows = self._order(epoch)[place * self.batch : (place + 1) * self.batch]
        return Draw(self.name, rows, epoch)

    def _order(self, epoch: int) -> np.ndarray:
        if epoch < self.epoch or self.epoch < 0:
            self.generator, self.epoch = np.random.default_rng(self.seed), -1
        while self.epoch < epoch:
            self.order = compact(self.generator.permutation(self.size), self.size)
            self.epoch += 1
        return self.order
