"""Score rows side by side: models and stages against BM25 and the untrained model. No heavy imports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from embedline.artifacts.markdown import cell

Row = Mapping[str, Any]

# In the order in which a model comes to be; a table shows those it has.
COLUMNS = (
    "bm25",
    "untrained",
    "base",
    "pretrain",
    "train_unsupervised",
    "train_supervised",
    "candidate",
    "champion",
    "onnx-fp32",
    "onnx-int8",
)
STAGES = COLUMNS[:7]
HEADS = ("dense", "lexical", "multi_vector", "hybrid")
BENCHMARK = "MTEB(rus, v1.1)"  # the set that the mean of its tasks stands under


def column(row: Row) -> str:
    """The column of a table that a row belongs to."""
    runtime = str(row.get("runtime") or "torch")
    return runtime if runtime.startswith("onnx") else str(row["model"])


def is_dense(row: Row) -> bool:
    """Whether a row is about the vector that every model has, not about another head."""
    return (row.get("head") or "dense") == "dense"


def full_width(rows: Iterable[Row]) -> list[Row]:
    """Main scores of the dense head at each model's full width."""
    best: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        if row.get("main") and is_dense(row):
            key = column(row), str(row["set"]), str(row["metric"])
            if key not in best or (row.get("dim") or 0) > (best[key].get("dim") or 0):
                best[key] = row
    return list(best.values())


def main_table(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, Row]]:
    """(set, metric) → column → row, in the order in which the sets were scored."""
    table: dict[tuple[str, str], dict[str, Row]] = {}
    for row in full_width(rows):
        table.setdefault((str(row["set"]), str(row["metric"])), {})[column(row)] = row
    return table


def columns_of(table: Mapping[tuple[str, str], Mapping[str, Row]]) -> list[str]:
    """The columns that hold anything."""
    held = {name for cells in table.values() for name in cells}
    return [name for name in COLUMNS if name in held]


def stage_comparison(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """Retrieval set → stage → nDCG@10, of the sets that every stage was scored on; `mean` comes last."""
    table = {key[0]: c for key, c in main_table(rows).items() if _is_ranked(c)}
    stages = [name for name in STAGES if any(name in cells for cells in table.values())]
    shared = {
        name: {stage: float(cells[stage]["value"]) for stage in stages}
        for name, cells in table.items()
        if all(stage in cells for stage in stages)
    }
    if len(shared) > 1:
        shared["mean"] = {s: sum(values[s] for values in shared.values()) / len(shared) for s in stages}
    return shared


def dims_table(rows: Iterable[Row], model: str = "candidate") -> dict[str, dict[int, Row]]:
    """Set → dim → main score of one model: what cutting its vectors costs. Only sets with several dims."""
    table: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.get("main") and is_dense(row) and row["model"] == model and column(row) == model:
            table.setdefault(str(row["set"]), {})[int(row.get("dim") or 0)] = row
    return {name: dict(sorted(dims.items(), reverse=True)) for name, dims in table.items() if len(dims) > 1}


def heads_table(rows: Sequence[Row], model: str = "candidate") -> dict[str, dict[str, Row]]:
    """Set → head → main score of one model at full width; only sets on which several heads were scored."""
    table = {key[0]: {"dense": cells[model]} for key, cells in main_table(rows).items() if model in cells}
    for row in rows:
        if row.get("main") and not is_dense(row) and row["model"] == model and column(row) == model:
            table.setdefault(str(row["set"]), {})[str(row["head"])] = row
    return {name: heads for name, heads in table.items() if len(heads) > 1}


def markdown(rows: Sequence[Row]) -> str:
    """Main scores, rows sets, columns models; then the candidate's by head, if it has several."""
    table = main_table(rows)
    names = columns_of(table)
    lines = [f"| set | metric | {' | '.join(names)} |", f"|---|---|{'---:|' * len(names)}"]
    for (name, metric), cells in table.items():
        values = [f"{cells[c]['value']:.3f}" if c in cells else "" for c in names]
        lines.append(f"| {cell(name)} | {cell(metric)} | {' | '.join(values)} |")
    by_head = heads_table(rows)
    if by_head:
        heads = [head for head in HEADS if any(head in cells for cells in by_head.values())]
        lines += ["", f"| candidate | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
        for name, cells in by_head.items():
            values = [f"{cells[h]['value']:.3f}" if h in cells else "" for h in heads]
            lines.append(f"| {cell(name)} | {' | '.join(values)} |")
    return "\n".join(lines)


def _is_ranked(cells: Mapping[str, Row]) -> bool:
    return all(row["kind"] == "retrieval" and row["metric"] == "ndcg@10" for row in cells.values())
