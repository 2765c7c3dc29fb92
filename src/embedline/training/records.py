"""Records by source, as training and mining read them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow.parquet as pq

from embedline.errors import InputError


@dataclass(frozen=True)
class Record:
    """One row: a query, what answers it, what does not.

    Args:
        score: how alike query and positives are, where somebody judged it; such a pair is no positive, its
            score only ranks it among others.
        positive_scores, negative_scores: what a teacher said of each of them, where the row brings that.
        source: where the row comes from, which its prompts may depend on; a source of training may be made
            of several.
    """

    id: str
    query: str
    positives: list[str]
    negatives: list[str]
    task_type: str
    language: str
    score: float | None = None
    source: str = ""
    positive_scores: list[float] | None = None
    negative_scores: list[float] | None = None


@dataclass
class SourceRecords:
    """The rows of one source."""

    name: str
    rows: list[Record] = field(default_factory=list)

    @property
    def task_type(self) -> str:
        return self.rows[0].task_type

    @property
    def scored(self) -> bool:
        """Whether its rows have scores. `apart` makes sources whose rows all have, or all lack, one."""
        return self.rows[0].score is not None


def read_records(path: Path, sources: Collection[str] | None = None) -> dict[str, SourceRecords]:
    """Read records.parquet; only the named sources, if any are named. Sources come in name order."""
    grouped: dict[str, SourceRecords] = {}
    for row in pq.read_table(path).to_pylist():
        name = row["source"]
        if sources is None or name in sources:
            record = Record(
                row["id"],
                row["query"],
                row["positives"],
                row["negatives"],
                row["task_type"],
                row["language"],
                row.get("score"),
                name,
                row.get("positive_scores"),
                row.get("negative_scores"),
            )
            grouped.setdefault(name, SourceRecords(name)).rows.append(record)
    return dict(sorted(grouped.items()))


def apart(sources: Mapping[str, SourceRecords]) -> tuple[dict[str, SourceRecords], dict[str, str]]:
    """Sources whose rows all have a score, or all lack one: a mixed one becomes two.

    Returns the sources, and the name of the source that each was part of.

    Raises:
        InputError: all scores of a source are the same, which ranks nothing.
    """
    parts: dict[str, SourceRecords] = {}
    origin: dict[str, str] = {}
    for name, source in sources.items():
        plain = [row for row in source.rows if row.score is None]
        scored = [row for row in source.rows if row.score is not None]
        if scored and len({row.score for row in scored}) == 1:
            raise InputError(
                f"all {len(scored)} scores of {name} are {scored[0].score}: nothing is ranked by them.",
                where="data.sources",
                fix="Give the source a min_score, which makes its rows positives, or leave it out.",
            )
        for suffix, rows in (("", plain), (" (scored)" if plain else "", scored)):
            if rows:
                parts[name + suffix] = SourceRecords(name + suffix, rows)
                origin[name + suffix] = name
    return parts, origin


def only(source: SourceRecords, wanted: Callable[[Record], bool]) -> SourceRecords:
    """The source with the rows that are `wanted`."""
    return replace(source, rows=[row for row in source.rows if wanted(row)])


def pool_small(
    sources: Mapping[str, SourceRecords], weights: Mapping[str, float], size: int
) -> tuple[dict[str, SourceRecords], dict[str, float]]:
    """Sources of fewer than `size` rows become one a task type and language, so that they can fill a batch.

    Scored rows are pooled with scored ones only. Returns the sources and their weights; a pool weighs as its
    rows do on average.
    """
    large = {name: source for name, source in sources.items() if len(source.rows) >= size}
    pools: dict[str, SourceRecords] = {}
    mass: dict[str, float] = {}
    for name, source in sources.items():
        if name not in large:
            pool = f"small {source.task_type} {source.rows[0].language}" + " scored" * source.scored
            pools.setdefault(pool, SourceRecords(pool)).rows.extend(source.rows)
            mass[pool] = mass.get(pool, 0.0) + weights.get(name, 1.0) * len(source.rows)
    means = {pool: mass[pool] / len(source.rows) for pool, source in pools.items()}
    return {**large, **pools}, {**{name: weights.get(name, 1.0) for name in large}, **means}
