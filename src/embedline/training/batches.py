"""Which rows train at which step: batches of one group, groups drawn by share, the same for a seed.

A group is a source, or the rows of a source that are of like length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embedline.errors import InputError


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


def draw_batches(
    sizes: Mapping[str, int],
    shares: Mapping[str, float],
    *,
    batch: int | Mapping[str, int],
    steps: int,
    seed: int,
) -> list[Draw]:
    """`steps` batches of up to `batch` rows, each from one source, no row twice in a pass over its source.

    A source smaller than the batch gives smaller batches: its negatives are then all it has.

    Args:
        batch: of every source, or by source.

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
    generator = np.random.default_rng(seed)
    names = sorted(name for name in sizes if sizes[name] >= min(2, batches[name]))
    picks = generator.choice(len(names), size=steps, p=_normalised([shares[name] for name in names]))
    cursors = {name: _Cursor(sizes[name], np.random.default_rng([seed, i])) for i, name in enumerate(names)}
    return [_draw(names[pick], cursors[names[pick]], batches[names[pick]]) for pick in picks]


class _Cursor:
    """Walks through a source in a new order every epoch."""

    def __init__(self, size: int, generator: np.random.Generator) -> None:
        self.size, self.generator = size, generator
        self.order, self.at, self.epoch = generator.permutation(size), 0, 0

    def take(self, count: int) -> tuple[np.ndarray, int]:
        if self.at + count > self.size:  # a tail shorter than a batch waits for no one: it starts anew
            self.order, self.at, self.epoch = self.generator.permutation(self.size), 0, self.epoch + 1
        rows = self.order[self.at : self.at + count]
        self.at += count
        return rows, self.epoch


def _draw(name: str, cursor: _Cursor, batch: int) -> Draw:
    rows, epoch = cursor.take(min(batch, cursor.size))
    return Draw(name, rows, epoch)


def _normalised(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    normalised: np.ndarray = array / array.sum()
    return normalised
