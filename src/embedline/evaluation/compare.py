"""Comparison of score rows: models and stages against BM25 and the untrained model. No heavy imports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embedline.artifacts.scores import DENSE, UNRELATED, ScoreRow
from embedline.dag import STEPS, output_kind
from embedline.gate.model_scores import ModelScores
from embedline.gate.reason import Spread
from embedline.markdown import cell
from embedline.markdown import table as markdown_table

CANDIDATE, CHAMPION = "candidate", "champion"
HEADS = (DENSE, "lexical", "multi_vector", "hybrid")
BENCHMARK = "MTEB(rus, v1.1)"  # name of the set whose score is the mean over its tasks


def stage_inputs() -> dict[str, str]:
    """Return the inputs of `evaluate` that hold a training stage's model: input → the step that makes it."""
    return {
        name: source.partition(".")[0]
        for name, source in STEPS["evaluate"].inputs.items()
        if output_kind(source) == "model" and name != CANDIDATE
    }


def all_stages() -> tuple[str, ...]:
    """Return the compared models: baselines, the stages in order, candidate, champion."""
    return ("bm25", "untrained", "base", *stage_inputs().values(), CANDIDATE, CHAMPION)


def all_columns() -> tuple[str, ...]:
    """Return every column of a score table, in order; a table shows those that it has scores for."""
    return (*all_stages(), "onnx-fp32", "onnx-int8")


def column(row: ScoreRow) -> str:
    """Return the column of a table that a row belongs to."""
    return row.runtime if row.is_onnx else row.model


def full_width(rows: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Select the main scores of the dense head at each model's full width."""
    best: dict[tuple[str, str, str], ScoreRow] = {}
    for row in rows:
        if row.main and row.is_dense:
            key = column(row), row.set, row.metric
            if key not in best or row.dim > best[key].dim:
                best[key] = row
    return list(best.values())


def main_table(rows: Iterable[ScoreRow]) -> dict[tuple[str, str], dict[str, ScoreRow]]:
    """Arrange main scores as (set, metric) → column → row, in the order in which the sets were scored."""
    table: dict[tuple[str, str], dict[str, ScoreRow]] = {}
    for row in full_width(rows):
        table.setdefault((row.set, row.metric), {})[column(row)] = row
    return table


def columns_of(table: Mapping[tuple[str, str], Mapping[str, ScoreRow]]) -> list[str]:
    """Return the columns that hold anything."""
    held = {name for cells in table.values() for name in cells}
    return [name for name in all_columns() if name in held]


@dataclass(frozen=True)
class StageTable:
    """nDCG@10 of every stage on the held-out retrieval sets.

    Args:
        values: stage → set → value, all that there is.
        shared: the sets that every stage (base and champion included) was scored on.
        means: stage → mean over `shared`; empty when there is no such set.
    """

    values: dict[str, dict[str, float]]
    shared: tuple[str, ...]
    means: dict[str, float]


def stage_table(rows: Iterable[ScoreRow]) -> StageTable:
    """Compare the stages on retrieval sets: main scores of the dense head at full width, by torch.

    >>> table = stage_table(read_scores(Path("runs/latest/scores")))
    >>> table.means["candidate"] - table.means["base"]
    """
    ranked = [row for row in full_width(rows) if row.kind == "retrieval" and not row.is_onnx]
    values: dict[str, dict[str, float]] = {}
    for stage in all_stages():
        if own := {row.set: row.value for row in ranked if row.model == stage}:
            values[stage] = own
    order = dict.fromkeys(row.set for row in ranked)
    shared = tuple(name for name in order if all(name in own for own in values.values()))
    means = {
        stage: sum(own[name] for name in shared) / len(shared) for stage, own in values.items() if shared
    }
    return StageTable(values, shared, means)


def dims_table(rows: Iterable[ScoreRow], model: str = CANDIDATE) -> dict[str, dict[int, ScoreRow]]:
    """Arrange one model's main scores as set → dim → row; only sets that were scored at several dims."""
    table: dict[str, dict[int, ScoreRow]] = {}
    for row in rows:
        if row.main and row.is_dense and column(row) == model:
            table.setdefault(row.set, {})[row.dim] = row
    return {name: dict(sorted(dims.items(), reverse=True)) for name, dims in table.items() if len(dims) > 1}


def heads_table(rows: Sequence[ScoreRow], model: str = CANDIDATE) -> dict[str, dict[str, ScoreRow]]:
    """Arrange one model's main scores at full width as set → head → row; only sets with several heads."""
    table = {key[0]: {DENSE: cells[model]} for key, cells in main_table(rows).items() if model in cells}
    for row in rows:
        if row.main and not row.is_dense and column(row) == model:
            table.setdefault(row.set, {})[row.head] = row
    return {name: heads for name, heads in table.items() if len(heads) > 1}


def sets_ignoring_ids(rows: Iterable[ScoreRow]) -> list[str]:
    """List the sets in whose rankings the document with the query's id is no result."""
    return list(dict.fromkeys(row.set for row in rows if row.ignore_identical_ids))


def spread_table(rows: Sequence[ScoreRow]) -> dict[str, Spread]:
    """Arrange the spread of the vectors as model → spread; models that were scored by torch."""
    names = dict.fromkeys([*all_stages(), *(row.model for row in rows)])
    spreads = {name: ModelScores.of(name, rows).spread for name in names}
    return {name: spread for name, spread in spreads.items() if spread is not None}


def markdown(rows: Sequence[ScoreRow]) -> str:
    """Write tables: main scores by set and model, the candidate's by head, the spread of the vectors."""
    scores, by_head = main_table(rows), heads_table(rows)
    columns = columns_of(scores)
    lines = [[name, metric, *_values(cells, columns)] for (name, metric), cells in scores.items()]
    text = markdown_table(["set", "metric", *columns], lines, align="ll" + "r" * len(columns))
    if ignoring := sets_ignoring_ids(rows):
        names = ", ".join(map(cell, ignoring))
        text += f"\n\nThe document with the query's id is no result in: {names}."
    if by_head:
        heads = [head for head in HEADS if any(head in cells for cells in by_head.values())]
        lines = [[name, *_values(cells, heads)] for name, cells in by_head.items()]
        text += f"\n\n{markdown_table([CANDIDATE, *heads], lines, align='l' + 'r' * len(heads))}"
    if spreads := spread_table(rows):
        lines = [
            [name, f"{spread.mean_cosine:.3f}", f"{spread.effective_rank:.1f} of {spread.dims}"]
            for name, spread in spreads.items()
        ]
        text += f"\n\n{markdown_table([UNRELATED, 'mean cosine', 'effective rank'], lines, align='lrr')}"
    return text


def _values(cells: Mapping[str, ScoreRow], columns: Iterable[str]) -> list[str]:
    return [f"{cells[name].value:.3f}" if name in cells else "" for name in columns]
