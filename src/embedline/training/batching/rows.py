"""The rows of a stage as arrays of numbers, without their texts: batches are drawn from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from embedline.errors import InputError


@dataclass(frozen=True)
class RowGroup:
    """A group of rows with the same properties, by which the rows of a batch are chosen.

    Args:
        scored: whether the rows have a score, so that their documents are no positives.
        negatives: whether the rows have their own negatives.
        teacher_scores: whether the rows have a teacher's scores of their documents.
    """

    source: str
    task_type: str
    language: str
    scored: bool = False
    negatives: bool = False
    teacher_scores: bool = False


@dataclass(frozen=True)
class Columns:
    """The properties of N rows that batches are composed by.

    Args:
        row_groups: all groups of rows.
        row_group: the number of each row's group (N).
        longest: tokens of each row's longest text (N).
        tokens: tokens of each row in a batch, with its longest positive (N).
        score_ranges: the lowest and the highest score of each source that has scores.
    """

    row_groups: list[RowGroup]
    row_group: np.ndarray
    longest: np.ndarray
    tokens: np.ndarray
    score_ranges: Mapping[str, tuple[float, float]]

    def rows_of(self, chosen: Callable[[RowGroup], bool]) -> np.ndarray:
        """Return the numbers of the rows of the `chosen` groups, ascending."""
        mask = np.array([chosen(row_group) for row_group in self.row_groups], dtype=bool)
        return compact(np.flatnonzero(mask[self.row_group]), len(self.row_group))


@dataclass(frozen=True)
class SourceRows:
    """Rows that a batch may be drawn from: those of one source, or of several small ones.

    Args:
        numbers: the numbers of the rows.
        row_group: the group of the first of them.
        weight: multiplies their share of the batches.
    """

    name: str
    numbers: np.ndarray
    row_group: RowGroup
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.numbers)


def compact(numbers: np.ndarray, largest: int) -> np.ndarray:
    """Store integers from 0 to `largest` in the smallest type that holds them."""
    return numbers.astype(np.min_scalar_type(largest), copy=False)


def split_by_source(
    columns: Columns,
    weights: Mapping[str, float],
    chosen: Callable[[RowGroup], bool] = lambda row_group: True,
    *,
    by_task: bool = False,
) -> dict[str, SourceRows]:
    """Split the rows by source, and the rows of a source into those with and those without a score.

    Args:
        weights: by source; 1 where there is none.
        chosen: rows of other groups are left out.
        by_task: split rows of different task types, too.

    Raises:
        InputError: all scores of a source are the same, so that they rank nothing.
    """
    parts: dict[str, SourceRows] = {}
    for name in sorted({row_group.source for row_group in columns.row_groups}):
        lowest, highest = columns.score_ranges.get(name, (0.0, 1.0))
        if lowest == highest:
            raise InputError(
                f"all scores of {name} are {lowest}: nothing is ranked by them.",
                where="data.sources",
                fix="Give the source a min_score, which makes its rows positives, or leave it out.",
            )
        own = [
            row_group for row_group in columns.row_groups if row_group.source == name and chosen(row_group)
        ]
        # None stands for all task types together.
        tasks: list[str | None] = [*sorted({row_group.task_type for row_group in own})] if by_task else [None]
        kinds = {(row_group.scored, row_group.task_type if by_task else None) for row_group in own}
        for scored, task in ((scored, task) for task in tasks for scored in (False, True)):
            numbers = columns.rows_of(
                lambda row_group, own=own, scored=scored, task=task: (  # type: ignore[misc]
                    row_group in own and row_group.scored == scored and task in {None, row_group.task_type}
                )
            )
            if len(numbers):
                words = [f"({task})"] * (task is not None and len(tasks) > 1)
                words += ["(scored)"] * (scored and (False, task) in kinds)
                part = " ".join([name, *words])
                first = columns.row_groups[columns.row_group[numbers[0]]]
                parts[part] = SourceRows(part, numbers, first, weights.get(name, 1.0))
    return parts


def pool_small(sources: Mapping[str, SourceRows], size: int) -> dict[str, SourceRows]:
    """Pool the sources of fewer than `size` rows by task type and language, so that they can fill a batch.

    Scored rows are pooled with scored ones only. The weight of a pool is the mean over its rows.
    """
    large = {name: source for name, source in sources.items() if len(source) >= size}
    pools: dict[str, list[SourceRows]] = {}
    for name, source in sources.items():
        if name not in large:
            row_group = source.row_group
            pool = f"small {row_group.task_type} {row_group.language}" + " scored" * row_group.scored
            pools.setdefault(pool, []).append(source)
    return large | {name: _pool(name, small) for name, small in pools.items()}


def _pool(name: str, sources: list[SourceRows]) -> SourceRows:
    numbers = np.concatenate([source.numbers for source in sources])
    weight = sum(source.weight * len(source) for source in sources) / len(numbers)
    return SourceRows(name, numbers, sources[0].row_group, weight)
