"""The rows of a stage as batches are composed of them: numbers in arrays, a few bytes a row, no text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from embedline.errors import InputError


@dataclass(frozen=True)
class Kind:
    """What rows have in common, as far as it matters for which of them make a batch.

    Args:
        scored: whether they have a score, which makes them no positives.
        negatives: whether they bring negatives of their own.
        told: whether they bring a teacher's scores of their documents.
    """

    source: str
    task_type: str
    language: str
    scored: bool = False
    negatives: bool = False
    told: bool = False


@dataclass(frozen=True)
class Columns:
    """What batches are composed by: a value for each of N rows.

    Args:
        kinds: the kinds of rows that there are.
        kind: which of them a row is (N).
        longest: tokens of a row's longest text (N).
        tokens: of what a batch takes of a row, with its longest positive (N).
        score_ranges: the lowest and the highest score of each source that has scores.
    """

    kinds: list[Kind]
    kind: np.ndarray
    longest: np.ndarray
    tokens: np.ndarray
    score_ranges: Mapping[str, tuple[float, float]]

    def all_of(self, wanted: Callable[[Kind], bool]) -> np.ndarray:
        """The numbers of the rows of the kinds that are `wanted`, ascending."""
        chosen = np.array([wanted(kind) for kind in self.kinds], dtype=bool)
        return compact(np.flatnonzero(chosen[self.kind]), len(self.kind))


@dataclass(frozen=True)
class SourceRows:
    """Rows that a batch may be drawn from: those of one source, or of several small ones.

    Args:
        numbers: of the rows.
        kind: of the first of them.
        weight: multiplies their share of the batches.
    """

    name: str
    numbers: np.ndarray
    kind: Kind
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.numbers)


def compact(numbers: np.ndarray, most: int) -> np.ndarray:
    """Integers from 0 to `most` in as few bytes each as hold them."""
    return numbers.astype(np.min_scalar_type(most), copy=False)


def apart(
    columns: Columns,
    weights: Mapping[str, float],
    wanted: Callable[[Kind], bool] = lambda kind: True,
    *,
    by_task: bool = False,
) -> dict[str, SourceRows]:
    """The rows by source, those with a score and those without apart: a mixed source becomes two.

    Args:
        weights: by source; 1 where there is none.
        wanted: rows of other kinds are left out.
        by_task: rows of different task types apart, too.

    Raises:
        InputError: all scores of a source are the same, which ranks nothing.
    """
    parts: dict[str, SourceRows] = {}
    for name in sorted({kind.source for kind in columns.kinds}):
        lowest, highest = columns.score_ranges.get(name, (0.0, 1.0))
        if lowest == highest:
            raise InputError(
                f"all scores of {name} are {lowest}: nothing is ranked by them.",
                where="data.sources",
                fix="Give the source a min_score, which makes its rows positives, or leave it out.",
            )
        own = [kind for kind in columns.kinds if kind.source == name and wanted(kind)]
        # None: whatever it is.
        tasks: list[str | None] = [*sorted({kind.task_type for kind in own})] if by_task else [None]
        several = {(kind.scored, kind.task_type if by_task else None) for kind in own}
        for scored, task in ((scored, task) for task in tasks for scored in (False, True)):
            numbers = columns.all_of(
                lambda kind, own=own, scored=scored, task=task: (  # type: ignore[misc]
                    kind in own and kind.scored == scored and task in {None, kind.task_type}
                )
            )
            if len(numbers):
                words = [f"({task})"] * (task is not None and len(tasks) > 1)
                words += ["(scored)"] * (scored and (False, task) in several)
                part = " ".join([name, *words])
                kind = columns.kinds[columns.kind[numbers[0]]]
                parts[part] = SourceRows(part, numbers, kind, weights.get(name, 1.0))
    return parts


def pool_small(sources: Mapping[str, SourceRows], size: int) -> dict[str, SourceRows]:
    """Sources of fewer than `size` rows become one a task type and language, so that they can fill a batch.

    Scored rows are pooled with scored ones only. A pool weighs as its rows do on average.
    """
    large = {name: source for name, source in sources.items() if len(source) >= size}
    pools: dict[str, list[SourceRows]] = {}
    for name, source in sources.items():
        if name not in large:
            kind = source.kind
            pool = f"small {kind.task_type} {kind.language}" + " scored" * kind.scored
            pools.setdefault(pool, []).append(source)
    return large | {name: _pool(name, small) for name, small in pools.items()}


def _pool(name: str, sources: list[SourceRows]) -> SourceRows:
    numbers = np.concatenate([source.numbers for source in sources])
    weight = sum(source.weight * len(source) for source in sources) / len(numbers)
    return SourceRows(name, numbers, sources[0].kind, weight)
